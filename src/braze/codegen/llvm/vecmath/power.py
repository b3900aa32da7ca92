"""pow and hypot of floats (in double, rounded once); sqrt and rsqrt for float and double.

A file of its own: each family of functions has one.
"""

from __future__ import annotations

import math

from braze.codegen.llvm.builder import FunctionBuilder, Value
from braze.codegen.llvm.vecmath.common import sign_of, through_double
from braze.codegen.llvm.vecmath.exponential import exp_lite
from braze.codegen.llvm.vecmath.logarithm import log_lite

__all__ = ["hypot", "power", "rsqrt", "sqrt"]


def sqrt(fb: FunctionBuilder, x: Value) -> Value:
    """Square root, correctly rounded."""
    return fb.sqrt(x)


def rsqrt(fb: FunctionBuilder, x: Value) -> Value:
    """1 / sqrt(x), each operation rounded, as eager computes it."""
    return fb.fdiv(fb.const(x.type, 1.0), fb.sqrt(x))


@through_double
def hypot(fb: FunctionBuilder, x: Value, y: Value) -> Value:
    """sqrt(x^2 + y^2); infinite if one of them is, even if the other is NaN."""
    result = fb.sqrt(fb.fma(x, x, fb.fmul(y, y)))
    infinite = fb.or_(fb.fcmp("oeq", fb.fabs(x), math.inf), fb.fcmp("oeq", fb.fabs(y), math.inf))
    return fb.select(infinite, math.inf, result)


def _is_integer(fb: FunctionBuilder, x: Value) -> Value:
    return fb.fcmp("oeq", fb.floor(x), x)


@through_double
def power(fb: FunctionBuilder, x: Value, y: Value) -> Value:
    """x**y with C99's special cases: e**(y log|x|), the sign put back where y is odd."""
    a = fb.fabs(x)
    logarithm = log_lite(fb, a)
    logarithm = fb.select(fb.fcmp("oeq", a, 0.0), -math.inf, logarithm)
    logarithm = fb.select(fb.fcmp("oeq", a, math.inf), math.inf, logarithm)
    z = fb.fmul(y, logarithm)
    # |x| = 1: log is 0, and 0 * inf must be 0.
    z = fb.select(fb.and_(fb.fcmp("oeq", a, 1.0), fb.fcmp("ord", y, y)), 0.0, z)
    z = fb.select(fb.fcmp("ogt", z, 100.0), 100.0, fb.select(fb.fcmp("olt", z, -120.0), -120.0, z))
    result = exp_lite(fb, z)
    whole = _is_integer(fb, y)
    odd = fb.and_(whole, fb.not_(_is_integer(fb, fb.fmul(y, 0.5))))
    result = fb.select(fb.and_(odd, sign_of(fb, x)), fb.fneg(result), result)
    negative = fb.and_(fb.fcmp("olt", x, 0.0), fb.fcmp("ogt", x, -math.inf))
    result = fb.select(fb.and_(negative, fb.not_(whole)), math.nan, result)
    result = fb.select(fb.fcmp("uno", x, y), math.nan, result)
    return fb.select(fb.or_(fb.fcmp("oeq", x, 1.0), fb.fcmp("oeq", y, 0.0)), 1.0, result)
