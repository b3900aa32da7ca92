"""The quantile function of the normal distribution, in float64.

In the middle, x / (p - 1/2) is smooth in (p - 1/2)^2; in the tails, x is close to r = sqrt(-2 log p), and
x / r is smooth in 1 / sqrt(r). Both are interpolated, from what Newton's method finds.

Source: NIST Digital Library of Mathematical Functions, 7.17.1 (definitions), 7.9.3 (erfc far from zero).

A file of its own: each family of operators has one.
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING

import torch

from braze.ir.boxes import TensorBox
from braze.lowering.interpolation import interpolation, polynomial
from braze.lowering.registry import lowers
from braze.ops.dag import Node
from braze.ops.functions import log, minimum, rsqrt, sqrt, where

if TYPE_CHECKING:
    from braze.lowering.graph import GraphLowering

aten = torch.ops.aten

MIDDLE = 0.25
"""How far from 1/2 the middle reaches."""
NEAREST, FARTHEST = 1.66, 38.7
"""Where r lies in the tails: the least number is exp(-38.6^2 / 2)."""
MIDDLE_POINTS = 16
TAIL_POINTS = 24
STEPS = 50
FAR = 4.0
FRACTIONS = 100


def _log_erfc(t: float) -> tuple[float, float]:
    """log(erfc(t)) and its derivative: from FAR on by the continued fraction of exp(t^2) erfc(t)."""
    if t < FAR:
        value = math.erfc(t)
        return math.log(value), -2 / math.sqrt(math.pi) * math.exp(-t * t) / value
    below = t
    for k in range(FRACTIONS, 0, -1):
        below = t + 0.5 * k / below
    return -t * t - math.log(math.sqrt(math.pi) * below), -2 * below


def _in_tail(r: float) -> float:
    """x / r, where x is exceeded with probability exp(-r^2 / 2)."""
    target = math.log(2) - 0.5 * r * r
    t = math.sqrt(-target)
    for _ in range(STEPS):
        value, slope = _log_erfc(t)
        t -= (value - target) / slope
    return t * math.sqrt(2) / r


def _in_middle(square: float) -> float:
    """x / y, where x has probability 1/2 + y and y^2 is ``square``."""
    y = math.sqrt(square)
    t = y * math.sqrt(math.pi)
    for _ in range(STEPS):
        t -= (math.erf(t) - 2 * y) * math.exp(t * t) * math.sqrt(math.pi) / 2
    return t * math.sqrt(2) / y


@functools.cache
def _series() -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Of the middle in (p - 1/2)^2, and of the tail in 1 / sqrt(r), both from their least to greatest."""
    low, high = FARTHEST**-0.5, NEAREST**-0.5
    middle = interpolation(lambda u: _in_middle(MIDDLE**2 * (u + 1) / 2), MIDDLE_POINTS)
    tail = interpolation(lambda u: _in_tail((low + (high - low) * (u + 1) / 2) ** -2), TAIL_POINTS)
    return middle, tail


def quantile(p: Node) -> Node:
    """The x that a normal variable is below with probability p."""
    middle, tail = _series()
    y = p - 0.5
    central = y * polynomial(y * y * (2 / MIDDLE**2) - 1, middle)
    r = sqrt(-2 * log(minimum(p, 1 - p)))
    low, high = FARTHEST**-0.5, NEAREST**-0.5
    outer = r * polynomial((rsqrt(r) - low) * (2 / (high - low)) - 1, tail)
    value = where(abs(y) <= MIDDLE, central, where(y < 0, -outer, outer))
    value = where(p.eq(0), -math.inf, where(p.eq(1), math.inf, value))
    return where((p >= 0) & (p <= 1), value, math.nan)


@lowers(aten.special_ndtri.default)
def ndtri(ctx: GraphLowering, x: TensorBox) -> TensorBox:
    """The quantile function."""
    return ctx.elementwise(lambda v: quantile(ctx.dag.to_dtype(v, torch.float64)), x, compute=ctx.out_dtype)
