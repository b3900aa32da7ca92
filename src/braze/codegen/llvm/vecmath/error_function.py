"""erf for float and double; erfc and erfinv of a float (in double, rounded once) and erfinv of a double."""

from __future__ import annotations

import math

from braze.codegen.llvm.builder import FunctionBuilder, Value
from braze.codegen.llvm.vecmath import coefficients as c
from braze.codegen.llvm.vecmath.common import horner, through_double
from braze.codegen.llvm.vecmath.exponential import exp, exp2_nonpositive, exp_lite
from braze.codegen.llvm.vecmath.logarithm import log_lite
from braze.codegen.llvm.vecmath.sleef import sleef

__all__ = ["erf", "erfc", "erfinv", "erfinv_f64"]


def erf(fb: FunctionBuilder, x: Value) -> Value:
    """Error function for float or double: x P(x^2) up to 1, 1 - erfc(|x|) beyond."""
    if x.type.elem == "float":
        a = fb.fabs(x)
        a = fb.select(fb.fcmp("ogt", a, 4.0), 4.0, a)
        tail = exp2_nonpositive(fb, horner(fb, fb.fadd(a, -1.0), c.ERF_LARGE_F32))
        square = fb.fmul(a, a)
        small = fb.fma(horner(fb, square, c.ERF_SMALL_F32), a, a)
    else:
        a = fb.fabs(x)
        a = fb.select(fb.fcmp("ogt", a, 6.0), 6.0, a)
        square = fb.fmul(a, a)
        lost = fb.fma(a, a, fb.fneg(square))
        decay = exp(fb, fb.fneg(square))
        inverse = fb.fdiv(fb.const(x.type, 1.0), fb.fadd(a, 2.0))
        u = fb.fmul(fb.fadd(a, -2.0), inverse)
        scaled = fb.fmul(horner(fb, u, c.ERFCX_F64), inverse)
        tail = fb.fmul(fb.fma(decay, fb.fneg(lost), decay), scaled)
        small = fb.fma(horner(fb, square, c.ERF_SMALL_F64), a, a)
    large = fb.fsub(fb.const(x.type, 1.0), tail)
    return fb.copysign(fb.select(fb.fcmp("ogt", a, 1.0), large, small), x)


@through_double
def erfc(fb: FunctionBuilder, x: Value) -> Value:
    """Complementary error function of a float: e**-t^2 times a polynomial in (t - 2) / (t + 2), t = |x|."""
    t = fb.fabs(x)
    t = fb.select(fb.fcmp("ogt", t, 10.2), 10.2, t)
    inverse = fb.fdiv(fb.const(x.type, 1.0), fb.fadd(t, 2.0))
    u = fb.fmul(fb.fadd(t, -2.0), inverse)
    decay = exp_lite(fb, fb.fneg(fb.fmul(t, t)))
    result = fb.fmul(fb.fmul(horner(fb, u, c.ERFCX_LITE), inverse), decay)
    return fb.select(fb.fcmp("olt", x, 0.0), fb.fsub(fb.const(x.type, 2.0), result), result)


def _erfinv_limits(fb: FunctionBuilder, x: Value, result: Value) -> Value:
    a = fb.fabs(x)
    result = fb.select(fb.fcmp("oeq", a, 1.0), fb.copysign(fb.const(x.type, math.inf), x), result)
    return fb.select(fb.fcmp("ogt", a, 1.0), math.nan, result)


@through_double
def erfinv(fb: FunctionBuilder, x: Value) -> Value:
    """Inverse error function of a float, by polynomials in w = -log(1 - x^2) and in its root."""
    w = fb.fneg(log_lite(fb, fb.fma(fb.fneg(x), x, 1.0)))
    near = horner(fb, fb.fadd(w, -2.5), c.ERFINV_NEAR)
    far = horner(fb, fb.fadd(fb.sqrt(w), -3.0), c.ERFINV_FAR)
    result = fb.fmul(x, fb.select(fb.fcmp("ogt", w, 5.0), far, near))
    return _erfinv_limits(fb, x, result)


def erfinv_f64(fb: FunctionBuilder, x: Value) -> Value:
    """Inverse error function of a double: the float's polynomials and one step of Halley's method."""
    a = fb.fabs(x)
    one = fb.const(x.type, 1.0)
    # (1 - a)(1 + a): 1 - a is exact where it matters, above 1/2.
    w = fb.fneg(log_lite(fb, fb.fmul(fb.fsub(one, a), fb.fadd(a, 1.0))))
    root = fb.sqrt(w)
    near = horner(fb, fb.fadd(w, -2.5), c.ERFINV_NEAR)
    far = horner(fb, fb.fadd(root, -3.0), c.ERFINV_FAR)
    tail = horner(fb, fb.fadd(root, -5.0), c.ERFINV_TAIL)
    y = fb.select(fb.fcmp("ogt", w, 16.5), tail, fb.select(fb.fcmp("ogt", w, 5.0), far, near))
    y = fb.fmul(a, y)
    central = fb.fsub(erf(fb, y), a)
    outer = fb.fsub(fb.fsub(one, a), sleef(fb, "erfc", y))
    error = fb.select(fb.fcmp("olt", a, 0.5), central, outer)
    slope = fb.fmul(exp(fb, fb.fneg(fb.fmul(y, y))), 2 / math.sqrt(math.pi))
    y = fb.fsub(y, fb.fdiv(error, fb.fma(y, error, slope)))
    return _erfinv_limits(fb, x, fb.copysign(y, x))
