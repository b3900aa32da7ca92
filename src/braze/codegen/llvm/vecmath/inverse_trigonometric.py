"""asin, acos, atan and atan2 of floats, computed in double and rounded once.

A file of its own: each family of functions has one.
"""

from __future__ import annotations

import math

from braze.codegen.llvm.builder import FunctionBuilder, Value
from braze.codegen.llvm.vecmath import coefficients as c
from braze.codegen.llvm.vecmath.common import horner, sign_of, through_double

__all__ = ["acos", "asin", "atan", "atan2"]


def _arctangent(fb: FunctionBuilder, t: Value) -> Value:
    """atan(t) for |t| <= 1."""
    z = fb.fmul(t, t)
    return fb.fmul(t, fb.fma(z, horner(fb, z, c.ATAN_LITE), 1.0))


@through_double
def atan(fb: FunctionBuilder, x: Value) -> Value:
    """Arctangent of a float."""
    a = fb.fabs(x)
    large = fb.fcmp("ogt", a, 1.0)
    t = fb.fdiv(fb.select(large, 1.0, a), fb.select(large, a, 1.0))
    angle = _arctangent(fb, t)
    angle = fb.select(large, fb.fsub(fb.const(x.type, math.pi / 2), angle), angle)
    return fb.copysign(angle, x)


@through_double
def atan2(fb: FunctionBuilder, y: Value, x: Value) -> Value:
    """Angle of the point (x, y), C99's special cases included."""
    ay, ax = fb.fabs(y), fb.fabs(x)
    steep = fb.fcmp("ogt", ay, ax)
    large, small = fb.select(steep, ay, ax), fb.select(steep, ax, ay)
    t = fb.fdiv(small, large)
    # 0/0 is on the axis of x, inf/inf on the diagonal.
    t = fb.select(fb.fcmp("oeq", large, 0.0), 0.0, t)
    t = fb.select(fb.fcmp("oeq", small, math.inf), 1.0, t)
    angle = _arctangent(fb, t)
    angle = fb.select(steep, fb.fsub(fb.const(x.type, math.pi / 2), angle), angle)
    angle = fb.select(sign_of(fb, x), fb.fsub(fb.const(x.type, math.pi), angle), angle)
    angle = fb.copysign(angle, y)
    return fb.select(fb.fcmp("uno", x, y), math.nan, angle)


def _arcsine(fb: FunctionBuilder, a: Value) -> tuple[Value, Value]:
    """(a > 1/2, and asin(a), or asin(sqrt((1 - a) / 2)) where a > 1/2), for a >= 0."""
    large = fb.fcmp("ogt", a, 0.5)
    z = fb.select(large, fb.fmul(fb.fsub(fb.const(a.type, 1.0), a), 0.5), fb.fmul(a, a))
    s = fb.select(large, fb.sqrt(z), a)
    return large, fb.fmul(s, fb.fma(z, horner(fb, z, c.ASIN_LITE), 1.0))


@through_double
def asin(fb: FunctionBuilder, x: Value) -> Value:
    """Arcsine of a float; NaN outside [-1, 1]."""
    large, angle = _arcsine(fb, fb.fabs(x))
    angle = fb.select(large, fb.fma(angle, -2.0, math.pi / 2), angle)
    return fb.copysign(angle, x)


@through_double
def acos(fb: FunctionBuilder, x: Value) -> Value:
    """Arccosine of a float; NaN outside [-1, 1]."""
    large, angle = _arcsine(fb, fb.fabs(x))
    twice = fb.fadd(angle, angle)
    far = fb.select(fb.fcmp("olt", x, 0.0), fb.fsub(fb.const(x.type, math.pi), twice), twice)
    return fb.select(large, far, fb.fsub(fb.const(x.type, math.pi / 2), fb.copysign(angle, x)))
