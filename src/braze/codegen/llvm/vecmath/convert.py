"""Conversions between number formats with defined results everywhere."""

from __future__ import annotations

from braze.codegen.llvm.builder import FunctionBuilder, Type, Value, constant
from braze.codegen.llvm.types import ELEM_BITS

__all__ = ["float_to_int", "narrow", "widen"]


def widen(fb: FunctionBuilder, x: Value) -> Value:
    """half or bfloat to float, exact; other types unchanged."""
    if x.type.elem == "half":
        return fb.fpext(x, "float")
    if x.type.elem != "bfloat":
        return x
    lanes = x.type.lanes
    bits = fb.zext(fb.bitcast(x, Type("i16", lanes)), "i32")
    return fb.bitcast(fb.shl(bits, 16), Type("float", lanes))


def narrow(fb: FunctionBuilder, x: Value, elem: str) -> Value:
    """float (or double, through float, as eager does) to ``half`` or ``bfloat``, to nearest even, NaN kept.

    bfloat goes through integers: the processor's own instruction for it drops subnormal numbers.
    """
    x = fb.fptrunc(x, "float")
    if elem == "half":
        return fb.fptrunc(x, "half")
    lanes = x.type.lanes
    bits = fb.bitcast(x, Type("i32", lanes))
    odd = fb.and_(fb.lshr(bits, 16), 1)
    rounded = fb.lshr(fb.add(fb.add(bits, 0x7FFF), odd), 16)
    rounded = fb.select(fb.fcmp("uno", x, x), 0x7FC0, rounded)
    return fb.bitcast(fb.trunc(rounded, "i16"), Type("bfloat", lanes))


def float_to_int(fb: FunctionBuilder, x: Value, elem: str, *, signed: bool = True) -> Value:
    """float or double to an integer type, towards zero.

    What does not fit gives what x86's conversion gives, and so what eager gives there: the most negative number of the
    32-bit (64-bit) conversion, cut down to narrower types. Unsigned types go through 64 bits.

    Args:
        elem: ``i8``, ``i16``, ``i32`` or ``i64``.
        signed: False for the unsigned types.
    """
    bits = ELEM_BITS[elem]
    if bits == 64 and not signed:
        # Above 2**63: the difference to it, with the top bit put back.
        above = fb.fcmp("oge", x, 2.0**63)
        low = _truncated(fb, fb.select(above, fb.fsub(x, 2.0**63), x), "i64")
        return fb.xor(low, fb.select(above, constant(low.type, -(2**63)), 0))
    through = "i64" if bits == 64 or not signed else "i32"
    return fb.trunc(_truncated(fb, x, through), elem)


def _truncated(fb: FunctionBuilder, x: Value, elem: str) -> Value:
    bits = ELEM_BITS[elem]
    fits = fb.fcmp("olt", fb.fabs(x), 2.0 ** (bits - 1))
    result = fb.fptosi(fb.select(fits, x, 0.0), elem)
    return fb.select(fits, result, -(2 ** (bits - 1)))
