"""Writing to places that index tensors choose."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch

from braze.errors import Refused
from braze.ir.boxes import StorageBox, TensorBox
from braze.ir.loops import Scatter, Sizes, loop_indices
from braze.lowering.casts import converted, copied
from braze.lowering.indexing import AdvancedIndex, along, checked
from braze.lowering.promotion import Operand, operand
from braze.lowering.registry import lowers
from braze.ops.dag import Node
from braze.ops.dtypes import compute_dtype
from braze.ops.functions import where
from braze.runtime.expr import ONE, Expr

if TYPE_CHECKING:
    from braze.lowering.graph import GraphLowering

aten = torch.ops.aten


def scattered(
    ctx: GraphLowering,
    x: TensorBox,
    size: Sizes,
    positions: Callable[[Sequence[Expr]], list[Expr]],
    value: Callable[[Sequence[Expr], torch.dtype], Node],
    *,
    accumulate: bool,
) -> TensorBox:
    """A copy of x with ``value(indices, type)`` written, or added, at ``positions(indices)`` for all of
    ``size``.

    Sums of half types are collected in float32 and rounded once.
    """
    if any(n.constant == 0 for n in size):
        return copied(ctx, x)
    wide = compute_dtype(x.dtype) if accumulate else x.dtype
    if accumulate and wide is torch.bool:
        raise Refused("a sum of booleans as booleans")
    target = copied(ctx, x, wide)
    if isinstance(target.data, StorageBox):
        target.data.stride_hint = ctx.exprs(ctx.example.stride())
    ref = ctx.graph.ref(target)
    indices = loop_indices(size)
    loops = Scatter(
        wide,
        size,
        value(indices, wide),
        ref.layout.index(positions(indices)),
        "atomic_add" if accumulate else "set",
    )

    result = TensorBox.of(ctx.graph.scatter_into(loops, ref.layout, ref.buffer.storage))
    return result if wide is x.dtype else copied(ctx, result, x.dtype)


@lowers(aten.scatter.src, aten.scatter.value)
def scatter(ctx: GraphLowering, x: TensorBox, dim: int, index: TensorBox, source: Operand) -> TensorBox:
    """x with ``source`` written where ``index`` says along one dimension."""
    return _along(ctx, x, dim, index, source, accumulate=False)


@lowers(aten.scatter_add.default)
def scatter_add(ctx: GraphLowering, x: TensorBox, dim: int, index: TensorBox, source: TensorBox) -> TensorBox:
    """x with ``source`` added where ``index`` says along one dimension."""
    return _along(ctx, x, dim, index, source, accumulate=True)


@lowers(aten.scatter.reduce, aten.scatter.value_reduce)
def scatter_by(
    ctx: GraphLowering, x: TensorBox, dim: int, index: TensorBox, source: Operand, *, reduce: str
) -> TensorBox:
    """x with ``source`` added where ``index`` says; products are not compiled."""
    if reduce != "add":
        raise Refused(f"a scatter that combines by {reduce}")
    return _along(ctx, x, dim, index, source, accumulate=True)


@lowers(aten.scatter_reduce.two)
def scatter_reduce(
    ctx: GraphLowering,
    x: TensorBox,
    dim: int,
    index: TensorBox,
    source: TensorBox,
    reduce: str,
    *,
    include_self: bool = True,
) -> TensorBox:
    """x combined with ``source`` where ``index`` says; only sums that start from x are compiled."""
    if reduce != "sum" or not include_self:
        raise Refused(
            f"a scatter that combines by {reduce}{'' if include_self else ' without the old value'}"
        )
    return _along(ctx, x, dim, index, source, accumulate=True)


def _along(
    ctx: GraphLowering, x: TensorBox, dim: int, index: TensorBox, source: Operand, *, accumulate: bool
) -> TensorBox:
    if x.ndim == 0 or index.ndim == 0:
        raise Refused("a scatter without dimensions")

    def value(i: Sequence[Expr], dtype: torch.dtype) -> Node:
        if isinstance(source, TensorBox):  # may be larger than the index: no broadcasting
            return ctx.dag.to_dtype(source.load(ctx.dag, i), compute_dtype(dtype))
        return operand(ctx, source, i, index.size, dtype)

    return scattered(
        ctx, x, index.size, along(ctx, index, dim % x.ndim, x.size), value, accumulate=accumulate
    )


@lowers(aten.index_add.default)
def index_add(
    ctx: GraphLowering, x: TensorBox, dim: int, index: TensorBox, source: TensorBox, *, alpha: float = 1
) -> TensorBox:
    """x with slices of ``source``, times ``alpha``, added to its slices ``index`` along one dimension."""
    return _slices(ctx, x, dim, index, source, alpha, accumulate=True, error=RuntimeError)


@lowers(aten.index_copy.default)
def index_copy(ctx: GraphLowering, x: TensorBox, dim: int, index: TensorBox, source: TensorBox) -> TensorBox:
    """x with its slices ``index`` along one dimension replaced by slices of ``source``."""
    return _slices(ctx, x, dim, index, source, 1, accumulate=False, error=IndexError)


def _slices(
    ctx: GraphLowering,
    x: TensorBox,
    dim: int,
    index: TensorBox,
    source: TensorBox,
    alpha: float,
    *,
    accumulate: bool,
    error: type[BaseException],
) -> TensorBox:
    if x.ndim == 0 or index.ndim != 1:
        raise Refused("slices of a tensor without dimensions")
    dim %= x.ndim

    def positions(i: Sequence[Expr]) -> list[Expr]:
        at = checked(ctx, index.load(ctx.dag, [i[dim]]), x.size[dim], wrap=False, error=error)
        return [*i[:dim], at, *i[dim + 1 :]]

    def value(i: Sequence[Expr], dtype: torch.dtype) -> Node:
        own = ctx.dag.to_dtype(source.load(ctx.dag, i), dtype)
        return own if alpha == 1 else own * alpha

    return scattered(ctx, x, source.size, positions, value, accumulate=accumulate)


@lowers(aten.index_put.default)
def index_put(
    ctx: GraphLowering,
    x: TensorBox,
    indices: Sequence[TensorBox | None],
    values: TensorBox,
    accumulate: bool = False,
) -> TensorBox:
    """x with ``values``, broadcast, written at ``x[indices]``, or added to it."""
    if any(t is not None and t.dtype is torch.bool for t in indices):
        return _masked_put(ctx, x, indices, values, accumulate)
    plan = AdvancedIndex(ctx, x.size, indices)

    def value(i: Sequence[Expr], dtype: torch.dtype) -> Node:
        return operand(ctx, values, i, plan.size, dtype)

    return scattered(ctx, x, plan.size, plan.positions, value, accumulate=accumulate)


def _masked_put(
    ctx: GraphLowering, x: TensorBox, indices: Sequence[TensorBox | None], values: TensorBox, accumulate: bool
) -> TensorBox:
    """One mask and one value: a choice for each element instead of a scatter."""
    masks = [(d, t) for d, t in enumerate(indices) if t is not None]
    if len(masks) != 1 or any(s != ONE for s in values.size):
        raise Refused("a mask as an index, with more than one value")
    dim, mask = masks[0]
    d = ctx.dag

    def value(i: tuple[Expr, ...]) -> Node:
        old = x.load(d, i)
        new = converted(ctx, values.load(d, [s - 1 for s in values.size]), x.dtype)
        if accumulate:
            new = old + new
        return where(mask.load(d, i[dim : dim + mask.ndim]), new, old)

    if accumulate and x.dtype is torch.bool:
        raise Refused("a sum of booleans as booleans")
    return ctx.pointwise(x.size, x.dtype, value)
