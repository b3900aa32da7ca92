"""Logarithms: log, log2, log10, log1p, for float and double.

x = 2**e (1 + f) with 1 + f in [sqrt(1/2), sqrt(2)); log(1 + f) is a polynomial in f (float), or goes through
s = f / (2 + f) and atanh (double). e ln 2 is added in two parts.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from braze.codegen.llvm.builder import FunctionBuilder, Value
from braze.codegen.llvm.vecmath import coefficients as c
from braze.codegen.llvm.vecmath.common import (
    DOUBLE,
    SINGLE,
    Format,
    format_of,
    horner,
    int_bits,
    through_double,
)

__all__ = ["log", "log1p", "log1p_lite", "log2", "log10", "log_lite"]


class _Split(NamedTuple):
    """x = 2**e (1 + f)."""

    e: Value
    f: Value


def _split(fb: FunctionBuilder, x: Value, form: Format, extra: Value | None = None) -> _Split:
    """Exponent (as a float) and fraction of a positive normal number x (+ extra, if given)."""
    bits = int_bits(fb, x)
    root = form.bits(math.sqrt(0.5)) if form is DOUBLE else form.bits(0.70710677)
    exponent = fb.ashr(fb.sub(bits, root), form.mantissa_bits)
    steps = fb.shl(exponent, form.mantissa_bits)
    f = fb.fadd(fb.bitcast(fb.sub(bits, steps), x.type), -1.0)
    if extra is not None:
        inverse = fb.sub(fb.const(bits.type, form.bias << form.mantissa_bits), steps)
        # 2**-1024 would wrap into the sign; what is left of ``extra`` there is nothing.
        inverse = fb.integer_minmax("smax", inverse, 0)
        f = fb.fma(extra, fb.bitcast(inverse, x.type), f)
    if form is SINGLE:
        return _Split(fb.sitofp(exponent, "float"), f)
    # int64 to double through the magic sum: without AVX-512 there is no instruction for it.
    shifted = fb.bitcast(fb.add(exponent, form.bits(form.magic)), x.type)
    return _Split(fb.fadd(shifted, -form.magic), f)


def log_lite(fb: FunctionBuilder, x: Value, extra: Value | None = None) -> Value:
    """log(x + extra) in double to 2**-34, for positive normal x: for float functions computed in double."""
    e, f = _split(fb, x, DOUBLE, extra)
    return fb.fma(e, math.log(2), _log1p_fraction(fb, f))


def _log1p_fraction(fb: FunctionBuilder, f: Value) -> Value:
    return fb.fma(fb.fmul(f, f), horner(fb, f, c.LOG_LITE), f)


def log1p_lite(fb: FunctionBuilder, x: Value) -> Value:
    """log(1 + x) in double to 2**-34, relative near zero too, for x > -1 and finite."""
    u = fb.fadd(x, 1.0)
    # 1 + x = u + rest exactly where |x| is below 2**53 or so; above that the rest does not matter.
    rest = fb.fsub(x, fb.fadd(u, -1.0))
    return log_lite(fb, u, rest)


def _special(fb: FunctionBuilder, x: Value, result: Value, form: Format) -> Value:
    """``result`` where x is positive and finite, elsewhere log's values for 0, infinity, NaN and x < 0."""
    usual = fb.icmp("ult", fb.sub(int_bits(fb, x), 1), form.bits(math.inf) - 1)
    other = fb.select(fb.fcmp("olt", x, 0.0), math.nan, fb.select(fb.fcmp("oeq", x, 0.0), -math.inf, x))
    return fb.select(usual, result, other)


class _Normal(NamedTuple):
    """A subnormal x scaled up, and what to add to its exponent."""

    x: Value
    e: Value


def _normalised(fb: FunctionBuilder, x: Value, form: Format) -> _Normal:
    small = fb.fcmp("olt", x, 2.0 ** (1 - form.bias))
    scaled = fb.select(small, fb.fmul(x, 2.0 ** (form.mantissa_bits + 1)), x)
    return _Normal(scaled, fb.select(small, fb.const(x.type, -(form.mantissa_bits + 1.0)), 0.0))


def log(fb: FunctionBuilder, x: Value) -> Value:
    """Natural logarithm for float or double."""
    form = format_of(x)
    normal = _normalised(fb, x, form)
    e, f = _split(fb, normal.x, form)
    e = fb.fadd(e, normal.e)
    if form is SINGLE:
        return _special(fb, x, _log_f32(fb, e, f), form)
    return _special(fb, x, _log_f64(fb, e, f), form)


def _log_f32(fb: FunctionBuilder, e: Value, f: Value, extra: tuple[Value, Value] | None = None) -> Value:
    """e ln 2 + log(1 + f) + extra (two numbers, one tiny beside f, one tiny beside the other)."""
    square = fb.fmul(f, f)
    series = horner(fb, f, c.LOG_F32)
    tail = fb.fmul(square, series) if extra is None else fb.fma(square, series, extra[1])
    high = fb.fma(e, SINGLE.ln2_high, f)
    # e ln 2 is 0 or larger than f, so this is what the sum above lost.
    lost = fb.fsub(f, fb.fsub(high, fb.fmul(e, SINGLE.ln2_high)))
    if extra is not None:
        lost = fb.fadd(lost, extra[0])
    return fb.fadd(high, fb.fadd(fb.fma(e, SINGLE.ln2_low, tail), lost))


def _log_f64(fb: FunctionBuilder, e: Value, f: Value) -> Value:
    """e ln 2 + log(1 + f) with log(1 + f) = f - (f^2/2 - s (f^2/2 + R)), s = f / (2 + f)."""
    s = fb.fdiv(f, fb.fadd(f, 2.0))
    z = fb.fmul(s, s)
    rest = fb.fmul(fb.fmul(z, 2.0), horner(fb, z, c.ATANH_F64))
    half_square = fb.fmul(fb.fmul(f, f), 0.5)
    inner = fb.fma(s, fb.fadd(half_square, rest), fb.fmul(e, DOUBLE.ln2_low))
    high = fb.fma(e, DOUBLE.ln2_high, f)
    lost = fb.fsub(f, fb.fsub(high, fb.fmul(e, DOUBLE.ln2_high)))
    return fb.fadd(high, fb.fsub(fb.fadd(inner, lost), half_square))


def _log2_wide(fb: FunctionBuilder, x: Value) -> Value:
    e, f = _split(fb, x, DOUBLE)
    return fb.fma(_log1p_fraction(fb, f), math.log2(math.e), e)


def _log10_wide(fb: FunctionBuilder, x: Value) -> Value:
    return fb.fmul(log_lite(fb, x), math.log10(math.e))


def log2(fb: FunctionBuilder, x: Value) -> Value:
    """Base 2 logarithm for float or double; exact for powers of two."""
    if x.type.elem == "float":
        return _special(fb, x, through_double(_log2_wide)(fb, x), SINGLE)
    normal = _normalised(fb, x, DOUBLE)
    e, f = _split(fb, normal.x, DOUBLE)
    e = fb.fadd(e, normal.e)
    part = _log_f64(fb, fb.zero(f.type), f)
    log2e_low = float.fromhex("0x1.777d0ffda0d24p-56")
    high = fb.fmul(part, math.log2(math.e))
    low = fb.fma(part, log2e_low, fb.fma(part, math.log2(math.e), fb.fneg(high)))
    total = fb.fadd(e, high)
    lost = fb.fsub(high, fb.fsub(total, e))
    return _special(fb, x, fb.fadd(total, fb.fadd(lost, low)), DOUBLE)


def log10(fb: FunctionBuilder, x: Value) -> Value:
    """Base 10 logarithm of a float."""
    return _special(fb, x, through_double(_log10_wide)(fb, x), SINGLE)


def _log1p_f32(fb: FunctionBuilder, u: Value, rest: Value) -> Value:
    """log(u + rest) where rest is below half an ULP of u."""
    e, f = _split(fb, u, SINGLE)
    bits = fb.sub(fb.const(int_bits(fb, u).type, 127), fb.fptosi(e, "i32"))
    scale = fb.bitcast(fb.shl(fb.integer_minmax("smax", bits, 0), 23), u.type)
    # log(1 + f + g) = log(1 + f) + g - g f / (1 + f); g is tiny, so that a rough 1 / (1 + f) will do.
    g = fb.fmul(rest, scale)
    return _log_f32(fb, e, f, (g, fb.fmul(fb.fmul(g, f), horner(fb, f, c.RECIPROCAL_F32))))


def log1p(fb: FunctionBuilder, x: Value) -> Value:
    """log(1 + x) for float or double, relative near zero too."""
    form = format_of(x)
    u = fb.fadd(x, 1.0)
    small = fb.fcmp("olt", fb.fabs(x), 1.0)
    rest = fb.select(small, fb.fsub(x, fb.fadd(u, -1.0)), fb.fsub(fb.const(x.type, 1.0), fb.fsub(u, x)))
    if form is SINGLE:
        result = _log1p_f32(fb, u, rest)
    else:
        e, f = _split(fb, u, form, rest)
        result = _log_f64(fb, e, f)
        # f^2 / 2 underflows harmlessly; subnormal x must come back unchanged.
        result = fb.select(fb.fcmp("olt", fb.fabs(x), 2.0**-54), x, result)
    result = fb.copysign(result, x)
    other = fb.select(fb.fcmp("oeq", x, -1.0), -math.inf, fb.select(fb.fcmp("olt", x, -1.0), math.nan, x))
    usual = fb.and_(fb.fcmp("ogt", x, -1.0), fb.fcmp("olt", x, math.inf))
    return fb.select(usual, result, other)
