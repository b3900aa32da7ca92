"""Elementwise functions of one floating-point argument, and rounding."""

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

if TYPE_CHECKING:
    from braze.lowering.graph import GraphLowering

aten = torch.ops.aten

_SAME_NAME = """sqrt rsqrt exp exp2 expm1 sigmoid tanh log log1p log2 log10 erf erfc erfinv sin cos tan
asin acos
atan sinh cosh asinh acosh atanh lgamma digamma"""


def _float_function(name: str) -> Callable[..., TensorBox]:
    def lowering(ctx: GraphLowering, x: TensorBox) -> TensorBox:
        return ctx.elementwise(lambda v: ctx.dag.op(name, v), x, compute=ctx.out_dtype)

    lowering.__doc__ = f"{name}(x), in floating point."
    return lowering


for _name in _SAME_NAME.split():
    lowers(getattr(aten, _name).default)(_float_function(_name))


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
    d = ctx.dag
    if not is_float(x.dtype):
        return ctx.elementwise(lambda v: v, x, compute=x.dtype)

    def value(v: Node) -> Node:
        if decimals == 0:
            return d.op("round", v)
        scale = d.constant(10.0 ** abs(decimals), v.dtype)
        there, back = ("mul", "truediv") if decimals > 0 else ("truediv", "mul")
        return d.op(back, d.op("round", d.op(there, v, scale)), scale)

    return ctx.elementwise(value, x, compute=x.dtype, exact=True)


@lowers(aten.angle.default)
def angle(ctx: GraphLowering, x: TensorBox) -> TensorBox:
    """The angle of a real number: pi where it is negative, 0 elsewhere; NaN stays."""
    d = ctx.dag

    def value(v: Node) -> Node:
        flat = d.where(
            d.op("lt", v, d.constant(0, v.dtype)), d.constant(math.pi, v.dtype), d.constant(0, v.dtype)
        )
        return d.where(d.op("isnan", v), v, flat)

    return ctx.elementwise(value, x, compute=ctx.out_dtype, exact=True)


_ERFCX_TERMS = 16


@lowers(aten.special_erfcx.default, prims.erfcx.default)
def erfcx(ctx: GraphLowering, x: TensorBox) -> TensorBox:
    """exp(x^2) * erfc(x), in float64; from 10 on by its asymptotic series, because erfc vanishes further on.
    What rounding takes from x^2 is given back: the exponential would multiply it.

    Source: NIST Digital Library of Mathematical Functions, 7.12.1."""
    d = ctx.dag

    def c(k: float) -> Node:
        return d.constant(k, torch.float64)

    def value(v: Node) -> Node:
        v = d.to_dtype(v, torch.float64)
        square = d.op("mul", v, v)
        lost = d.where(d.op("isinf", square), c(0), d.op("fma", v, v, d.op("neg", square)))
        rest = d.op("erfc", v)
        direct = d.op("mul", d.op("exp", square), d.op("fma", rest, lost, rest))
        step = d.op("truediv", c(-0.5), square)
        series = c(1)
        for k in range(2 * _ERFCX_TERMS - 1, 0, -2):
            series = d.op("fma", d.op("mul", step, c(k)), series, c(1))
        far = d.op("truediv", series, d.op("mul", v, c(math.sqrt(math.pi))))
        return d.where(d.op("gt", v, c(10)), far, direct)

    return ctx.elementwise(value, x, compute=ctx.out_dtype)
