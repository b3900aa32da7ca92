"""Calls to SLEEF's vector functions for double, which the library of torch exports.

The symbols without a suffix for the instruction set choose at run time. All calls of a module go to the same
width (``ModuleBuilder.vector_bits``): narrower operands are widened, wider ones split, so that a value does
not depend on how many lanes it was computed with. Targets without AVX call libm, lane by lane.
SLEEF's sin, cos and tan are left out: they choose their path by all lanes together.
"""

from __future__ import annotations

from braze.codegen.llvm.builder import FunctionBuilder, Type, Value

__all__ = ["SLEEF_F64", "sleef"]

SLEEF_F64 = {
    "asin": "u10",
    "acos": "u10",
    "atan": "u10",
    "sinh": "u10",
    "cosh": "u10",
    "atanh": "u10",
    "log10": "u10",
    "erfc": "u15",
    "lgamma": "u10",
    "pow": "u10",
    "atan2": "u10",
    "hypot": "u05",
}
"""Operations that SLEEF computes for double, with the error bound (in tenths of an ULP) of its name."""


def sleef(fb: FunctionBuilder, op: str, *args: Value) -> Value:
    """``op`` on doubles with any (power of two) number of lanes, through ``Sleef_<op>d<width>_<bound>``."""
    lanes = args[0].type.lanes
    if fb.module.vector_bits < 256:
        scalar = args[0].type.scalar
        results = [fb.call(op, scalar, [fb.extract(arg, lane) for arg in args]) for lane in range(lanes)]
        return fb.concat(results)
    width = fb.module.vector_bits // 64
    vector = Type("double", width)
    name = f"Sleef_{op}d{width}_{SLEEF_F64[op]}"
    if lanes < width:
        padded = [fb.splat(arg, width) if lanes == 1 else _widen(fb, arg, width) for arg in args]
        return fb.slice(fb.call(name, vector, padded), 0, lanes)
    parts = []
    for start in range(0, lanes, width):
        chunk = [fb.slice(arg, start, width) if lanes > width else arg for arg in args]
        parts.append(fb.call(name, vector, chunk))
    return fb.concat(parts)


def _widen(fb: FunctionBuilder, value: Value, width: int) -> Value:
    lanes = value.type.lanes
    return fb.shuffle(value, None, [i % lanes for i in range(width)])
