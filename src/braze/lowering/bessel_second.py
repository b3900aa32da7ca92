"""Bessel functions of the second kind and the Airy function, in float64, from their definitions.

Near zero, power series are summed by Horner's rule. Far away, Y and Ai (of negative numbers) have asymptotic
expansions. K and Ai (of positive numbers) decay there, and are interpolated at Chebyshev points in the
inverse of the argument, from an integral over a Gaussian which the trapezoidal rule computes to the last
digit.

Source: NIST Digital Library of Mathematical Functions, 10.8.1 and 10.8.2 (Y), 10.31.1 and 10.31.2 (K),
10.32.9 (the integral), 10.17.4 (asymptotic expansions); 9.4.1, 9.6.2 and 9.7.9 (Ai).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from braze.errors import Refused
from braze.ir.boxes import TensorBox
from braze.lowering.bessel import INACCURATE, MEETING, first_kind_near, waves
from braze.lowering.interpolation import interpolation, polynomial
from braze.lowering.registry import lowers
from braze.ops.dag import Node
from braze.ops.functions import cos, exp, fma, isinf, log, sin, sqrt, where

if TYPE_CHECKING:
    from braze.lowering.graph import GraphLowering

aten = torch.ops.aten

EULER = 0.57721566490153286061
INTERPOLATED_FROM = 2.0
"""Where the series of K gives way to its interpolation."""
INTERPOLATION_POINTS = 28
SERIES_TERMS = 40
"""Terms of the series of Y, which serves up to MEETING / 2."""
SHORT_SERIES_TERMS = 15
"""Terms of the series of K."""
STEP = 0.25
"""Of the trapezoidal rule: its error is about exp(-2 pi w / STEP), w the square root of twice the argument
being how far the integrand's singularities lie from the real line."""


def decaying(order: float, x: float) -> float:
    """sqrt(x) e^x K_order(x): the integral over t of e^(-x (cosh t - 1)) cosh(order t), which is one over a
    Gaussian with s^2 = x (cosh t - 1)."""
    terms = [0.5]
    for k in range(1, 28):
        s = k * STEP
        half = s / math.sqrt(2 * x)
        terms.append(math.exp(-s * s) * math.cosh(2 * order * math.asinh(half)) / math.sqrt(1 + half * half))
    return math.fsum(terms) * STEP * math.sqrt(2)


@functools.cache
def _series_of_decaying(order: float, start: float) -> tuple[float, ...]:
    """Of `decaying` in u = 2 start / x - 1, for x from ``start`` on."""
    return interpolation(lambda u: decaying(order, 2 * start / (1 + u)), INTERPOLATION_POINTS)


def interpolated(order: float, start: float, x: Node) -> Node:
    """`decaying` of x >= start."""
    return polynomial(2 * start / x - 1, _series_of_decaying(order, start))


def _harmonic(n: int) -> float:
    """H_n."""
    return math.fsum(1 / k for k in range(1, n + 1))


def _logarithmic_series(order: int, sign: int, terms: int) -> list[float]:
    """Coefficients of (x/2)^(2k) in the part of Y (sign -1) and of K (sign 1) that goes with the logarithm,
    with psi(k + 1) + psi(k + order + 1) = H_k + H_(k + order) - 2 EULER in them. The factor (x/2)^order is
    not."""
    return [
        sign**k
        * (_harmonic(k) + _harmonic(k + order) - 2 * EULER)
        / (math.factorial(k) * math.factorial(k + order))
        for k in range(terms)
    ]


def _plain_series(order: int, terms: int) -> list[float]:
    """Coefficients of (x/2)^(2k) in I_order(x), without the factor (x/2)^order."""
    return [1 / (math.factorial(k) * math.factorial(k + order)) for k in range(terms)]


def second_kind(x: Node, order: int) -> Node:
    """Y_order(x), for order 0 and 1: infinite at zero, NaN below, and, as in eager, at infinity."""
    half = x * 0.5
    square = half * half
    first = polynomial(square, _logarithmic_series(order, -1, SERIES_TERMS))
    near = (2 / math.pi) * log(half) * first_kind_near(x, order)
    if order == 0:
        near = near - (1 / math.pi) * first
    else:
        near = near - (1 / math.pi) * (half * first + 1 / half)
    even, odd, angle = waves(x, order)
    far = (sin(angle) * even + cos(angle) * odd) * sqrt((2 / math.pi) / x)
    value = where(x < MEETING / 2, near, far)
    return where(x.eq(0), -math.inf, where((x < 0) | isinf(x), math.nan, value))


def modified_second_kind(x: Node, order: int, scaled: bool) -> Node:
    """K_order(x), times exp(x) if ``scaled``, for order 0 and 1: infinite at zero, NaN below."""
    half = x * 0.5
    square = half * half
    first = polynomial(square, _logarithmic_series(order, 1, SHORT_SERIES_TERMS)) * 0.5
    plain = polynomial(square, _plain_series(order, SHORT_SERIES_TERMS))
    if order == 0:
        near = first - log(half) * plain
    else:
        near = half * (log(half) * plain - first) + 1 / x
    far = interpolated(order, INTERPOLATED_FROM, x) / sqrt(x)
    if scaled:
        near = near * exp(x)
    else:
        # two factors: the exponential alone vanishes before the function does
        decay = exp(-half)
        far = far * decay * decay
    value = where(x < INTERPOLATED_FROM, near, far)
    return where(x.eq(0), math.inf, where(x < 0, math.nan, value))


AIRY_WAVES_FROM = 7.0
AIRY_DECAYS_FROM = 2.0
AIRY_SERIES_TERMS = 30
AIRY_ASYMPTOTIC_TERMS = 16


def _airy_series() -> tuple[list[float], list[float]]:
    """Coefficients of x^(3k) in the two solutions of w'' = x w that Ai is made of, times those of Ai."""
    f, g = [1.0], [1.0]
    for k in range(1, AIRY_SERIES_TERMS):
        f.append(f[-1] / ((3 * k - 1) * 3 * k))
        g.append(g[-1] / (3 * k * (3 * k + 1)))
    value = 1 / (3 ** (2 / 3) * math.gamma(2 / 3))
    slope = -1 / (3 ** (1 / 3) * math.gamma(1 / 3))
    return [value * c for c in f], [slope * c for c in g]


def _airy_expansion() -> list[float]:
    """u_k (DLMF 9.7.2)."""
    found = [1.0]
    for k in range(1, AIRY_ASYMPTOTIC_TERMS):
        found.append(found[-1] * (6 * k - 5) * (6 * k - 3) * (6 * k - 1) / (216 * k * (2 * k - 1)))
    return found


def airy(x: Node) -> Node:
    """Ai(x); NaN, as in eager, at infinities."""
    cube = x * x * x
    f, g = _airy_series()
    near = fma(x, polynomial(cube, g), polynomial(cube, f))
    size = abs(x)
    root = sqrt(size)
    zeta = size * root * (2 / 3)
    # e^-zeta in two factors, as for K; Ai(x) = sqrt(x / 3) K_1/3(zeta) / pi
    start = AIRY_DECAYS_FROM**1.5 * (2 / 3)
    decay = exp(zeta * -0.5)
    fourth = sqrt(root)
    decaying = interpolated(1 / 3, start, zeta) / fourth * (1 / (math.pi * math.sqrt(2))) * decay * decay
    inverse = 1 / zeta
    square = inverse * inverse
    u = _airy_expansion()
    even = polynomial(square, [u[2 * k] * (-1) ** k for k in range(len(u) // 2)])
    odd = inverse * polynomial(square, [u[2 * k + 1] * (-1) ** k for k in range(len(u) // 2)])
    angle = zeta - math.pi / 4
    waving = (cos(angle) * even + sin(angle) * odd) / fourth * (1 / math.sqrt(math.pi))
    value = where(x > AIRY_DECAYS_FROM, decaying, where(x < -AIRY_WAVES_FROM, waving, near))
    return where(isinf(x), math.nan, value)


def _register(operator: object, compute: Callable[[Node], Node], inaccurate: str = "") -> None:
    def lowering(ctx: GraphLowering, x: TensorBox) -> TensorBox:
        if inaccurate and ctx.out_dtype is torch.float64:
            raise Refused(INACCURATE.format(inaccurate))
        return ctx.elementwise(
            lambda v: compute(ctx.dag.to_dtype(v, torch.float64)), x, compute=ctx.out_dtype
        )

    lowers(operator)(lowering)


for _order, _y, _k, _scaled in (
    (0, "bessel_y0", "modified_bessel_k0", "scaled_modified_bessel_k0"),
    (1, "bessel_y1", "modified_bessel_k1", "scaled_modified_bessel_k1"),
):
    _register(getattr(aten, f"special_{_y}").default, functools.partial(second_kind, order=_order), "8e-7")
    for _name, _with in ((_k, False), (_scaled, True)):
        _register(
            getattr(aten, f"special_{_name}").default,
            functools.partial(modified_second_kind, order=_order, scaled=_with),
        )
_register(aten.special_airy_ai.default, airy, "3e-6")
