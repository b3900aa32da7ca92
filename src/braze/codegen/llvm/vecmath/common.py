"""What all families of vector math share: formats and their constants, polynomials, bit patterns."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from braze.codegen.llvm.builder import FunctionBuilder, Type, Value

__all__ = [
    "DOUBLE",
    "SINGLE",
    "Format",
    "format_of",
    "horner",
    "int_bits",
    "iterate",
    "sign_of",
    "through_double",
]


@dataclass(frozen=True)
class Format:
    """A binary floating-point format and the constants that argument reduction needs in it.

    ``magic`` is 1.5 * 2**(mantissa bits): adding it rounds to an integer, which then stands in the low bits.
    ``ln2_high`` has enough trailing zeros for ``n * ln2_high`` to be exact for every exponent n.
    """

    elem: str
    integer: str
    mantissa_bits: int
    bias: int
    magic: float
    ln2_high: float
    ln2_low: float
    log2e: float

    @property
    def sign_mask(self) -> int:
        """The sign bit as an integer of the format's width."""
        return 1 << (self.mantissa_bits + (8 if self.elem == "float" else 11))

    def bits(self, value: float) -> int:
        """The bit pattern of ``value``."""
        if self.elem == "float":
            return int(struct.unpack("<I", struct.pack("<f", value))[0])
        return int(struct.unpack("<Q", struct.pack("<d", value))[0])


SINGLE = Format(
    "float",
    "i32",
    23,
    127,
    1.5 * 2**23,
    float.fromhex("0x1.62e4p-1"),
    1.4286068203094173e-06,
    math.log2(math.e),
)
"""ln 2 = 0x1.62e4p-1 (15 bits) + 1.42860682e-06."""

DOUBLE = Format(
    "double",
    "i64",
    52,
    1023,
    1.5 * 2**52,
    float.fromhex("0x1.62e42fefap-1"),
    float.fromhex("0x1.cf79abc9e3b3ap-40"),
    math.log2(math.e),
)
"""ln 2 = 0x1.62e42fefap-1 (36 bits) + 0x1.cf79abc9e3b3ap-40."""


def format_of(value: Value) -> Format:
    """The format of a float or double value."""
    return SINGLE if value.type.elem == "float" else DOUBLE


def horner(fb: FunctionBuilder, x: Value, coefficients: Sequence[float]) -> Value:
    """sum of coefficients[k] * x**k by Horner's rule, one fused multiply-add for each degree."""
    total = fb.const(x.type, coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        total = fb.fma(total, x, coefficient)
    return total


def int_bits(fb: FunctionBuilder, x: Value) -> Value:
    """The bit pattern of a float value, as integers."""
    return fb.bitcast(x, Type(format_of(x).integer, x.type.lanes))


def iterate(
    fb: FunctionBuilder,
    states: Sequence[Value],
    active: Value,
    step: Callable[[Value, Sequence[Value]], tuple[Sequence[Value], Value]],
) -> list[Value]:
    """The states after as many steps as each lane needs: a loop while any lane is active.

    ``active``: i1, the lanes that take the first step. ``step`` is given the number of the step (a scalar
    i64, from 1 on) and the states; it returns the next ones, and the lanes that shall go on if they are
    active. A lane that is not keeps its states, so that no lane depends on its neighbours.
    """
    body, done = fb.block("step"), fb.block("step.end")
    before = fb.current
    first = fb.const(Type("i64"), 1)
    fb.cond_br(fb.any(active), body, done)
    fb.place(body)
    number = fb.phi(first.type, (first, before))
    lanes = fb.phi(active.type, (active, before))
    held = [fb.phi(v.type, (v, before)) for v in states]
    following, go_on = step(number, held)
    chosen = [fb.select(lanes, new, old) for new, old in zip(following, held, strict=True)]
    remaining = fb.and_(lanes, go_on)
    latch = fb.current
    number.add(fb.add(number, 1), latch)
    lanes.add(remaining, latch)
    for phi, value in zip(held, chosen, strict=True):
        phi.add(value, latch)
    fb.cond_br(fb.any(remaining), body, done)
    fb.place(done)
    return [fb.phi(v.type, (v, before), (value, latch)) for v, value in zip(states, chosen, strict=True)]


def sign_of(fb: FunctionBuilder, x: Value) -> Value:
    """i1: the sign bit of x is set (-0 and negative NaN included)."""
    return fb.icmp("slt", int_bits(fb, x), 0)


def through_double(emit: Callable[..., Value]) -> Callable[..., Value]:
    """A float32 function that is computed in double and rounded once."""

    def emitter(fb: FunctionBuilder, *args: Value) -> Value:
        return fb.fptrunc(emit(fb, *[fb.fpext(arg, "double") for arg in args]), "float")

    emitter.__doc__ = emit.__doc__
    return emitter
