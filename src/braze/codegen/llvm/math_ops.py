"""The math functions of the vocabulary by name: vector math, random numbers, and the few that are done
here.

A file of its own: a table from names to vector math, apart from how the rest of the vocabulary is rendered.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from braze.codegen.llvm import philox, vecmath
from braze.codegen.llvm.builder import FunctionBuilder, Value
from braze.errors import CodegenError

__all__ = ["emit_math"]


def _nextafter(fb: FunctionBuilder, a: Value, b: Value) -> Value:
    """The neighbour of a in the direction of b, by its bits."""
    whole = a.type.with_elem(f"i{a.type.bits}")
    bits = fb.bitcast(a, whole)
    away = fb.icmp("eq", fb.fcmp("ogt", b, a), fb.fcmp("ogt", a, 0.0))
    stepped = fb.bitcast(fb.add(bits, fb.select(away, fb.const(whole, 1), -1)), a.type)
    smallest = fb.bitcast(fb.const(whole, 1), a.type)
    stepped = fb.select(fb.fcmp("oeq", a, 0.0), fb.copysign(smallest, b), stepped)
    result = fb.select(fb.fcmp("oeq", a, b), b, stepped)
    return fb.select(fb.fcmp("uno", a, b), fb.fadd(a, b), result)


def _digamma(fb: FunctionBuilder, x: Value) -> Value:
    """In double: recurrence up to 8, then the asymptotic series; reflection for negative arguments.

    Source: Abramowitz and Stegun, Handbook of Mathematical Functions, 6.3.5, 6.3.7 and 6.3.18.
    """
    if x.type.elem == "float":
        return fb.fptrunc(_digamma(fb, fb.fpext(x, "double")), "float")
    pi = 3.141592653589793
    negative = fb.fcmp("olt", x, 0.0)
    whole = fb.fcmp("oeq", fb.floor(x), x)
    z = fb.select(negative, fb.fsub(fb.const(x.type, 1.0), x), x)
    shift = fb.zero(x.type)
    for _ in range(8):
        small = fb.fcmp("olt", z, 8.0)
        shift = fb.select(small, fb.fsub(shift, fb.fdiv(fb.const(x.type, 1.0), z)), shift)
        z = fb.select(small, fb.fadd(z, 1.0), z)
    inverse = fb.fdiv(fb.const(x.type, 1.0), fb.fmul(z, z))
    series = fb.const(x.type, 3617.0 / 8160)
    for c in (-1.0 / 12, 691.0 / 32760, -1.0 / 132, 1.0 / 240, -1.0 / 252, 1.0 / 120, -1.0 / 12):
        series = fb.fma(series, inverse, c)
    log = vecmath.emit(fb, "log", z)
    half = fb.fdiv(fb.const(x.type, 0.5), z)
    value = fb.fadd(fb.fadd(shift, fb.fsub(log, half)), fb.fmul(series, inverse))
    rest = fb.fsub(x, fb.roundeven(x))  # tan has period 1 in x
    reflected = fb.fsub(value, fb.fdiv(fb.const(x.type, pi), vecmath.emit(fb, "tan", fb.fmul(rest, pi))))
    value = fb.select(negative, reflected, value)
    nan, infinity = float("nan"), float("inf")
    value = fb.select(fb.and_(negative, whole), nan, value)
    value = fb.select(fb.fcmp("oeq", x, infinity), infinity, value)
    return fb.select(fb.fcmp("oeq", x, 0.0), fb.copysign(fb.const(x.type, -infinity), fb.fneg(x)), value)


_HERE: dict[str, Callable[..., Value]] = {
    "rand": philox.rand,
    "randn": philox.randn,
    "randint64": philox.randint64,
    "fmod": lambda fb, a, b: fb.frem(a, b),
    "nextafter": _nextafter,
    "digamma": _digamma,
}


def emit_math(fb: FunctionBuilder, op: str, args: Sequence[Value]) -> Value:
    """``op`` of values with equal lanes. Raises ``CodegenError`` where there is no such function."""
    emitter = _HERE.get(op)
    if emitter is not None:
        return emitter(fb, *args)
    if not vecmath.supports(op, args[0].type.elem):
        raise CodegenError(f"no machine code for {op} of {args[0].type.elem}", node=op)
    return vecmath.emit(fb, op, *args)
