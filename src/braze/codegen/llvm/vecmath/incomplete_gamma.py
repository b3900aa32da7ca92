"""The regularised incomplete gamma functions P(a, x) and Q(a, x) = 1 - P(a, x), in double.

For large a near x, Temme's uniform expansion serves; elsewhere the power series of P up to x = a, and
Legendre's continued fraction for Q beyond it, each with as many terms as a lane needs. Where a and x are
small, Q may be small although neither does: it has a series of its own.

Source: NIST Digital Library of Mathematical Functions, 8.7.1 and 8.7.3 (series), 8.9.2 (continued fraction),
8.12.3 to 8.12.12 (the uniform expansion), 5.11.1 (Stirling's formula), 5.7.3 (log gamma near 1).
W. J. Lentz: Generating Bessel functions in Mie scattering calculations using continued fractions, 1976.

A file of its own: each family of functions has one.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from braze.codegen.llvm.builder import FunctionBuilder, Value
from braze.codegen.llvm.vecmath.common import horner, iterate, through_double
from braze.codegen.llvm.vecmath.exponential import exp, expm1
from braze.codegen.llvm.vecmath.logarithm import log, log1p
from braze.codegen.llvm.vecmath.sleef import sleef

__all__ = ["igamma", "igamma_f64", "igammac", "igammac_f64"]

LARGE = 50.0
"""The a from which on the uniform expansion serves, where |x - a| < NEAR * a, and Stirling's formula."""
NEAR = 0.3
SMALL_A, SMALL_X = 0.5, 1.1
"""Up to where Q has its own series."""
MOST_STEPS = 2000
"""No lane needs as many."""


@dataclass(frozen=True)
class _Precision:
    """When the steps end, and how many terms the uniform expansion has, in 1 / a and in eta."""

    end: float
    orders: int
    terms: int


_SINGLE = _Precision(2.0**-34, 4, 9)
_DOUBLE = _Precision(2.0**-54, 8, 17)


@functools.cache
def _uniform_coefficients(orders: int, terms: int) -> list[list[float]]:
    """c_k(eta) as power series. With mu = lambda - 1, eta (1 + mu) = mu dmu/deta gives mu; 1 / mu gives c_0;
    and c_k = (dc_(k - 1)/deta) / eta + g / mu, where g is such that there is no term 1 / eta."""
    count = terms + 2 * orders + 2
    mu = [Fraction(0), Fraction(1)]
    for n in range(2, count + 1):  # the coefficients of eta^n on both sides
        known = sum((mu[i] * (n + 1 - i) * mu[n + 1 - i] for i in range(2, n)), Fraction(0))
        mu.append((mu[n - 1] - known) / (n + 1))
    inverse = [Fraction(1)]  # eta / mu
    for n in range(1, count):
        inverse.append(-sum((mu[i + 1] * inverse[n - i] for i in range(1, n + 1)), Fraction(0)))
    series = inverse[1:]
    found = [series]
    for _ in range(1, orders):
        g = -series[1]
        series = [(n + 2) * series[n + 2] + g * inverse[n + 1] for n in range(len(series) - 2)]
        found.append(series)
    return [[float(c) for c in s[:terms]] for s in found]


def _zeta_minus_one(k: int) -> float:
    """The sum of n^-k from n = 2 on, by the Euler-Maclaurin formula."""
    n = 24
    rest = [n ** (1 - k) / (k - 1), 0.5 * n**-k, k * n ** (-k - 1) / 12]
    rest.append(-k * (k + 1) * (k + 2) * n ** (-k - 3) / 720)
    rest.append(k * (k + 1) * (k + 2) * (k + 3) * (k + 4) * n ** (-k - 5) / 30240)
    return math.fsum([*(i**-k for i in range(2, n)), *rest])


_LOG_GAMMA = [(-1) ** k * _zeta_minus_one(k) / k for k in range(2, 26)]
"""log(gamma(1 + a)) = -log(1 + a) + (1 - Euler's constant) a + a^2 times this series in a."""
_ONE_LESS_EULER = 0.42278433509846713939


def _excess(fb: FunctionBuilder, mu: Value, ratio: Value) -> Value:
    """mu - log(1 + mu), where ratio = 1 + mu: near 0 with s = mu / (2 + mu), as mu s - 2 (atanh(s) - s)."""
    s = fb.fdiv(mu, fb.fadd(mu, 2.0))
    square = fb.fmul(s, s)
    tail = horner(fb, square, [2 / (2 * k + 3) for k in range(11)])
    near = fb.fsub(fb.fmul(mu, s), fb.fmul(fb.fmul(square, s), tail))
    far = fb.fsub(mu, log(fb, ratio))
    return fb.select(fb.fcmp("olt", fb.fabs(mu), NEAR), near, far)


def _front(fb: FunctionBuilder, a: Value, x: Value, excess: Value) -> Value:
    """x^a e^-x / gamma(a + 1)."""
    direct = fb.fsub(fb.fsub(fb.fmul(a, log(fb, x)), x), sleef(fb, "lgamma", fb.fadd(a, 1.0)))
    inverse = fb.fdiv(fb.const(a.type, 1.0), a)
    stirling = fb.fmul(
        inverse, horner(fb, fb.fmul(inverse, inverse), [1 / 12, -1 / 360, 1 / 1260, -1 / 1680])
    )
    large = fb.fcmp("oge", a, LARGE)
    exponent = fb.select(large, fb.fneg(fb.fma(a, excess, stirling)), direct)
    root = fb.select(large, fb.sqrt(fb.fmul(inverse, 1 / (2 * math.pi))), 1.0)
    return fb.fmul(exp(fb, exponent), root)


def _series(fb: FunctionBuilder, a: Value, x: Value, lanes: Value, end: float) -> Value:
    """The sum of x^n / ((a + 1) ... (a + n))."""
    one = fb.const(a.type, 1.0)

    def step(number: Value, states: Sequence[Value]) -> tuple[Sequence[Value], Value]:
        term, total = states
        n = _lanes(fb, fb.sitofp(number, "double"), a)
        term = fb.fmul(term, fb.fdiv(x, fb.fadd(a, n)))
        total = fb.fadd(total, term)
        return (term, total), fb.and_(
            fb.fcmp("ogt", term, fb.fmul(total, end)), fb.fcmp("olt", n, float(MOST_STEPS))
        )

    return iterate(fb, (one, one), lanes, step)[1]


def _fraction(fb: FunctionBuilder, a: Value, x: Value, lanes: Value, end: float) -> Value:
    """Q(a, x) gamma(a) e^x / x^a, from its front to its end (Lentz)."""
    one = fb.const(a.type, 1.0)
    b = fb.fadd(fb.fsub(x, a), 1.0)
    first = fb.fdiv(one, b)

    def step(number: Value, states: Sequence[Value]) -> tuple[Sequence[Value], Value]:
        b, above, below, value = states
        n = _lanes(fb, fb.sitofp(number, "double"), a)
        numerator = fb.fmul(n, fb.fsub(a, n))
        b = fb.fadd(b, 2.0)
        below = fb.fdiv(one, fb.fma(numerator, below, b))
        above = fb.fadd(b, fb.fdiv(numerator, above))
        factor = fb.fmul(above, below)
        off = fb.fabs(fb.fsub(factor, one))
        more = fb.and_(fb.fcmp("ogt", off, 4 * end), fb.fcmp("olt", n, float(MOST_STEPS)))
        return (b, above, below, fb.fmul(value, factor)), more

    return iterate(fb, (b, fb.const(a.type, 1e300), first, first), lanes, step)[3]


def _small_q(fb: FunctionBuilder, a: Value, x: Value, lanes: Value, end: float) -> Value:
    """Q where a and x are small: what is left of 1 - x^a / gamma(a + 1) (1 + the sum over n >= 1 of
    (-x)^n a / ((a + n) n!))."""
    squared = fb.fmul(a, a)
    log_gamma = fb.fma(squared, horner(fb, a, _LOG_GAMMA), fb.fsub(fb.fmul(a, _ONE_LESS_EULER), log1p(fb, a)))
    exponent = fb.fsub(fb.fmul(a, log(fb, x)), log_gamma)

    def step(number: Value, states: Sequence[Value]) -> tuple[Sequence[Value], Value]:
        power, total = states
        n = _lanes(fb, fb.sitofp(number, "double"), a)
        power = fb.fneg(fb.fdiv(fb.fmul(power, x), n))
        term = fb.fdiv(fb.fmul(power, a), fb.fadd(a, n))
        total = fb.fadd(total, term)
        more = fb.fcmp("ogt", fb.fabs(term), fb.fmul(fb.fabs(total), end))
        return (power, total), fb.and_(more, fb.fcmp("olt", n, float(MOST_STEPS)))

    rest = iterate(fb, (fb.const(a.type, 1.0), fb.zero(a.type)), lanes, step)[1]
    return fb.fneg(fb.fadd(expm1(fb, exponent), fb.fmul(exp(fb, exponent), rest)))


def _uniform(fb: FunctionBuilder, a: Value, mu: Value, excess: Value, upper: bool, p: _Precision) -> Value:
    """P, or Q if ``upper``, by the uniform expansion: half of erfc, and a correction."""
    size = fb.sqrt(fb.fadd(excess, excess))
    eta = fb.copysign(size, mu)
    inverse = fb.fdiv(fb.const(a.type, 1.0), a)
    rows = [horner(fb, eta, row) for row in _uniform_coefficients(p.orders, p.terms)]
    total = rows[-1]
    for row in reversed(rows[:-1]):
        total = fb.fma(total, inverse, row)
    decay = exp(fb, fb.fneg(fb.fmul(a, excess)))
    correction = fb.fmul(fb.fmul(decay, fb.sqrt(fb.fmul(inverse, 1 / (2 * math.pi)))), total)
    where = fb.fmul(eta, fb.sqrt(fb.fmul(a, 0.5)))
    if upper:
        return fb.fma(sleef(fb, "erfc", where), 0.5, correction)
    return fb.fma(sleef(fb, "erfc", fb.fneg(where)), 0.5, fb.fneg(correction))


def _lanes(fb: FunctionBuilder, scalar: Value, like: Value) -> Value:
    return fb.splat(scalar, like.type.lanes) if like.type.lanes > 1 else scalar


def _incomplete(fb: FunctionBuilder, a: Value, x: Value, upper: bool, p: _Precision) -> Value:
    one = fb.const(a.type, 1.0)
    inside = fb.and_(
        fb.and_(fb.fcmp("ogt", a, 0.0), fb.fcmp("olt", a, math.inf)),
        fb.and_(fb.fcmp("ogt", x, 0.0), fb.fcmp("olt", x, math.inf)),
    )
    mu = fb.fdiv(fb.fsub(x, a), a)
    excess = _excess(fb, mu, fb.fdiv(x, a))
    uniform = fb.and_(fb.fcmp("oge", a, LARGE), fb.fcmp("olt", fb.fabs(mu), NEAR))
    stepped = fb.and_(inside, fb.not_(uniform))
    beyond = fb.and_(fb.fcmp("ogt", x, SMALL_X), fb.fcmp("ogt", x, a))
    front = _front(fb, a, x, excess)
    lower = fb.fmul(front, _series(fb, a, x, fb.and_(stepped, fb.not_(beyond)), p.end))
    rest = fb.fmul(fb.fmul(front, a), _fraction(fb, a, x, fb.and_(stepped, beyond), p.end))
    # a front that vanishes beside a fraction that a huge x makes of no value
    rest = fb.select(fb.fcmp("oeq", front, 0.0), 0.0, rest)
    if upper:
        small = fb.and_(fb.fcmp("olt", a, SMALL_A), fb.fcmp("ole", x, SMALL_X))
        near = _small_q(fb, a, x, fb.and_(inside, small), p.end)
        value = fb.select(beyond, rest, fb.select(small, near, fb.fsub(one, lower)))
    else:
        value = fb.select(beyond, fb.fsub(one, rest), lower)
    value = fb.select(uniform, _uniform(fb, a, mu, excess, upper, p), value)
    # at the ends, as eager has it; NaN only counts where nothing else does
    none, all_ = (1.0, 0.0) if upper else (0.0, 1.0)
    nan = fb.const(a.type, math.nan)
    infinite = fb.fcmp("oeq", x, math.inf)
    value = fb.select(infinite, all_, value)
    at_infinity = fb.select(infinite, nan, none)
    value = fb.select(fb.fcmp("oeq", a, math.inf), at_infinity, value)
    value = fb.select(fb.fcmp("oeq", x, 0.0), none, value)
    value = fb.select(fb.fcmp("oeq", a, 0.0), fb.select(fb.fcmp("ogt", x, 0.0), all_, nan), value)
    return fb.select(fb.or_(fb.fcmp("olt", x, 0.0), fb.fcmp("olt", a, 0.0)), nan, value)


@through_double
def igamma(fb: FunctionBuilder, a: Value, x: Value) -> Value:
    """P(a, x) of floats."""
    return _incomplete(fb, a, x, False, _SINGLE)


@through_double
def igammac(fb: FunctionBuilder, a: Value, x: Value) -> Value:
    """Q(a, x) of floats."""
    return _incomplete(fb, a, x, True, _SINGLE)


def igamma_f64(fb: FunctionBuilder, a: Value, x: Value) -> Value:
    """P(a, x) of doubles."""
    return _incomplete(fb, a, x, False, _DOUBLE)


def igammac_f64(fb: FunctionBuilder, a: Value, x: Value) -> Value:
    """Q(a, x) of doubles."""
    return _incomplete(fb, a, x, True, _DOUBLE)
