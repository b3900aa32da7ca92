"""Philox-4x32-10 and what random operations make of it; ``ops.random`` defines the same with torch
operations.

Source: Salmon, Moraes, Dror, Shaw: Parallel random numbers, as easy as 1, 2, 3 (SC 2011).

A file of its own: an algorithm that others have published.
"""

from __future__ import annotations

import math

from braze.codegen.llvm import vecmath
from braze.codegen.llvm.builder import FunctionBuilder, Value
from braze.ops.random import MULTIPLIERS, ROUNDS, UNIT, WEYL

__all__ = ["philox", "rand", "randint64", "randn"]


def _wide_product(fb: FunctionBuilder, a: Value, multiplier: int) -> tuple[Value, Value]:
    """High and low word of a 32-bit product."""
    product = fb.mul(fb.zext(a, "i64"), multiplier)
    return fb.trunc(fb.lshr(product, 32), "i32"), fb.trunc(product, "i32")


def philox(fb: FunctionBuilder, seed: Value, offset: Value) -> tuple[Value, Value, Value, Value]:
    """Four i32 words of int64 seed and offset."""
    k0, k1 = fb.trunc(seed, "i32"), fb.trunc(fb.lshr(seed, 32), "i32")
    c0, c1 = fb.trunc(offset, "i32"), fb.trunc(fb.lshr(offset, 32), "i32")
    c2 = c3 = fb.zero(c0.type)
    for step in range(ROUNDS):
        high0, low0 = _wide_product(fb, c0, MULTIPLIERS[0])
        high1, low1 = _wide_product(fb, c2, MULTIPLIERS[1])
        key0 = fb.add(k0, step * WEYL[0]) if step else k0
        key1 = fb.add(k1, step * WEYL[1]) if step else k1
        c0, c1, c2, c3 = fb.xor(fb.xor(high1, c1), key0), low1, fb.xor(fb.xor(high0, c3), key1), low0
    return c0, c1, c2, c3


def rand(fb: FunctionBuilder, seed: Value, offset: Value) -> Value:
    """Uniform float32 in [0, 1)."""
    word = philox(fb, seed, offset)[0]
    return fb.fmul(fb.sitofp(fb.lshr(word, 8), "float"), UNIT)


def randn(fb: FunctionBuilder, seed: Value, offset: Value) -> Value:
    """Normal float32 (Box and Muller); both uniforms are exact in float32."""
    x0, x1, _, _ = philox(fb, seed, offset)
    u1 = fb.fmul(fb.sitofp(fb.add(fb.lshr(x0, 8), 1), "float"), UNIT)
    angle = fb.fmul(fb.fpext(fb.fmul(fb.sitofp(fb.lshr(x1, 8), "float"), UNIT), "double"), 2 * math.pi)
    radius = fb.sqrt(fb.fmul(vecmath.emit(fb, "log", u1), -2.0))
    return fb.fmul(radius, vecmath.emit(fb, "cos", fb.fptrunc(angle, "float")))


def randint64(fb: FunctionBuilder, seed: Value, offset: Value, low: Value, high: Value) -> Value:
    """Uniform int64 in [low, high)."""
    x0, x1, _, _ = philox(fb, seed, offset)
    bits = fb.or_(fb.zext(x0, "i64"), fb.shl(fb.zext(x1, "i64"), 32))
    span = fb.sub(high, low)
    span = fb.select(fb.icmp("eq", span, 0), 1, span)
    return fb.add(low, fb.urem(bits, span))
