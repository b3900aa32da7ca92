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
from braze.ops.functions import erfc, exp, fma, isinf, isnan, where

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


@lowers(aten.special_erfcx.default, prims.erfcx.default)
def erfcx(ctx: GraphLowering, x: TensorBox) -> TensorBox:
    """exp(x^2) * erfc(x), in float64; from 10 on by its asymptotic series, because erfc vanishes further on.
    What rounding takes from x^2 is given back: the exponential would multiply it.

    Source: NIST Digital Library of Mathematical Functions, 7.12.1."""

    def value(v: Node) -> Node:
        v = ctx.dag.to_dtype(v, torch.float64)
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

    return ctx.elementwise(value, x, compute=ctx.out_dtype)
