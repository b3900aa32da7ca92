"""Integers and truth values: overflow, division, shifts beyond the width, and what bool becomes."""

from __future__ import annotations

from braze.inspect.fuzz.numbers import Dims, Either, Int, OneOf, Scalar
from braze.inspect.fuzz.operands import BOOL, FLOAT, INT, INTEGERS, Cast, Like, Operand, T, moderate, nonzero
from braze.inspect.fuzz.operators import Gives, Operator

__all__ = ["ROWS"]

_ANY = T(INTEGERS)
_INT = T(INT)
_BOOL = T(BOOL)
_OTHER = Either((Like(dtypes=INTEGERS), Scalar("ib")))
_DIM = Dims()


def _row(name: str, form: str, *operands: Operand, gives: Gives = "any", weight: float = 0.5) -> Operator:
    return Operator(name, form, operands, gives, "exact", sharp=True, weight=weight)


ROWS: tuple[Operator, ...] = (
    _row("int_polynomial", "({0} * {0} * {1} - {0} * 3 + {1})", _INT, _OTHER),
    _row("int_hash", "(({0} * 73856093) ^ ({0} << 5) ^ ({0} >> 3))", _INT),
    _row("int_power", "({0} ** {1})", _INT, Int(0, 9)),
    _row("int_powers", "torch.pow({0}.abs(), {1} & 7)", _INT, Like(dtypes=INT)),
    _row(
        "shift_far", "(({0} << {1}), ({0} >> {1}))[{2}]", _INT, OneOf((8, 15, 16, 31, 32, 33, 63)), Int(0, 1)
    ),
    _row(
        "quotient_and_rest", "(({0} // {1}) * {1} + {0} % {1} - {0})", _INT, Like(dtypes=INT, check=nonzero)
    ),
    _row("rest_by_number", "({0} % {1})", _INT, OneOf((-7, -3, -1, 1, 2, 3, 7, 8))),
    _row("quotient_by_number", "({0} // {1})", _INT, OneOf((-7, -3, -1, 1, 2, 3, 7, 8))),
    _row(
        "truncated_by_number",
        'torch.div({0}, {1}, rounding_mode="trunc")',
        _INT,
        OneOf((-7, -3, 1, 2, 3, 7, 8)),
    ),
    _row("number_by_int", "({1} // {0})", T(INT, check=nonzero), OneOf((-9, 0, 7, 100))),
    _row("fmod_by_number", "torch.fmod({0}, {1})", _INT, OneOf((-7, -3, 1, 2, 3, 7, 8))),
    _row("int_abs_neg", "(-{0}).abs()", _INT),
    _row("int_sum_narrow", "({0} + {0}).sum({1})", T(INTEGERS, rank=(1, 4)), _DIM),
    _row("int_prod_typed", "torch.prod({0}, {1}, dtype={0}.dtype)", T(INT, rank=(1, 4)), _DIM),
    _row("int_cumsum_typed", "torch.cumsum({0}, {1}, dtype={0}.dtype)", T(INT, rank=(1, 4)), _DIM),
    _row("int_cumprod", "torch.cumprod({0}, {1})", T(INTEGERS, rank=(1, 4)), _DIM),
    _row("narrowed", "{0}.to({1})", _ANY, Cast(dtypes=("int8", "uint8", "int16"))),
    _row("mean_of_int", "{0}.float().mean({1})", T(INTEGERS, rank=(1, 4), check=moderate), _DIM),
    _row("int_lerp", "torch.where({0} > {1}, {0} * 2, {1})", _INT, Like(dtypes=INT)),
    _row("int_clamp", "{0}.clamp({1}, {2})", _INT, Int(-3, 0), Int(1, 300)),
    _row("int_add_alpha", "torch.add({0}, {1}, alpha={2})", _INT, Like(dtypes=INT), Int(-300, 300)),
    _row("int_addcmul", "torch.addcmul({0}, {1}, {1}, value=2)", _INT, Like(dtypes=None)),
    _row("float_of_big", "({0} * 1000003).float()", _INT),
    _row(
        "positions_of_bits",
        "(({0}.unsqueeze(-1) >> torch.arange(8, dtype={0}.dtype)) & 1)",
        T(INT, rank=(0, 2)),
    ),
    _row("packed", "(({0} & 1) << torch.arange({0}.shape[-1])).sum(-1)", T(INT, rank=(1, 3))),
    # truth values
    _row("bool_sum", "({0} + {1})", _BOOL, _OTHER),
    _row("bool_product", "({0} * {1})", _BOOL, _OTHER),
    _row("bool_ratio", "({0} / ({1} + 1))", _BOOL, Like(dtypes=BOOL)),
    _row("bool_counts", "torch.cumsum({0}, {1})", T(BOOL, rank=(1, 3)), _DIM),
    _row("bool_max", "{0}.amax({1})", T(BOOL, rank=(1, 3)), Dims()),
    _row("bool_order", "({0} < {1}) ^ ({0} >= {1})", _BOOL, Like(dtypes=BOOL)),
    _row("bool_not", "(~{0} & {1}) | ({0} == {1})", _BOOL, Like(dtypes=BOOL)),
    _row("bool_weights", "torch.where({0}, {1}, -1).to(torch.int8)", _BOOL, Int(-3, 3)),
    _row("bool_of_float", "({0}.bool() + 1)", T(FLOAT)),
    _row("bool_any_all", "({0}.any({1}) & ~{0}.all({1}))", T(BOOL, rank=(1, 3)), _DIM),
    _row(
        "bool_sorted",
        "torch.sort({0}.to(torch.uint8), dim={1}, stable=True).values",
        T(BOOL, rank=(1, 3)),
        _DIM,
    ),
)
