"""Operators on each element by itself: arithmetic, functions, comparisons, bits, casts."""

from __future__ import annotations

from braze.inspect.fuzz.numbers import Either, Int, OneOf, Scalar
from braze.inspect.fuzz.operands import (
    BOOL,
    FLOAT,
    INT,
    INTEGERS,
    NUMERIC,
    SIGNED,
    Cast,
    Like,
    Operand,
    T,
    moderate,
    no_nan,
    nonzero,
    positive,
)
from braze.inspect.fuzz.operators import Gives, Operator, Rounding

__all__ = ["ROWS"]

WIDE = ("float32", "float64")
POLYNOMIALS = """hermite_polynomial_h hermite_polynomial_he laguerre_polynomial_l legendre_polynomial_p
chebyshev_polynomial_t chebyshev_polynomial_u chebyshev_polynomial_v chebyshev_polynomial_w"""

_OTHER = Either((Like(), Scalar()))
_NUMBER = Either((Like(dtypes=NUMERIC), Scalar("if")))
_NONZERO = Either((Like(dtypes=NUMERIC, check=nonzero), Scalar("if", 1, 4)))
_WHOLE = Either((Like(dtypes=INTEGERS), Scalar("ib")))


def _functions(
    words: str, operand: Operand, gives: Gives, rounding: Rounding, sharp: bool = False
) -> list[Operator]:
    """Functions of torch of one argument."""
    return [
        Operator(name, f"torch.{name}({{0}})", (operand,), gives, rounding, sharp=sharp, weight=0.6)
        for name in words.split()
    ]


def _special(words: str) -> list[Operator]:
    """Functions of torch.special of a positive argument."""
    operand = T(WIDE, check=positive)
    return [
        Operator(name, f"torch.special.{name}({{0}})", (operand,), "same", "loose", weight=0.1)
        for name in words.split()
    ]


def _comparisons() -> list[Operator]:
    names = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
    return [
        Operator(name, f"({{0}} {symbol} {{1}})", (T(), _OTHER), "bool", sharp=True)
        for name, symbol in names.items()
    ]


ROWS: tuple[Operator, ...] = (
    # arithmetic
    Operator("add", "({0} + {1})", (T(), _OTHER), "promoted", "ieee", weight=3),
    Operator(
        "add_alpha",
        "torch.add({0}, {1}, alpha={2})",
        (T(NUMERIC), Like(dtypes=NUMERIC), Int(-3, 3)),
        "promoted",
        "loose",
    ),
    Operator("sub", "({0} - {1})", (T(NUMERIC), _NUMBER), "promoted", "ieee", weight=2),
    Operator("rsub", "({1} - {0})", (T(NUMERIC), Scalar("if")), "promoted", "ieee"),
    Operator("mul", "({0} * {1})", (T(), _OTHER), "promoted", "ieee", weight=3),
    Operator("div", "({0} / {1})", (T(), _OTHER), "float", "ieee", weight=2),
    Operator("rdiv", "({1} / {0})", (T(), Scalar("if")), "float", "ieee"),
    Operator(
        "div_floor",
        'torch.div({0}, {1}, rounding_mode="floor")',
        (T(NUMERIC), _NONZERO),
        "promoted",
        "ieee",
        sharp=True,
    ),
    Operator(
        "div_trunc",
        'torch.div({0}, {1}, rounding_mode="trunc")',
        (T(NUMERIC), _NONZERO),
        "promoted",
        "ieee",
        sharp=True,
    ),
    Operator("floor_divide", "({0} // {1})", (T(NUMERIC), _NONZERO), "promoted", "ieee", sharp=True),
    Operator("remainder", "({0} % {1})", (T(NUMERIC), _NONZERO), "promoted", "ieee", sharp=True),
    Operator("fmod", "torch.fmod({0}, {1})", (T(NUMERIC), _NONZERO), "promoted", "ieee", sharp=True),
    Operator(
        "rremainder", "({1} % {0})", (T(NUMERIC, check=nonzero), Scalar("if")), "promoted", "ieee", sharp=True
    ),
    Operator(
        "pow_number", "({0} ** {1})", (T(), OneOf((2, 3, 0.5, -1, 0, 1, -0.5, 2.5, 4, -2))), "any", "loose"
    ),
    Operator(
        "pow",
        "torch.pow({0}, {1})",
        (T(NUMERIC, check=positive), Like(dtypes=NUMERIC, check=positive)),
        "promoted",
        "loose",
    ),
    Operator("rpow", "({1} ** {0})", (T(check=moderate), Scalar("f", 0, 3)), "any", "loose"),
    Operator("neg", "(-{0})", (T(NUMERIC),)),
    Operator("abs", "torch.abs({0})", (T(NUMERIC),)),
    Operator("square", "torch.square({0})", (T(NUMERIC),), "same", "ieee"),
    Operator("maximum", "torch.maximum({0}, {1})", (T(), Like()), "promoted"),
    Operator("minimum", "torch.minimum({0}, {1})", (T(), Like()), "promoted"),
    Operator("fmax", "torch.fmax({0}, {1})", (T(), Like()), "promoted"),
    Operator("fmin", "torch.fmin({0}, {1})", (T(), Like()), "promoted"),
    Operator(
        "clamp",
        "torch.clamp({0}, {1}, {2})",
        (T(NUMERIC), Scalar("if", -3, 0), Scalar("if", 0, 3)),
        "any",
        weight=1.5,
    ),
    Operator("clamp_min", "{0}.clamp(min={1})", (T(NUMERIC), Scalar("if", -2, 2)), "any"),
    Operator(
        "clamp_tensors",
        "torch.clamp({0}, {1}, {2})",
        (T(NUMERIC), Like(dtypes=NUMERIC), Like(dtypes=NUMERIC)),
        "any",
    ),
    Operator(
        "addcmul",
        "torch.addcmul({0}, {1}, {2}, value={3})",
        (T(NUMERIC), Like(dtypes=None), Like(dtypes=None), Int(-2, 3)),
        "same",
        "loose",
    ),
    Operator(
        "addcdiv",
        "torch.addcdiv({0}, {1}, {2}, value={3})",
        (T(FLOAT), Like(dtypes=None), Like(dtypes=None), Scalar("f")),
        "same",
        "loose",
    ),
    Operator(
        "lerp",
        "torch.lerp({0}, {1}, {2})",
        (T(FLOAT), Like(dtypes=None), Either((Scalar("f"), Like(dtypes=None)))),
        "same",
        "loose",
    ),
    Operator("where", "torch.where({2}, {0}, {1})", (T(), _OTHER, Like(dtypes=BOOL)), "any", weight=2),
    Operator("where_numbers", "torch.where({0}, {1}, {2})", (T(BOOL), Scalar("i"), Scalar("i")), "any"),
    Operator("where_compared", "torch.where({0} > {1}, {0}, {2})", (T(), _OTHER, _OTHER), "any", sharp=True),
    # functions
    *_functions(
        "exp exp2 expm1 log log1p log2 log10 rsqrt sin cos tan asin acos atan sinh cosh tanh",
        T(),
        "float",
        "loose",
    ),
    *_functions(
        "asinh acosh atanh erf erfc erfinv sigmoid reciprocal lgamma digamma sinc i0", T(), "float", "loose"
    ),
    *_functions("sqrt deg2rad rad2deg", T(), "float", "ieee"),
    *_functions("floor ceil round trunc sign", T(NUMERIC), "same", "exact", sharp=True),
    *_functions("frac", T(FLOAT), "same", "exact", sharp=True),
    *_functions("sgn", T(), "same", "exact", sharp=True),
    *_functions("isnan isinf isfinite isposinf isneginf logical_not", T(), "bool", "exact", sharp=True),
    *_functions("bitwise_not", T(INTEGERS), "same", "exact"),
    *_functions("positive", T(NUMERIC), "same", "exact"),
    Operator(
        "round_decimals",
        "torch.round({0}, decimals={1})",
        (T(FLOAT), Int(-1, 3)),
        "same",
        "loose",
        sharp=True,
        weight=0.5,
    ),
    Operator(
        "nan_to_num",
        "torch.nan_to_num({0}, nan={1}, posinf={2}, neginf={3})",
        (T(), Scalar("f"), Scalar("f"), Scalar("f")),
    ),
    # the greatest number of float64 is not the greatest of another type
    Operator("nan_to_greatest", "torch.nan_to_num({0}, nan={1})", (T(), Scalar("f")), sharp=True, bits=True),
    Operator("signbit", "torch.signbit({0})", (T(NUMERIC, check=no_nan),), "bool", sharp=True),
    Operator("logit", "torch.logit({0}, eps={1})", (T(), OneOf((None, 0.1, 1e-6))), "float", "loose"),
    Operator(
        "polygamma",
        "torch.polygamma({1}, {0})",
        (T(FLOAT, check=positive), Int(0, 4)),
        "same",
        "loose",
        weight=0.3,
    ),
    Operator(
        "zeta",
        "torch.special.zeta({0} + 1.5, {1})",
        (T(WIDE, check=positive), Like(dtypes=WIDE, check=positive)),
        "promoted",
        "loose",
        weight=0.3,
    ),
    *(
        Operator(
            name,
            f"torch.{name}({{0}}, {{1}})",
            (T(FLOAT, check=positive), Like(dtypes=None, check=positive)),
            "same",
            "loose",
            weight=0.3,
        )
        for name in ("igamma", "igammac")
    ),
    *_special("modified_bessel_k0 modified_bessel_k1"),
    *_special("scaled_modified_bessel_k0 scaled_modified_bessel_k1"),
    Operator("ndtri", "torch.special.ndtri(torch.sigmoid({0}))", (T(WIDE),), "same", "loose", weight=0.3),
    *(
        Operator(
            name,
            f"torch.special.{name}({{0}}, {{1}})",
            (T(WIDE, check=moderate), Int(-1, 14)),
            "same",
            "loose",
            weight=0.1,
        )
        for name in POLYNOMIALS.split()
    ),
    Operator(
        "polynomial_of_degrees",
        "torch.special.legendre_polynomial_p(torch.tanh({0}), {1})",
        (T(WIDE), Like(dtypes=("int32", "int64"), check=moderate)),
        "same",
        "loose",
        weight=0.3,
    ),
    Operator("frexp", "torch.frexp({0})[1]", (T(FLOAT),), "any", sharp=True, weight=0.3),
    Operator("xlogy", "torch.xlogy({0}, {1})", (T(), _OTHER), "float", "loose"),
    Operator("atan2", "torch.atan2({0}, {1})", (T(), Like()), "float", "loose", sharp=True),
    Operator("hypot", "torch.hypot({0}, {1})", (T(FLOAT), Like(dtypes=None)), "same", "loose"),
    Operator("logaddexp", "torch.logaddexp({0}, {1})", (T(FLOAT), Like(dtypes=None)), "same", "loose"),
    Operator("logaddexp2", "torch.logaddexp2({0}, {1})", (T(FLOAT), Like(dtypes=None)), "same", "loose"),
    Operator("copysign", "torch.copysign({0}, {1})", (T(), Like(check=no_nan)), "float", sharp=True),
    Operator("heaviside", "torch.heaviside({0}, {1})", (T(), Like(dtypes=None)), "same", sharp=True),
    Operator(
        "ldexp",
        "torch.ldexp({0}, {1})",
        (T(FLOAT), Like(dtypes=("int32", "int64"), check=moderate)),
        "any",
        "loose",
    ),
    Operator("nextafter", "torch.nextafter({0}, {1})", (T(FLOAT), Like(dtypes=None)), sharp=True),
    # comparisons, logic, bits
    *_comparisons(),
    Operator(
        "between", "(({0} > {1}) & ({0} <= {2}))", (T(), Scalar("if", -3, 0), _OTHER), "bool", sharp=True
    ),
    Operator("isclose", "torch.isclose({0}, {1})", (T(), Like(dtypes=None)), "bool", sharp=True),
    Operator("logical_and", "torch.logical_and({0}, {1})", (T(), Like()), "bool", sharp=True),
    Operator("logical_or", "torch.logical_or({0}, {1})", (T(), Like()), "bool", sharp=True),
    Operator("logical_xor", "torch.logical_xor({0}, {1})", (T(), Like()), "bool", sharp=True),
    Operator("bitwise_and", "({0} & {1})", (T(INTEGERS), _WHOLE), "promoted"),
    Operator("bitwise_or", "({0} | {1})", (T(INTEGERS), _WHOLE), "promoted"),
    Operator("bitwise_xor", "({0} ^ {1})", (T(INTEGERS), _WHOLE), "promoted"),
    Operator("shift_left", "({0} << {1})", (T(INT), Either((Like(dtypes=INT), Int(0, 7)))), "promoted"),
    Operator("shift_right", "({0} >> {1})", (T(INT), Either((Like(dtypes=INT), Int(0, 7)))), "promoted"),
    Operator("gcd", "torch.gcd({0}, {1})", (T(INT), Like(dtypes=INT)), "promoted", weight=0.5),
    Operator(
        "lcm",
        "torch.lcm({0}, {1})",
        (T(INT, check=moderate), Like(dtypes=INT, check=moderate)),
        "promoted",
        weight=0.5,
    ),
    # casts
    Operator("to", "{0}.to({1})", (T(), Cast()), "argument", "cast", weight=3),
    Operator("float", "{0}.float()", (T(),), "any", "cast"),
    Operator("double", "{0}.double()", (T(),), "any", "cast", weight=0.5),
    Operator("half", "{0}.half()", (T(),), "any", "cast", weight=0.5),
    Operator("bfloat16", "{0}.bfloat16()", (T(),), "any", "cast", weight=0.5),
    Operator("long", "{0}.long()", (T(check=moderate),), "int64", "cast", sharp=True),
    Operator("bool", "{0}.bool()", (T(),), "bool", "cast", sharp=True),
    Operator("type_as", "{0}.type_as({1})", (T(INTEGERS), T()), "any", "cast"),
    Operator("to_copy", "{0}.to({1}, copy=True)", (T(), Cast()), "argument", "cast"),
    # where the square of a negative number, or a number beside a half tensor, is more than meets the eye
    Operator(
        "scaled_sum", "({0} * {1} + {2})", (T(SIGNED), Scalar("f"), _NUMBER), "any", "loose", weight=1.5
    ),
    Operator(
        "number_chain", "(({0} + {1}) * {2} - {1})", (T(NUMERIC), Scalar("if"), Scalar("f")), "any", "loose"
    ),
    Operator("plus_size", "({0} + {0}.shape[-1] * {1})", (T(rank=(1, 4)), Scalar("i")), "any", "ieee"),
    Operator("over_numel", "({0} / {0}.numel())", (T(rank=(1, 4), nonempty=True),), "float", "ieee"),
)
