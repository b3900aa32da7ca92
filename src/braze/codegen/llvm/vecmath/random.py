"""Counter-based random numbers: Philox-4x32-10 (Salmon and others, "Parallel random numbers: as easy as 1, 2, 3")."""

from __future__ import annotations

from typing import NamedTuple

from braze.codegen.llvm.builder import FunctionBuilder, Value
from braze.codegen.llvm.vecmath.logarithm import log
from braze.codegen.llvm.vecmath.trigonometric import sin_cos_turns

__all__ = ["Words", "normal_pair", "philox", "philox_rounds", "uniform", "uniform_f64"]

MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
KEY_STEPS = (0x9E3779B9, 0xBB67AE85)


class Words(NamedTuple):
    """Four 32-bit words: a counter, or what comes out of it."""

    a: Value
    b: Value
    c: Value
    d: Value


def _multiply(fb: FunctionBuilder, x: Value, factor: int) -> tuple[Value, Value]:
    """High and low half of the 64-bit product."""
    product = fb.mul(fb.zext(x, "i64"), factor)
    return fb.trunc(fb.lshr(product, 32), "i32"), fb.trunc(product, "i32")


def philox_rounds(fb: FunctionBuilder, counter: Words, key: tuple[Value, Value]) -> Words:
    """Ten rounds of Philox-4x32 on i32 values of one type."""
    a, b, c, d = counter
    k0, k1 = key
    for step in range(10):
        if step:
            k0, k1 = fb.add(k0, KEY_STEPS[0]), fb.add(k1, KEY_STEPS[1])
        high0, low0 = _multiply(fb, a, MULTIPLIERS[0])
        high1, low1 = _multiply(fb, c, MULTIPLIERS[1])
        a, b, c, d = fb.xor(fb.xor(high1, b), k0), low1, fb.xor(fb.xor(high0, d), k1), low0
    return Words(a, b, c, d)


def philox(fb: FunctionBuilder, seed: Value, offset: Value) -> Words:
    """Four random i32 for each lane: key = the seed's halves, counter = (offset's low half, high half, 0, 0).

    Args:
        seed, offset: i64 values of one type.
    """
    zero = fb.zero(seed.type.with_elem("i32"))
    counter = Words(fb.trunc(offset, "i32"), fb.trunc(fb.lshr(offset, 32), "i32"), zero, zero)
    return philox_rounds(fb, counter, (fb.trunc(seed, "i32"), fb.trunc(fb.lshr(seed, 32), "i32")))


def uniform(fb: FunctionBuilder, word: Value) -> Value:
    """A float in [0, 1): the upper 24 bits of an i32, times 2**-24."""
    return fb.fmul(fb.sitofp(fb.lshr(word, 8), "float"), 2.0**-24)


def uniform_f64(fb: FunctionBuilder, high: Value, low: Value) -> Value:
    """A double in [0, 1): 53 bits of two i32."""
    upper = fb.sitofp(fb.lshr(high, 5), "double")
    lower = fb.sitofp(fb.lshr(low, 6), "double")
    return fb.fmul(fb.fma(upper, 2.0**26, lower), 2.0**-53)


def normal_pair(fb: FunctionBuilder, first: Value, second: Value) -> tuple[Value, Value]:
    """Two independent standard normal floats from two i32 (Box and Muller)."""
    # (0, 1], so that the logarithm is finite.
    u = fb.fmul(fb.sitofp(fb.add(fb.lshr(first, 8), 1), "float"), 2.0**-24)
    radius = fb.sqrt(fb.fmul(log(fb, u), -2.0))
    sine, cosine = sin_cos_turns(fb, uniform(fb, second))
    return fb.fmul(radius, cosine), fb.fmul(radius, sine)
