"""Random numbers: the functions of ``braze.ir.prims``, drawn from Philox at the element's own position."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from braze.ir import prims
from braze.ir.boxes import TensorBox
from braze.ir.buffers import Buffer
from braze.ir.externs import ExternKernelAlloc
from braze.lowering.promotion import Scalar, number
from braze.lowering.registry import calls_whole, lowers
from braze.ops.dag import Node
from braze.runtime.expr import ZERO, Expr, ExprLike, as_expr
from braze.runtime.spec import contiguous_strides, tensor_spec

if TYPE_CHECKING:
    from braze.lowering.graph import GraphLowering


def _draw(ctx: GraphLowering) -> TensorBox:
    """The seeds of a graph by ATen's own operator, so that a plan can name what it calls."""
    (count,) = ctx.args_of(tuple(ctx.node.args))
    result = Buffer(ctx.graph.buffer_name(), tensor_spec(torch.int64, (count,), device=ctx.graph.device))
    kernel = ExternKernelAlloc(
        ctx.graph.operation_name(),
        torch.ops.aten.randint.low,
        (-(2**63), 2**63 - 1, [count]),
        {"dtype": torch.int64},
        [result],
        result.name,
        origins=[ctx.origin],
    )
    ctx.graph.add_operation(kernel)
    return TensorBox.of(result)


calls_whole("it draws from torch's generator, once for a whole graph", prims.seeds, instead=_draw)


def _drawn(
    ctx: GraphLowering,
    name: str,
    dtype: torch.dtype,
    seeds: TensorBox,
    index: ExprLike,
    bounds: Sequence[Scalar] = (),
) -> TensorBox:
    d, size = ctx.dag, ctx.out_size
    strides = contiguous_strides(size)

    def value(i: tuple[Expr, ...]) -> Node:
        flat = ZERO
        for e, s in zip(i, strides, strict=True):
            flat = flat + e * s
        limits = [number(ctx, b, torch.int64) for b in bounds]
        return d.random(name, dtype, seeds.load(d, [as_expr(index)]), d.index_expr(flat), *limits)

    return ctx.pointwise(size, dtype, value)


def bounded(ctx: GraphLowering, v: Node, low: float, high: float, text: str) -> Node:
    """v, which has to lie in [low, high], NaN excluded: RuntimeError with ``text`` as its message if not."""
    holds = ctx.dag.constant(True, torch.bool)
    if math.isfinite(low):
        holds = v >= low
    if math.isfinite(high):
        holds = holds & (v <= high)
    return ctx.dag.check(v, holds, ctx.check(RuntimeError, text))


@lowers(prims.between)
def between(ctx: GraphLowering, x: TensorBox, low: float, high: float, text: str) -> TensorBox:
    """x, with every element checked."""
    return ctx.elementwise(lambda v: bounded(ctx, v, low, high, text), x, compute=x.dtype, out=x.dtype)


@lowers(prims.rand)
def rand(ctx: GraphLowering, seeds: TensorBox, index: ExprLike, size: Any) -> TensorBox:
    """Uniform float32 in [0, 1)."""
    return _drawn(ctx, "rand", torch.float32, seeds, index)


@lowers(prims.randn)
def randn(ctx: GraphLowering, seeds: TensorBox, index: ExprLike, size: Any) -> TensorBox:
    """Normal float32."""
    return _drawn(ctx, "randn", torch.float32, seeds, index)


@lowers(prims.randint)
def randint(
    ctx: GraphLowering, seeds: TensorBox, index: ExprLike, low: Scalar, high: Scalar, size: Any
) -> TensorBox:
    """Uniform int64 in [low, high)."""
    return _drawn(ctx, "randint64", torch.int64, seeds, index, (low, high))
