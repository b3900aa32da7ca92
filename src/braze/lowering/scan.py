"""Running sums, products and extrema along a dimension.

A file of its own: each family of operators has one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from braze.errors import Refused
from braze.ir.boxes import TensorBox
from braze.ir.loops import Scan, loop_indices
from braze.ir.views import View
from braze.lowering.casts import copied, held
from braze.lowering.registry import lowers
from braze.ops.dag import Node
from braze.ops.dtypes import compute_dtype
from braze.runtime.expr import Expr

if TYPE_CHECKING:
    from braze.lowering.graph import GraphLowering

aten = torch.ops.aten


def _running(ctx: GraphLowering, kind: str, x: TensorBox, dim: int) -> TensorBox:
    dtype = ctx.out_dtype
    if dtype is torch.bool:
        raise Refused(f"a running {kind} of booleans as booleans")
    if x.ndim == 0:
        return copied(ctx, x, dtype)
    dim %= x.ndim
    indices = loop_indices(x.size)
    along = indices[dim].symbol
    if along is None:
        return copied(ctx, x, dtype)
    d = ctx.dag
    element = x.load(d, indices)
    if dtype is not x.dtype:
        element = held(ctx, element, x.dtype)
    value = d.scan(kind, d.to_dtype(element, compute_dtype(dtype)), along)
    return ctx.box(Scan(dtype, x.size, value, dim))


@lowers(aten.cumsum.default)
def cumsum(ctx: GraphLowering, x: TensorBox, dim: int, *, dtype: Any = None) -> TensorBox:
    """The sums of all elements up to each one."""
    return _running(ctx, "sum", x, dim)


@lowers(aten.cumprod.default)
def cumprod(ctx: GraphLowering, x: TensorBox, dim: int, *, dtype: Any = None) -> TensorBox:
    """The products of all elements up to each one."""
    return _running(ctx, "prod", x, dim)


@lowers(aten.logcumsumexp.default)
def logcumsumexp(ctx: GraphLowering, x: TensorBox, dim: int) -> TensorBox:
    """The logarithms of the sums of the exponentials of all elements up to each one."""
    return _running(ctx, "logsumexp", x, dim)


@lowers(aten.cummax.default)
def cummax(ctx: GraphLowering, x: TensorBox, dim: int) -> tuple[TensorBox, TensorBox]:
    """The greatest of all elements up to each one, NaN being greater than all, and its last place."""
    return _extrema(ctx, "last_max", x, dim)


@lowers(aten.cummin.default)
def cummin(ctx: GraphLowering, x: TensorBox, dim: int) -> tuple[TensorBox, TensorBox]:
    """The least of all elements up to each one, NaN being less than all, and its last place."""
    return _extrema(ctx, "last_min", x, dim)


def _extrema(ctx: GraphLowering, kind: str, x: TensorBox, dim: int) -> tuple[TensorBox, TensorBox]:
    """The places are scanned, the values looked up there: eager, too, keeps the sign of a zero."""
    d = ctx.dag
    indices = loop_indices(x.size)
    along = indices[dim % x.ndim].symbol if x.ndim else None
    if along is None:
        return copied(ctx, x), ctx.pointwise(x.size, torch.int64, lambda i: d.constant(0, torch.int64))
    dim %= x.ndim
    element = held(ctx, x.load(d, indices), x.dtype)
    if x.dtype is torch.bool:
        element = d.to_dtype(element, torch.uint8)
    places = ctx.box(Scan(torch.int64, x.size, d.scan(kind, element, along), dim))

    def value(i: tuple[Expr, ...]) -> Node:
        place = d.indirect(places.load(d, i), x.size[dim])
        return x.load(d, [*i[:dim], place, *i[dim + 1 :]])

    return ctx.pointwise(x.size, x.dtype, value), places


def running_count(ctx: GraphLowering, mask: TensorBox) -> TensorBox:
    """For each place of ``mask`` how many hold up to it, in row-major order, itself included."""
    d = ctx.dag
    ones = ctx.pointwise(mask.size, torch.int64, lambda i: d.to_dtype(mask.load(d, i), torch.int64))
    flat = ctx.graph.view(ones, View((ones.numel,), mask.size))
    (place,) = loop_indices(flat.size)
    if place.symbol is None:
        return ones
    running = d.scan("sum", flat.load(d, [place]), place.symbol)
    return ctx.graph.view(ctx.graph.box(Scan(torch.int64, flat.size, running, 0)), View(mask.size, flat.size))
