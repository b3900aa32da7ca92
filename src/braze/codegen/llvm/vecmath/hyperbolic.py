"""sinh, cosh, asinh, acosh, atanh of floats (in double, rounded once); asinh and acosh of doubles.

A file of its own: each family of functions has one.
"""

from __future__ import annotations

import math

from braze.codegen.llvm.builder import FunctionBuilder, Value
from braze.codegen.llvm.vecmath import coefficients as c
from braze.codegen.llvm.vecmath.common import horner, through_double
from braze.codegen.llvm.vecmath.exponential import exp_lite
from braze.codegen.llvm.vecmath.logarithm import log1p, log1p_lite

__all__ = ["acosh", "acosh_f64", "asinh", "asinh_f64", "atanh", "cosh", "sinh"]


def _half_exp(fb: FunctionBuilder, a: Value) -> tuple[Value, Value]:
    """(e**a / 2, e**-a / 2) for a >= 0, cut off where both are beyond float."""
    a = fb.select(fb.fcmp("ogt", a, 100.0), 100.0, a)
    half = fb.fmul(exp_lite(fb, a), 0.5)
    return half, fb.fdiv(fb.const(a.type, 0.25), half)


@through_double
def sinh(fb: FunctionBuilder, x: Value) -> Value:
    """Hyperbolic sine of a float."""
    a = fb.fabs(x)
    grown, shrunk = _half_exp(fb, a)
    z = fb.fmul(a, a)
    small = fb.fmul(a, fb.fma(z, horner(fb, z, c.SINH_LITE), 1.0))
    return fb.copysign(fb.select(fb.fcmp("olt", a, 1.0), small, fb.fsub(grown, shrunk)), x)


@through_double
def cosh(fb: FunctionBuilder, x: Value) -> Value:
    """Hyperbolic cosine of a float."""
    grown, shrunk = _half_exp(fb, fb.fabs(x))
    return fb.fadd(grown, shrunk)


@through_double
def asinh(fb: FunctionBuilder, x: Value) -> Value:
    """Inverse hyperbolic sine: log1p(a + a^2 / (1 + sqrt(1 + a^2)))."""
    a = fb.fabs(x)
    square = fb.fmul(a, a)
    root = fb.sqrt(fb.fadd(square, 1.0))
    result = log1p_lite(fb, fb.fadd(a, fb.fdiv(square, fb.fadd(root, 1.0))))
    return fb.copysign(fb.select(fb.fcmp("oeq", a, math.inf), a, result), x)


@through_double
def acosh(fb: FunctionBuilder, x: Value) -> Value:
    """Inverse hyperbolic cosine: log1p(d + sqrt(d (d + 2))) with d = x - 1; NaN below 1."""
    d = fb.fadd(x, -1.0)
    result = log1p_lite(fb, fb.fadd(d, fb.sqrt(fb.fmul(d, fb.fadd(d, 2.0)))))
    result = fb.select(fb.fcmp("oeq", x, math.inf), x, result)
    return fb.select(fb.fcmp("olt", x, 1.0), math.nan, result)


@through_double
def atanh(fb: FunctionBuilder, x: Value) -> Value:
    """Inverse hyperbolic tangent: log1p(2 a / (1 - a)) / 2; NaN outside [-1, 1]."""
    a = fb.fabs(x)
    ratio = fb.fdiv(fb.fadd(a, a), fb.fsub(fb.const(x.type, 1.0), a))
    result = fb.fmul(log1p_lite(fb, ratio), 0.5)
    result = fb.select(fb.fcmp("oeq", a, 1.0), math.inf, result)
    return fb.copysign(fb.select(fb.fcmp("ogt", a, 1.0), math.nan, result), x)


def _log1p_or_log_twice(fb: FunctionBuilder, small: Value, large: Value) -> Value:
    """log1p(small), or log(2 * large) where large is so big that its square could overflow."""
    big = fb.fcmp("ogt", large, 2.0**28)
    argument = fb.select(big, fb.fadd(large, -1.0), small)
    return fb.fadd(log1p(fb, argument), fb.select(big, fb.const(large.type, math.log(2)), 0.0))


def asinh_f64(fb: FunctionBuilder, x: Value) -> Value:
    """Inverse hyperbolic sine of a double, over the whole range."""
    a = fb.fabs(x)
    square = fb.fmul(a, a)
    root = fb.sqrt(fb.fadd(square, 1.0))
    small = fb.fadd(a, fb.fdiv(square, fb.fadd(root, 1.0)))
    return fb.copysign(_log1p_or_log_twice(fb, small, a), x)


def acosh_f64(fb: FunctionBuilder, x: Value) -> Value:
    """Inverse hyperbolic cosine of a double, over the whole range; NaN below 1."""
    d = fb.fadd(x, -1.0)
    small = fb.fadd(d, fb.sqrt(fb.fmul(d, fb.fadd(d, 2.0))))
    return fb.select(fb.fcmp("olt", x, 1.0), math.nan, _log1p_or_log_twice(fb, small, x))
