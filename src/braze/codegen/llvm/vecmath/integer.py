"""Integer division that never traps, rounded towards zero or down; the greatest common divisor.

A file of its own: each family of functions has one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from braze.codegen.llvm.builder import FunctionBuilder, Value
from braze.codegen.llvm.vecmath.common import iterate

__all__ = ["Division", "divide", "floor_divide", "greatest_divisor"]


class Division(NamedTuple):
    """Quotient and remainder."""

    quotient: Value
    remainder: Value


def divide(fb: FunctionBuilder, a: Value, b: Value, *, signed: bool = True) -> Division:
    """a / b towards zero and the remainder with a's sign, as C has them; MIN / -1 is MIN, with remainder 0.

    The divisor must not be 0 in any lane.
    """
    kind = a.type
    if not signed:
        if kind.lanes == 1 or kind.bits > 32:
            return Division(fb.udiv(a, b), fb.urem(a, b))
        quotient = fb.fptoui(fb.fdiv(fb.uitofp(a, "double"), fb.uitofp(b, "double")), kind.elem)
        return Division(quotient, fb.sub(a, fb.mul(quotient, b)))
    # By -1 is negation; the division itself never meets it.
    negate = fb.icmp("eq", b, -1)
    divisor = fb.select(negate, 1, b)
    if kind.lanes == 1 or kind.bits > 32:
        quotient = fb.sdiv(a, divisor)
    else:
        # No vector instruction does it. A quotient of 32-bit numbers is exact, or 2**-31 of itself away from
        # the next integer: a double's rounding never reaches that.
        quotient = fb.fptosi(fb.fdiv(fb.sitofp(a, "double"), fb.sitofp(divisor, "double")), kind.elem)
    remainder = fb.sub(a, fb.mul(quotient, divisor))
    return Division(fb.select(negate, fb.sub(fb.zero(kind), a), quotient), remainder)


def floor_divide(fb: FunctionBuilder, a: Value, b: Value) -> Division:
    """a // b and a % b as Python (and torch) have them, signed; the divisor must not be 0 in any lane."""
    quotient, remainder = divide(fb, a, b)
    zero = fb.zero(a.type)
    # The remainder is not 0 and has not the divisor's sign.
    off = fb.and_(fb.icmp("ne", remainder, zero), fb.icmp("slt", fb.xor(remainder, b), zero))
    return Division(fb.sub(quotient, fb.zext(off, a.type.elem)), fb.add(remainder, fb.select(off, b, zero)))


def greatest_divisor(fb: FunctionBuilder, a: Value, b: Value, *, signed: bool = True) -> Value:
    """The greatest common divisor of a and b by Euclid's algorithm, on absolute values if ``signed``; MIN has
    none and stays negative."""
    zero = fb.zero(a.type)
    if signed:
        a, b = (fb.select(fb.icmp("slt", v, zero), fb.sub(zero, v), v) for v in (a, b))

    def step(_number: Value, states: Sequence[Value]) -> tuple[Sequence[Value], Value]:
        divisor, other = states
        rest = divide(fb, other, fb.select(fb.icmp("eq", divisor, zero), 1, divisor), signed=signed).remainder
        return (rest, divisor), fb.icmp("ne", rest, zero)

    return iterate(fb, (a, b), fb.icmp("ne", a, zero), step)[1]
