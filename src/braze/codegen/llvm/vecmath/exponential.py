"""exp and its relatives: exp, exp2, expm1, sigmoid, tanh, for float and double with the same steps.

Reduction (Cody and Waite): x = n ln 2 + r with |r| <= ln(2)/2, n found by adding 1.5 * 2**mantissa_bits, so
that it stands as an integer in the low bits of the sum. e**r is a polynomial; a shift of n makes 2**n.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from braze.codegen.llvm.builder import FunctionBuilder, Value
from braze.codegen.llvm.vecmath import coefficients as c
from braze.codegen.llvm.vecmath.common import DOUBLE, SINGLE, Format, format_of, horner, int_bits

__all__ = ["exp", "exp2", "exp2_nonpositive", "exp_lite", "expm1", "sigmoid", "tanh"]

EXP_RANGE = {"float": (-104.5, 89.0), "double": (-746.0, 710.0)}
"""Beyond these exp is 0 or infinite; the reduction is exact enough between them."""

EXP2_RANGE = {"float": (-151.0, 129.0), "double": (-1076.0, 1025.0)}


def _clamp(fb: FunctionBuilder, x: Value, low: float | None, high: float | None) -> Value:
    """x within bounds; NaN stays NaN (the comparison is false, which is what x86's min and max do)."""
    if high is not None:
        x = fb.select(fb.fcmp("ogt", x, high), high, x)
    if low is not None:
        x = fb.select(fb.fcmp("olt", x, low), low, x)
    return x


def _tail_coefficients(form: Format) -> tuple[float, ...]:
    return c.EXP_F32 if form is SINGLE else c.EXP_F64


def _power_of_two(fb: FunctionBuilder, shifted: Value, form: Format) -> Value:
    """2**n where the low bits of ``shifted`` (a float's bits) hold n + bias: a normal number."""
    bits = fb.shl(int_bits(fb, shifted), form.mantissa_bits)
    return fb.bitcast(bits, shifted.type)


def _scale(fb: FunctionBuilder, x: Value, p: Value, shifted: Value, form: Format) -> Value:
    """p * 2**n, rounded once, n outside the range of normal numbers too.

    ``shifted`` holds n + 2 * bias in its low bits; the sign of x decides which power is split off.
    """
    half = form.bias // 2 + 1
    rest = fb.select(fb.fcmp("olt", x, 0.0), fb.const(x.type, 2.0**-half), 2.0**half)
    bits = fb.sub(fb.shl(int_bits(fb, shifted), form.mantissa_bits), int_bits(fb, rest))
    return fb.fmul(fb.fmul(p, fb.bitcast(bits, p.type)), rest)


def _exp_reduced(fb: FunctionBuilder, r: Value) -> Value:
    """e**r for |r| <= ln(2)/2."""
    tail = horner(fb, r, _tail_coefficients(format_of(r)))
    return fb.fadd(fb.fma(tail, fb.fmul(r, r), r), 1.0)


def exp(fb: FunctionBuilder, x: Value) -> Value:
    """e**x for float or double."""
    form = format_of(x)
    x = _clamp(fb, x, *EXP_RANGE[form.elem])
    # Twice the bias: once for the power of two, once for what _scale subtracts.
    magic = form.magic + 2 * form.bias
    shifted = fb.fma(x, form.log2e, magic)
    n = fb.fsub(shifted, magic)
    # The first difference is exact; adding the small part to the tail instead of to r saves a rounding.
    near = fb.fma(n, -form.ln2_high, x)
    small = fb.fmul(n, form.ln2_low)
    r = fb.fsub(near, small)
    tail = fb.fma(horner(fb, r, _tail_coefficients(form)), fb.fmul(r, r), fb.fneg(small))
    return _scale(fb, x, fb.fadd(fb.fadd(near, tail), 1.0), shifted, form)


def exp2(fb: FunctionBuilder, x: Value) -> Value:
    """2**x for float or double."""
    form = format_of(x)
    x = _clamp(fb, x, *EXP2_RANGE[form.elem])
    magic = form.magic + 2 * form.bias
    shifted = fb.fadd(x, magic)
    r = fb.fsub(x, fb.fsub(shifted, magic))
    if form is SINGLE:
        p = fb.fma(horner(fb, r, c.EXP2_F32), r, 1.0)
    else:
        ln2 = math.log(2)
        high = fb.fmul(r, ln2)
        low = fb.fma(r, float.fromhex("0x1.abc9e3b39803fp-56"), fb.fma(r, ln2, fb.fneg(high)))
        tail = fb.fma(fb.fmul(high, high), horner(fb, high, c.EXP_F64), low)
        p = fb.fadd(fb.fadd(high, tail), 1.0)
    return _scale(fb, x, p, shifted, form)


def exp_lite(fb: FunctionBuilder, x: Value) -> Value:
    """e**x in double to 2**-39, for |x| < 700: for float functions that are computed in double."""
    magic = DOUBLE.magic + DOUBLE.bias
    shifted = fb.fma(x, DOUBLE.log2e, magic)
    n = fb.fsub(shifted, magic)
    r = fb.fma(n, -DOUBLE.ln2_low, fb.fma(n, -DOUBLE.ln2_high, x))
    p = fb.fma(fb.fma(horner(fb, r, c.EXP_LITE), r, 1.0), r, 1.0)
    return fb.fmul(p, _power_of_two(fb, shifted, DOUBLE))


def exp2_nonpositive(fb: FunctionBuilder, x: Value) -> Value:
    """2**x of a float for -120 < x <= 0: the result is normal, so that one multiplication scales it."""
    magic = SINGLE.magic + SINGLE.bias
    shifted = fb.fadd(x, magic)
    r = fb.fsub(x, fb.fsub(shifted, magic))
    return fb.fmul(fb.fma(horner(fb, r, c.EXP2_F32), r, 1.0), _power_of_two(fb, shifted, SINGLE))


class _Minus1(NamedTuple):
    """A number as high + low, high being nearly all of it."""

    high: Value
    low: Value


def _expm1_parts(fb: FunctionBuilder, x: Value, scale: float, coefficients: tuple[float, ...]) -> _Minus1:
    """scale * (e**x - 1) in two parts: ``scale`` 1 is for x <= 0, 1/2 (2**n cannot overflow) for any x."""
    form = format_of(x)
    magic = form.magic + form.bias + math.log2(scale)
    shifted = fb.fma(x, form.log2e, form.magic + form.bias)
    n = fb.fsub(shifted, form.magic + form.bias)
    if scale != 1.0:
        shifted = fb.fadd(n, magic)
    power = _power_of_two(fb, shifted, form)
    near = fb.fma(n, -form.ln2_high, x)
    r = fb.fma(n, -form.ln2_low, near)
    r_low = fb.fma(n, -form.ln2_low, fb.fsub(near, r))
    tail = fb.fma(fb.fmul(r, r), horner(fb, r, coefficients), r_low)
    # (2**n - 1) + 2**n r, and what the roundings of both sums lost; 2**n - 1 is 0 or larger than 2**n r.
    a, b = fb.fadd(power, -scale), fb.fmul(power, r)
    lost = fb.fsub(power, fb.fadd(a, scale)) if scale == 1.0 else fb.fadd(fb.fsub(power, a), -scale)
    high = fb.fadd(a, b)
    low = fb.fma(power, tail, fb.fadd(fb.fsub(b, fb.fsub(high, a)), lost))
    return _Minus1(high, low)


def expm1(fb: FunctionBuilder, x: Value) -> Value:
    """e**x - 1 for float or double."""
    form = format_of(x)
    low = -18.0 if form is SINGLE else -40.0
    clamped = _clamp(fb, x, low, EXP_RANGE[form.elem][1])
    parts = _expm1_parts(fb, clamped, 0.5, c.EXPM1_F32 if form is SINGLE else c.EXP_F64)
    half = fb.fadd(parts.high, parts.low)
    # Half of a subnormal is not exact, and -0 must stay: tiny x are their own result.
    tiny = fb.fcmp("olt", fb.fabs(x), 2.0 ** -(form.mantissa_bits + 2))
    return fb.select(tiny, x, fb.fadd(half, half))


def sigmoid(fb: FunctionBuilder, x: Value) -> Value:
    """1 / (1 + e**-x) for float or double, subnormal results included."""
    form = format_of(x)
    y = fb.fneg(fb.fabs(x))
    y = _clamp(fb, y, EXP_RANGE[form.elem][0], None)
    half = form.bias // 2 + 1
    magic = form.magic + form.bias + half
    shifted = fb.fma(y, form.log2e, magic)
    n = fb.fsub(shifted, magic)
    r = fb.fma(n, -form.ln2_low, fb.fma(n, -form.ln2_high, y))
    p = _exp_reduced(fb, r)
    # e**-|x| = p * power * 2**-half: the last factor waits, so that only one rounding is subnormal.
    above = fb.fmul(p, _power_of_two(fb, shifted, form))
    d = fb.fma(above, 2.0**-half, 1.0)
    negative = fb.fcmp("olt", x, 0.0)
    top = fb.select(negative, above, 2.0**half)
    return fb.fmul(fb.fdiv(top, d), 2.0**-half)


def tanh(fb: FunctionBuilder, x: Value) -> Value:
    """tanh for float or double: -m / (2 + m) with m = e**(-2|x|) - 1 carried in two parts."""
    form = format_of(x)
    y = fb.fmul(fb.fabs(x), -2.0)
    y = _clamp(fb, y, -24.0 if form is SINGLE else -48.0, None)
    parts = _expm1_parts(fb, y, 1.0, _tail_coefficients(form))
    high = fb.fadd(parts.high, parts.low)
    low = fb.fsub(parts.low, fb.fsub(high, parts.high))
    d = fb.fadd(high, 2.0)
    d_low = fb.fadd(fb.fsub(high, fb.fsub(d, 2.0)), low)
    q = fb.fdiv(high, d)
    rest = fb.fadd(fb.fma(fb.fneg(q), d, high), fb.fma(fb.fneg(q), d_low, low))
    # The rest is an ULP or two, and d in [1, 2]: 1/d to 4% will do for it.
    q = fb.fma(rest, fb.fma(d, -0.5, 1.457), q)
    return fb.copysign(q, x)
