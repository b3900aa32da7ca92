"""Orthogonal polynomials of a degree that each lane has of its own, by their three-term recurrences.

The recurrences are those of `braze.ops.recurrences`. Their coefficients and their sums are rounded in the
format of the argument, with a fused multiply-add: an orthogonal polynomial that is close to zero depends on
how. A file of its own: each family of functions has one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from braze.codegen.llvm.builder import FunctionBuilder, Type, Value
from braze.codegen.llvm.vecmath.common import iterate

__all__ = ["FUNCTIONS"]

_Step = Callable[[FunctionBuilder, Value, Value, Value, Value], Value]
"""The next value from x, j (in the format of x), the last value and the one before."""


def _less(fb: FunctionBuilder, a: Value, last: Value, subtracted: Value) -> Value:
    return fb.fma(a, last, fb.fneg(subtracted))


def _chebyshev(fb: FunctionBuilder, x: Value, _j: Value, last: Value, before: Value) -> Value:
    return _less(fb, fb.fadd(x, x), last, before)


def _hermite_h(fb: FunctionBuilder, x: Value, j: Value, last: Value, before: Value) -> Value:
    return _less(fb, fb.fadd(x, x), last, fb.fmul(fb.fadd(j, j), before))


def _hermite_he(fb: FunctionBuilder, x: Value, j: Value, last: Value, before: Value) -> Value:
    return _less(fb, x, last, fb.fmul(j, before))


def _laguerre(fb: FunctionBuilder, x: Value, j: Value, last: Value, before: Value) -> Value:
    a = fb.fadd(fb.fsub(fb.const(x.type, 1.0), x), fb.fadd(j, j))
    return fb.fdiv(_less(fb, a, last, fb.fmul(j, before)), fb.fadd(j, 1.0))


def _legendre(fb: FunctionBuilder, x: Value, j: Value, last: Value, before: Value) -> Value:
    a = fb.fmul(x, fb.fadd(fb.fadd(j, j), 1.0))
    return fb.fdiv(_less(fb, a, last, fb.fmul(j, before)), fb.fadd(j, 1.0))


def _function(following: _Step) -> Callable[..., Value]:
    def emitter(fb: FunctionBuilder, x: Value, first: Value, n: Value) -> Value:
        lanes = x.type.lanes
        degree = fb.fptosi(n, "i64")

        def step(number: Value, states: Sequence[Value]) -> tuple[Sequence[Value], Value]:
            before, last = states
            j = fb.sitofp(number, x.type.elem)
            value = following(fb, x, fb.splat(j, lanes) if lanes > 1 else j, last, before)
            counter = fb.add(number, 1)
            more = fb.icmp("sgt", degree, fb.splat(counter, lanes) if lanes > 1 else counter)
            return (last, value), fb.and_(more, fb.fcmp("ord", value, value))

        one = Type("i64", lanes)
        active = fb.and_(fb.icmp("sgt", degree, fb.const(one, 1)), fb.fcmp("ord", first, first))
        return iterate(fb, (fb.const(x.type, 1.0), first), active, step)[1]

    return emitter


FUNCTIONS: Mapping[str, Callable[..., Value]] = {
    "chebyshev": _function(_chebyshev),
    "hermite_h": _function(_hermite_h),
    "hermite_he": _function(_hermite_he),
    "laguerre": _function(_laguerre),
    "legendre": _function(_legendre),
}
