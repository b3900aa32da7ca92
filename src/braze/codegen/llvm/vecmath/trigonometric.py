"""sin, cos and tan of a float, computed in double.

Reduction: x = n pi/2 + r by two fused multiply-adds, which leaves r to better than 2**-30 of itself for every
float below 2**39. Larger ones go by the method of Payne and Hanek: x = M 2**E with a 24-bit integer M, and of
2/pi only the bits that matter for x mod 2 pi are multiplied with M, as integers modulo 2**64.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

from braze.codegen.llvm.builder import FunctionBuilder, Type, Value, constant
from braze.codegen.llvm.vecmath import coefficients as c
from braze.codegen.llvm.vecmath.common import DOUBLE, horner, int_bits

__all__ = ["cos", "flip_sign", "is_odd", "sin", "tan"]

PI_2_HIGH = float.fromhex("0x1.921fb54442d18p+0")
PI_2_LOW = float.fromhex("0x1.1a62633145c07p-54")
TWO_OVER_PI = float.fromhex("0x1.45f306dc9c883p-1")

FIRST_EXPONENT = 16
"""The smallest E that the table of 2/pi serves: x >= 2**39 has a mantissa integer times 2**16 or more."""

LAST_EXPONENT = 104
"""The largest E of a finite float."""


@functools.cache
def _two_over_pi_bits(count: int) -> int:
    """floor(2/pi * 2**count), pi from Machin's formula in integers."""
    unity = 1 << (count + 64)

    def arctan_inverse(x: int) -> int:
        total, term, k = 0, unity // x, 0
        while term:
            total += (-1) ** k * (term // (2 * k + 1))
            term //= x * x
            k += 1
        return total

    pi = 4 * (4 * arctan_inverse(5) - arctan_inverse(239))
    return 2 * unity * (1 << count) // pi


@functools.cache
def _windows() -> tuple[int, ...]:
    """For each E: the 96 bits of 2**E * (2/pi) / 4 modulo 1, as a high 64-bit and a low 32-bit number."""
    table = []
    digits = 300
    bits = _two_over_pi_bits(digits)
    for exponent in range(FIRST_EXPONENT, LAST_EXPONENT + 1):
        window = (bits << (exponent - 2)) >> (digits - 96)
        window &= (1 << 96) - 1
        table += [window >> 32, window & 0xFFFFFFFF]
    return tuple(table)


class _Reduced(NamedTuple):
    """x = n pi/2 + r: r in double, n as int64 (only its two low bits count)."""

    r: Value
    n: Value


def _huge(fb: FunctionBuilder, bits: Value, lanes: int) -> _Reduced:
    """The reduction of |x| for finite floats of 2**39 and more, given x's bits."""
    i64 = Type("i64", lanes)
    mantissa = fb.zext(fb.or_(fb.and_(bits, 0x7FFFFF), 0x800000), "i64")
    exponent = fb.sub(fb.lshr(fb.and_(bits, 0x7FFFFFFF), 23), 150)
    last = LAST_EXPONENT - FIRST_EXPONENT
    row = fb.sub(exponent, FIRST_EXPONENT)
    row = fb.select(fb.icmp("ult", row, last + 1), row, 0)
    entry = fb.shl(fb.zext(row, "i64"), 1)
    table = fb.module.constant_table("i64", _windows())
    high = fb.gather(fb.gep(table, entry, "i64"), i64)
    low = fb.gather(fb.gep(table, fb.or_(entry, 1), "i64"), i64)
    # x * (2/pi) / 4 modulo 1, in units of 2**-64.
    turns = fb.add(fb.mul(mantissa, high), fb.lshr(fb.mul(mantissa, low), 32))
    n = fb.lshr(fb.add(turns, 1 << 61), 62)
    rest = fb.sub(turns, fb.shl(n, 62))
    return _Reduced(fb.fmul(fb.sitofp(rest, "double"), PI_2_HIGH * 2.0**-62), n)


def _reduce(fb: FunctionBuilder, x: Value) -> _Reduced:
    wide = fb.fpext(x, "double")
    shifted = fb.fma(wide, TWO_OVER_PI, DOUBLE.magic)
    n = fb.fsub(shifted, DOUBLE.magic)
    r = fb.fma(n, -PI_2_LOW, fb.fma(n, -PI_2_HIGH, wide))
    near = _Reduced(r, int_bits(fb, shifted))
    bits = int_bits(fb, x)
    is_huge = fb.icmp("uge", fb.and_(bits, 0x7FFFFFFF), 0x53000000)

    def far() -> list[Value]:
        found = _huge(fb, bits, x.type.lanes)
        negative = fb.icmp("slt", bits, 0)
        finite = fb.icmp("ult", fb.and_(bits, 0x7FFFFFFF), 0x7F800000)
        take = fb.and_(is_huge, finite)
        r = fb.select(negative, fb.fneg(found.r), found.r)
        n = fb.select(negative, fb.sub(constant(found.n.type, 0), found.n), found.n)
        return [fb.select(take, r, near.r), fb.select(take, n, near.n)]

    return _Reduced(*fb.if_else(fb.any(is_huge), far, lambda: list(near), "huge"))


def _sin_cos(fb: FunctionBuilder, r: Value) -> tuple[Value, Value]:
    z = fb.fmul(r, r)
    sine = fb.fmul(r, fb.fma(z, horner(fb, z, c.SIN_LITE), 1.0))
    return sine, fb.fma(z, horner(fb, z, c.COS_LITE), 1.0)


def flip_sign(fb: FunctionBuilder, x: Value, n: Value, bit: int) -> Value:
    """x with its sign flipped where the given bit of n is set."""
    sign = fb.and_(fb.shl(n, 63 - bit), DOUBLE.sign_mask)
    return fb.bitcast(fb.xor(fb.bitcast(x, n.type), sign), x.type)


def is_odd(fb: FunctionBuilder, n: Value) -> Value:
    """i1: the lowest bit of n is set."""
    return fb.icmp("ne", fb.and_(n, 1), 0)


def sin(fb: FunctionBuilder, x: Value) -> Value:
    """Sine of a float of any size."""
    r, n = _reduce(fb, x)
    sine, cosine = _sin_cos(fb, r)
    return fb.fptrunc(flip_sign(fb, fb.select(is_odd(fb, n), cosine, sine), n, 1), "float")


def cos(fb: FunctionBuilder, x: Value) -> Value:
    """Cosine of a float of any size."""
    r, n = _reduce(fb, x)
    sine, cosine = _sin_cos(fb, r)
    return fb.fptrunc(flip_sign(fb, fb.select(is_odd(fb, n), sine, cosine), fb.add(n, 1), 1), "float")


def tan(fb: FunctionBuilder, x: Value) -> Value:
    """Tangent of a float of any size."""
    r, n = _reduce(fb, x)
    sine, cosine = _sin_cos(fb, r)
    odd = is_odd(fb, n)
    quotient = fb.fdiv(fb.select(odd, cosine, sine), fb.select(odd, sine, cosine))
    return fb.fptrunc(flip_sign(fb, quotient, n, 0), "float")
