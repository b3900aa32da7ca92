"""sin, cos and tan of a double.

Reduction: x = n pi/2 + r, pi/2 in three doubles, the products taken exactly with fused multiply-adds and r
kept in two parts. It serves up to 2**27; beyond, a lane calls libm. (SLEEF's vector functions are no choice
here: they take another path when a neighbouring lane is large, and a value would depend on its neighbours.)
"""

from __future__ import annotations

from typing import NamedTuple

from braze.codegen.llvm.builder import FunctionBuilder, Value
from braze.codegen.llvm.vecmath import coefficients as c
from braze.codegen.llvm.vecmath.common import DOUBLE, horner, int_bits
from braze.codegen.llvm.vecmath.trigonometric import PI_2_HIGH, PI_2_LOW, TWO_OVER_PI, flip_sign, is_odd

__all__ = ["cos_f64", "sin_f64", "tan_f64"]

PI_2_LOWEST = float.fromhex("-0x1.f1976b7ed8fbcp-110")
LIMIT = 2.0**27


class _Angle(NamedTuple):
    """sin and cos of r, and n (int64, only its two low bits count)."""

    sine: Value
    cosine: Value
    n: Value


def _two_difference(fb: FunctionBuilder, a: Value, b: Value) -> tuple[Value, Value]:
    """a - b rounded, and what the rounding lost (Knuth)."""
    difference = fb.fsub(a, b)
    back = fb.fsub(difference, a)
    lost = fb.fsub(fb.fsub(a, fb.fsub(difference, back)), fb.fadd(b, back))
    return difference, lost


def _angle(fb: FunctionBuilder, x: Value) -> _Angle:
    shifted = fb.fma(x, TWO_OVER_PI, DOUBLE.magic)
    n = fb.fsub(shifted, DOUBLE.magic)
    first = fb.fmul(n, PI_2_HIGH)
    first_lost = fb.fma(n, PI_2_HIGH, fb.fneg(first))
    second = fb.fmul(n, PI_2_LOW)
    second_lost = fb.fma(n, PI_2_LOW, fb.fneg(second))
    rough, rough_lost = _two_difference(fb, fb.fsub(x, first), first_lost)
    high, high_lost = _two_difference(fb, rough, second)
    rest = fb.fsub(fb.fadd(rough_lost, high_lost), second_lost)
    rest = fb.fma(n, -PI_2_LOWEST, rest)
    r = fb.fadd(high, rest)
    low = fb.fsub(rest, fb.fsub(r, high))
    z = fb.fmul(r, r)
    half = fb.fmul(z, 0.5)
    # sin(r + low) = sin r + low cos r and cos(r + low) = cos r - low sin r, to first order in low.
    cosine_head = fb.fsub(fb.const(x.type, 1.0), half)
    sine_tail = fb.fma(fb.fmul(z, r), horner(fb, z, c.SIN_F64), fb.fmul(low, cosine_head))
    cosine_tail = fb.fma(fb.fmul(z, z), horner(fb, z, c.COS_F64), fb.fneg(fb.fmul(low, r)))
    head_lost = fb.fsub(fb.fsub(fb.const(x.type, 1.0), cosine_head), half)
    cosine = fb.fadd(cosine_head, fb.fadd(head_lost, cosine_tail))
    return _Angle(fb.fadd(r, sine_tail), cosine, int_bits(fb, shifted))


def _or_libm(fb: FunctionBuilder, op: str, x: Value, result: Value) -> Value:
    """``result`` where |x| is small enough for the reduction, libm's elsewhere."""
    large = fb.fcmp("uge", fb.fabs(x), LIMIT)

    def call() -> list[Value]:
        lanes = [fb.call(op, x.type.scalar, [fb.extract(x, lane)]) for lane in range(x.type.lanes)]
        return [fb.select(large, fb.concat(lanes), result)]

    return fb.if_else(fb.any(large), call, lambda: [result], "huge")[0]


def sin_f64(fb: FunctionBuilder, x: Value) -> Value:
    """Sine of a double."""
    sine, cosine, n = _angle(fb, x)
    result = flip_sign(fb, fb.select(is_odd(fb, n), cosine, sine), n, 1)
    # Sums of zeros lose the sign of -0.
    result = fb.select(fb.fcmp("oeq", x, 0.0), x, result)
    return _or_libm(fb, "sin", x, result)


def cos_f64(fb: FunctionBuilder, x: Value) -> Value:
    """Cosine of a double."""
    sine, cosine, n = _angle(fb, x)
    result = flip_sign(fb, fb.select(is_odd(fb, n), sine, cosine), fb.add(n, 1), 1)
    return _or_libm(fb, "cos", x, result)


def tan_f64(fb: FunctionBuilder, x: Value) -> Value:
    """Tangent of a double."""
    sine, cosine, n = _angle(fb, x)
    odd = is_odd(fb, n)
    quotient = fb.fdiv(fb.select(odd, cosine, sine), fb.select(odd, sine, cosine))
    result = flip_sign(fb, quotient, n, 0)
    result = fb.select(fb.fcmp("oeq", x, 0.0), x, result)
    return _or_libm(fb, "tan", x, result)
