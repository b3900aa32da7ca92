"""Elementwise functions of one floating-point argument that are more than one operation, and rounding.

A file of its own: each family of operators has one."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from braze._torch.prims import prims
from braze.ir.boxes import TensorBox
from braze.lowering.registry import lowers
from braze.ops.dag import Node
from braze.ops.dtypes import is_float
from braze.ops.functions import erfc, erfinv, exp, fma, isinf, isnan, log, minimum, sqrt, where

if TYPE_CHECKING:
    from braze.lowering.graph import GraphLowering

aten = torch.ops.aten


def _rounding(name: str) -> Callable[..., TensorBox]:
    def lowering(ctx: GraphLowering, x: TensorBox) -> TensorBox:
        if not is_float(x.dtype):
            return ctx.elementwise(lambda v: v, x, compute=x.dtype)
        return ctx.elementwise(lambda v: ctx.dag.op(name, v), x, compute=x.dtype, exact=True)

    lowering.__doc__ = f"{name}(x); integers stay as they are."
    return lowering


for _name in ("floor", "ceil", "trunc", "round"):
    lowers(getattr(aten, _name).default)(_rounding(_name))


@lowers(aten.round.decimals)
def round_decimals(ctx: GraphLowering, x: TensorBox, *, decimals: int) -> TensorBox:
    """x to ``decimals`` decimal places: scaled, rounded to the nearest even, scaled back."""
    if not is_float(x.dtype):
        return ctx.elementwise(lambda v: v, x, compute=x.dtype)

    def value(v: Node) -> Node:
        if decimals == 0:
            return round(v)
        scale = v.like(10.0 ** abs(decimals))
        return round(v * scale) / scale if decimals > 0 else round(v / scale) * scale

    return ctx.elementwise(value, x, compute=x.dtype, exact=True)


@lowers(aten.angle.default)
def angle(ctx: GraphLowering, x: TensorBox) -> TensorBox:
    """The angle of a real number: pi where it is negative, 0 elsewhere; NaN stays."""

    def value(v: Node) -> Node:
        return where(isnan(v), v, where(v < 0, v.like(math.pi), 0))

    return ctx.elementwise(value, x, compute=ctx.out_dtype, exact=True)


_ERFCX_TERMS = 16


def scaled_erfc(v: Node) -> Node:
    """exp(v^2) * erfc(v) of float64; from 10 on by its asymptotic series, because erfc vanishes further on.
    What rounding takes from v^2 is given back: the exponential would multiply it.

    Source: NIST Digital Library of Mathematical Functions, 7.12.1."""
    square = v * v
    lost = where(isinf(square), 0, fma(v, v, -square))
    rest = erfc(v)
    direct = exp(square) * fma(rest, lost, rest)
    step = -0.5 / square
    series = v.like(1)
    for k in range(2 * _ERFCX_TERMS - 1, 0, -2):
        series = fma(step * k, series, 1)
    far = series / (v * math.sqrt(math.pi))
    return where(v > 10, far, direct)


@lowers(aten.special_erfcx.default, prims.erfcx.default)
def erfcx(ctx: GraphLowering, x: TensorBox) -> TensorBox:
    """exp(x^2) * erfc(x), in float64."""
    return ctx.elementwise(
        lambda v: scaled_erfc(ctx.dag.to_dtype(v, torch.float64)), x, compute=ctx.out_dtype
    )


_HALLEY_STEPS = 2


def normal_quantile(p: Node) -> Node:
    """The x that a normal variable is below with probability p, in float64: by erfinv in the middle, and in
    the tails by Halley's method on log(erfc(t) / 2) = log(p), where x = -sqrt(2) t.

    The method starts within 4.5e-4; each step leaves the third power of the error. Source: Abramowitz and
    Stegun, Handbook of Mathematical Functions, 26.2.23 (the start)."""
    middle = math.sqrt(2) * erfinv(2 * p - 1)
    below = minimum(p, 1 - p)
    target = log(below)
    root = sqrt(-2 * target)
    start = root - fma(fma(root, 0.010328, 0.802853), root, 2.515517) / fma(
        fma(fma(root, 0.001308, 0.189269), root, 1.432788), root, 1
    )
    t = start * math.sqrt(0.5)
    for _ in range(_HALLEY_STEPS):
        scaled = scaled_erfc(t)
        # of f = log(erfc(t) / 2): f' = -ratio and f'' = ratio (2 t - ratio)
        ratio = (2 / math.sqrt(math.pi)) / scaled
        off = log(scaled * 0.5) - fma(t, t, target)
        t = t + off / fma(off, 0.5 * ratio - t, ratio)
    tail = where(p < 0.5, -t, t) * math.sqrt(2)
    value = where(abs(p - 0.5) < 0.25, middle, tail)
    value = where(p.eq(0), -math.inf, where(p.eq(1), math.inf, value))
    return where((p >= 0) & (p <= 1), value, math.nan)


@lowers(aten.special_ndtri.default)
def ndtri(ctx: GraphLowering, x: TensorBox) -> TensorBox:
    """The quantile function of the normal distribution, in float64."""
    return ctx.elementwise(
        lambda v: normal_quantile(ctx.dag.to_dtype(v, torch.float64)), x, compute=ctx.out_dtype
    )
