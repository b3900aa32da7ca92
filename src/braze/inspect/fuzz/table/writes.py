"""Operators that write to their first argument, as a whole or through a view of it."""

from __future__ import annotations

from braze.inspect.fuzz.numbers import At, Dims, Either, Int, OneOf, Scalar
from braze.inspect.fuzz.operands import (
    BOOL,
    FLOAT,
    INTEGERS,
    NUMERIC,
    Index,
    Like,
    Matching,
    Operand,
    T,
    nonzero,
)
from braze.inspect.fuzz.operators import Operator, Rounding

__all__ = ["ROWS"]

_DIM = Dims()
_SOME = T(rank=(1, 4))
_MATRIX = T(rank=(2, 2))
_OTHER = Either((Like(how="into", dtypes=None), Scalar("i")))
_SAME = Like(how="into", dtypes=None)
_VALUE = Scalar("i", 0, 4)


def _write(
    name: str,
    form: str,
    *operands: Operand,
    rounding: Rounding = "exact",
    sharp: bool = False,
    weight: float = 0.7,
) -> Operator:
    """An operator that returns nothing to the program."""
    return Operator(
        name, form, operands, "nothing", rounding, results=0, sharp=sharp, writes=True, weight=weight
    )


def _functions(words: str, rounding: Rounding, sharp: bool = False) -> list[Operator]:
    return [
        _write(f"{name}_", f"{{0}}.{name}_()", T(FLOAT), rounding=rounding, sharp=sharp, weight=0.35)
        for name in words.split()
    ]


ROWS: tuple[Operator, ...] = (
    _write("add_", "{0}.add_({1})", T(NUMERIC), _OTHER, rounding="ieee", weight=1.5),
    _write("iadd", "{0} += {1}", T(NUMERIC), _OTHER, rounding="ieee", weight=1.5),
    _write("sub_", "{0}.sub_({1})", T(NUMERIC), _OTHER, rounding="ieee"),
    _write("mul_", "{0}.mul_({1})", T(NUMERIC), _OTHER, rounding="ieee", weight=1.5),
    _write("imul_number", "{0} *= {1}", T(FLOAT), Scalar("f"), rounding="ieee"),
    _write("div_", "{0}.div_({1})", T(FLOAT), _OTHER, rounding="ieee"),
    _write(
        "remainder_",
        "{0}.remainder_({1})",
        T(NUMERIC),
        Like(how="into", dtypes=None, check=nonzero),
        rounding="ieee",
        sharp=True,
    ),
    _write("pow_", "{0}.pow_({1})", T(FLOAT), Int(0, 3), rounding="loose"),
    _write("addcmul_", "{0}.addcmul_({1}, {2})", T(FLOAT), _SAME, _SAME, rounding="loose"),
    _write("lerp_", "{0}.lerp_({1}, {2})", T(FLOAT), _SAME, Scalar("f"), rounding="loose"),
    _write("bitwise_xor_", "{0}.bitwise_xor_({1})", T(INTEGERS), _SAME),
    _write("logical_and_", "{0}.logical_and_({1})", T(), _SAME, sharp=True),
    _write("gt_", "{0}.gt_({1})", T(NUMERIC), _SAME, sharp=True, weight=0.4),
    *_functions("exp sqrt sigmoid tanh sin rsqrt reciprocal log1p", "loose"),
    *_functions("relu abs neg", "exact"),
    *_functions("floor round sign trunc", "exact", sharp=True),
    _write("copy_", "{0}.copy_({1})", T(), _SAME, weight=1.5),
    _write("copy_cast_", "{0}.copy_({1})", T(FLOAT), Like(how="into"), rounding="cast"),
    _write("fill_", "{0}.fill_({1})", T(), _VALUE),
    _write("fill_tensor_", "{0}.fill_({1})", T(), Matching(())),
    _write("zero_", "{0}.zero_()", T()),
    _write("clamp_", "{0}.clamp_({1}, {2})", T(NUMERIC), Int(-3, 0), Int(0, 3)),
    _write("clamp_min_", "{0}.clamp_(min={1})", T(FLOAT), Scalar("f")),
    _write("leaky_relu_", "F.leaky_relu({0}, 0.25, inplace=True)", T(FLOAT), rounding="ieee"),
    _write(
        "masked_fill_", "{0}.masked_fill_({1}, {2})", T(), Like(how="into", dtypes=BOOL), _VALUE, weight=1
    ),
    _write("index_fill_", "{0}.index_fill_({1}, {2}, {3})", _SOME, _DIM, Index(dim=1, shape="line"), _VALUE),
    _write(
        "index_add_",
        "{0}.index_add_({1}, {2}, {3})",
        T(rank=(1, 1)),
        _DIM,
        Index(dim=1, shape="line"),
        Matching(((2, 0),)),
        rounding="loose",
    ),
    _write(
        "index_copy_",
        "{0}.index_copy_(0, {1}, {2})",
        T(rank=(1, 1)),
        Index(axis=0, shape="same", unique=True),
        Like(how="same", dtypes=None),
    ),
    _write(
        "index_put_",
        "{0}.index_put_(({1},), {2}, accumulate=True)",
        T(rank=(1, 1)),
        Index(axis=0, shape="line"),
        Matching(((1, 0),)),
        rounding="loose",
    ),
    _write("scatter_", "{0}.scatter_({1}, {2}, {3})", _SOME, _DIM, Index(dim=1, shape="same"), _VALUE),
    _write(
        "scatter_add_",
        "{0}.scatter_add_({1}, {2}, {3})",
        _SOME,
        _DIM,
        Index(dim=1, shape="same"),
        Like(how="same", dtypes=None),
        rounding="loose",
    ),
    _write(
        "scatter_reduce_",
        "{0}.scatter_reduce_({1}, {2}, {3}, {4}, include_self={5})",
        T(NUMERIC, rank=(1, 4)),
        _DIM,
        Index(dim=1, shape="same"),
        Like(how="same", dtypes=None),
        OneOf(("sum", "amax", "amin")),
        OneOf((True, False)),
        rounding="loose",
    ),
    _write(
        "put_",
        "{0}.put_({1}, {2}, accumulate={3})",
        T(nonempty=True),
        Index(shape="line", unique=True),
        Matching(((1, 0),)),
        OneOf((True, False)),
        rounding="ieee",
    ),
    _write("tril_", "{0}.tril_({1})", _MATRIX, Int(-1, 1)),
    _write("fill_diagonal_", "{0}.fill_diagonal_({1})", _MATRIX, _VALUE, weight=0.4),
    # through a view
    _write("set_slice", "{0}[{1}:{2}] = {3}", _SOME, At(bound=True), At(bound=True), _VALUE, weight=1.5),
    _write("set_slice_tensor", "{0}[1:] = {1}", _SOME, Matching((), dtypes=None), weight=1),
    _write("set_rows", "{0}[1:3] = {1}[1:3]", _SOME, Like(how="same", dtypes=None), weight=1),
    _write("set_item", "{0}[{1}] = {2}", _SOME, At(), _VALUE),
    _write("set_last", "{0}[..., {1}] = {2}", _SOME, At(axis=-1), _VALUE, weight=1),
    _write("set_step", "{0}[..., ::2] = {1}", _SOME, _VALUE, weight=1),
    _write("set_masked", "{0}[{1}] = {2}", T(), Like(how="same", dtypes=BOOL), _VALUE),
    _write("set_compared", "{0}[{0} > {1}] = {2}", T(), Scalar("if", -2, 2), _VALUE, sharp=True),
    _write("set_indexed", "{0}[{1}] = {2}", _SOME, Index(axis=0, negative=True), _VALUE, weight=1),
    _write(
        "add_indexed",
        "{0}[{1}] += {2}",
        T(NUMERIC, rank=(1, 4)),
        Index(axis=0, shape="line"),
        Int(1, 3),
        rounding="ieee",
    ),
    _write("add_slice", "{0}[1:] += {1}", T(NUMERIC, rank=(1, 4)), Int(1, 3), rounding="ieee", weight=1),
    _write("add_previous", "{0}[1:].add_({0}[:-1].clone())", T(NUMERIC, rank=(1, 4)), rounding="ieee"),
    _write(
        "mul_column",
        "{0}[:, {1}:].mul_({2})",
        T(NUMERIC, rank=(2, 4)),
        At(axis=1, bound=True),
        Int(2, 3),
        rounding="ieee",
        weight=1,
    ),
    _write("mul_t", "{0}.t().mul_({1})", T(NUMERIC, rank=(2, 2)), Int(2, 3), rounding="ieee", weight=1),
    _write("add_flat", "{0}.view(-1).add_({1})", T(NUMERIC), Int(1, 3), rounding="ieee", weight=1),
    _write(
        "add_permuted",
        "{0}.transpose({1}, {2}).add_({3})",
        T(NUMERIC, rank=(2, 4)),
        _DIM,
        _DIM,
        Int(1, 3),
        rounding="ieee",
    ),
    _write("fill_diagonal_view", "{0}.diagonal().fill_({1})", _MATRIX, _VALUE, weight=1),
    _write("copy_select", "{0}.select({1}, {2}).copy_({0}.select({1}, 0))", _SOME, _DIM, At(dim=1)),
    _write("copy_narrow", "{0}.narrow({1}, {2}, 1).fill_({3})", _SOME, _DIM, At(dim=1), _VALUE),
    _write(
        "add_unfolded",
        "{0}.unfold({1}, 1, 2).add_({2})",
        T(NUMERIC, rank=(1, 3)),
        _DIM,
        Int(1, 3),
        rounding="ieee",
    ),
    _write("zero_chunk", "{0}.chunk(2, {1})[0].zero_()", _SOME, _DIM),
    _write("relu_chunk", "{0}.chunk(2, {1})[-1].relu_()", T(FLOAT, rank=(1, 4)), _DIM),
    _write("exp_expanded", "{0}.unsqueeze(0).exp_()", T(FLOAT), rounding="loose"),
    _write("fill_bits", "{0}.view(torch.int32).fill_({1})", T(("float32", "int32")), Int(0, 3)),
    _write("transpose_", "{0}.transpose_({1}, {2})", _SOME, _DIM, _DIM, weight=0.3),
    _write("squeeze_", "{0}.squeeze_()", T(), weight=0.3),
    _write("unsqueeze_", "{0}.unsqueeze_(0)", T(rank=(0, 3)), weight=0.3),
    _write("copy_flipped", "{0}.copy_({0}.flip(0))", _SOME),
    _write("copy_rolled", "{0}[1:] = {0}[:-1].clone()", _SOME),
)
