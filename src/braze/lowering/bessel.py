"""Bessel functions of the first kind, in float64, from their definitions.

Near zero a power series is summed by Horner's rule, far away the asymptotic expansion; both have more terms
than float64 can tell apart at the place where they meet.

Source: NIST Digital Library of Mathematical Functions, 10.2.2 and 10.25.2 (series), 10.17.3 and 10.40.1
(asymptotic expansions).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from braze.errors import Refused
from braze.ir.boxes import TensorBox
from braze.lowering.interpolation import polynomial
from braze.lowering.registry import lowers
from braze.ops.dag import Node
from braze.ops.functions import cos, exp, isinf, signbit, sin, sqrt, where

if TYPE_CHECKING:
    from braze.lowering.graph import GraphLowering

aten = torch.ops.aten

MEETING = 22.0
"""Where the series gives way to the asymptotic expansion."""
SERIES_TERMS = 64
ASYMPTOTIC_TERMS = 20
INACCURATE = "eager's values in float64 are off by up to {}, and others would not agree"


def series(order: int, sign: int) -> list[float]:
    """Coefficients of (x/2)^(2k): the function is (x/2)^order times their sum. ``sign``: -1 for J, 1 for
    I."""
    return [sign**k / (math.factorial(k) * math.factorial(k + order)) for k in range(SERIES_TERMS)]


def expansion(order: int) -> list[float]:
    """a_k of the asymptotic expansions, coefficients of 1/x^k."""
    coefficients = [1.0]
    for k in range(1, ASYMPTOTIC_TERMS + 1):
        coefficients.append(coefficients[-1] * (4 * order**2 - (2 * k - 1) ** 2) / (8 * k))
    return coefficients


def modified(x: Node, order: int, scaled: bool) -> Node:
    """I_order(x), times exp(-|x|) if ``scaled``, for order 0 and 1."""
    size = abs(x)
    half = size * 0.5
    near = polynomial(half * half, series(order, 1))
    if order:
        near = near * half
    inverse = 1 / size
    alternating = [a * (-1) ** k for k, a in enumerate(expansion(order))]
    far = polynomial(inverse, alternating) * sqrt(inverse * (1 / (2 * math.pi)))
    if scaled:
        near = near * exp(-size)
    else:
        # two factors: exp(x) alone overflows before the function does
        growth = exp(half)
        far = far * growth * growth
    value = where(size < MEETING, near, far)
    return where(x < 0, -value, value) if order else value


def waves(x: Node, order: int) -> tuple[Node, Node, Node]:
    """What J and Y are made of far from zero, for positive x: the factors of the angle's cosine and sine in
    J, and the angle."""
    inverse = 1 / x
    square = inverse * inverse
    a = expansion(order)
    even = polynomial(square, [a[2 * k] * (-1) ** k for k in range(len(a) // 2)])
    odd = inverse * polynomial(square, [a[2 * k + 1] * (-1) ** k for k in range(len(a) // 2)])
    return even, odd, x - math.pi * (2 * order + 1) / 4


def first_kind_near(size: Node, order: int) -> Node:
    """J_order of numbers from 0 to MEETING / 2."""
    half = size * 0.5
    near = polynomial(half * half, series(order, -1))
    return near * half if order else near


def first_kind(x: Node, order: int) -> Node:
    """J_order(x), for order 0 and 1."""
    size = abs(x)
    even, odd, angle = waves(size, order)
    far = (cos(angle) * even - sin(angle) * odd) * sqrt(1 / size * (2 / math.pi))
    value = where(size < MEETING / 2, first_kind_near(size, order), far)
    return where(signbit(x), -value, value) if order else value


def _register(operator: object, compute: Callable[[Node], Node]) -> None:
    def lowering(ctx: GraphLowering, x: TensorBox) -> TensorBox:
        return ctx.elementwise(
            lambda v: compute(ctx.dag.to_dtype(v, torch.float64)), x, compute=ctx.out_dtype
        )

    lowers(operator)(lowering)


def _modified(order: int, scaled: bool) -> Callable[[Node], Node]:
    return lambda v: modified(v, order, scaled)


for _order, _plain, _scaled in ((0, aten.i0, aten.special_i0e), (1, aten.special_i1, aten.special_i1e)):
    _register(_plain.default, _modified(_order, scaled=False))
    _register(_scaled.default, _modified(_order, scaled=True))
_register(aten.special_modified_bessel_i0.default, _modified(0, scaled=False))
_register(aten.special_modified_bessel_i1.default, _modified(1, scaled=False))


def _first_kind(order: int) -> Callable[[GraphLowering, TensorBox], TensorBox]:
    def lowering(ctx: GraphLowering, x: TensorBox) -> TensorBox:
        if ctx.out_dtype is torch.float64:
            raise Refused(INACCURATE.format("5e-7"))
        return ctx.elementwise(
            lambda v: first_kind(ctx.dag.to_dtype(v, torch.float64), order), x, compute=ctx.out_dtype
        )

    return lowering


lowers(aten.special_bessel_j0.default)(_first_kind(0))
lowers(aten.special_bessel_j1.default)(_first_kind(1))


@lowers(aten.special_spherical_bessel_j0.default)
def spherical_j0(ctx: GraphLowering, x: TensorBox) -> TensorBox:
    """sin(x) / x; 1 at zero, 0 at infinity."""

    def value(v: Node) -> Node:
        return where(isinf(v), 0, where(v.eq(0), 1, sin(v) / v))

    return ctx.elementwise(value, x, compute=ctx.out_dtype)
