"""Writing slices and elements at places that index tensors, masks and strides choose."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from braze.errors import Refused
from braze.ir.boxes import TensorBox
from braze.ir.loops import Scatter, loop_indices
from braze.ir.views import View
from braze.lowering.casts import converted, copied, keep_strides
from braze.lowering.indexing import AdvancedIndex, checked
from braze.lowering.promotion import operand
from braze.lowering.registry import lowers
from braze.lowering.scan import running_count
from braze.lowering.scatter import accumulated, at_least_1d, owned, scattered, shaped_like
from braze.lowering.views import strided_layout
from braze.ops.dag import Node
from braze.ops.functions import minimum, where
from braze.runtime.expr import ONE, ZERO, Expr, ExprLike

if TYPE_CHECKING:
    from braze.lowering.graph import GraphLowering

aten = torch.ops.aten


@lowers(aten.index_add.default)
def index_add(
    ctx: GraphLowering, x: TensorBox, dim: int, index: TensorBox, source: TensorBox, *, alpha: float = 1
) -> TensorBox:
    """x with slices of ``source``, times ``alpha``, added to its slices ``index`` along one dimension."""
    error = RuntimeError if x.ndim > 1 else IndexError
    return _slices(ctx, x, dim, index, source, "sum", alpha=alpha, error=error)


@lowers(aten.index_reduce.default)
def index_reduce(
    ctx: GraphLowering,
    x: TensorBox,
    dim: int,
    index: TensorBox,
    source: TensorBox,
    reduce: str,
    *,
    include_self: bool = True,
) -> TensorBox:
    """x with its slices ``index`` along one dimension combined with those of ``source``."""
    return _slices(ctx, x, dim, index, source, reduce, include_self=include_self, error=IndexError)


@lowers(aten.index_copy.default)
def index_copy(ctx: GraphLowering, x: TensorBox, dim: int, index: TensorBox, source: TensorBox) -> TensorBox:
    """x with its slices ``index`` along one dimension replaced by slices of ``source``."""
    return _slices(ctx, x, dim, index, source, None, error=IndexError)


def _slices(
    ctx: GraphLowering,
    x: TensorBox,
    dim: int,
    index: TensorBox,
    source: TensorBox,
    kind: str | None,
    *,
    alpha: float = 1,
    include_self: bool = True,
    error: type[BaseException],
) -> TensorBox:
    target, index, source = (at_least_1d(ctx, t) for t in (x, index, source))
    dim %= target.ndim

    def positions(i: Sequence[Expr]) -> list[Expr]:
        at = checked(ctx, index.load(ctx.dag, [i[dim]]), target.size[dim], wrap=False, error=error)
        return [*i[:dim], at, *i[dim + 1 :]]

    def value(i: Sequence[Expr], dtype: torch.dtype) -> Node:
        own = ctx.dag.to_dtype(source.load(ctx.dag, i), dtype)
        if dtype is torch.bool:
            return own if alpha else own.like(False)
        return own if alpha == 1 else own * alpha

    if kind is None:
        result = scattered(ctx, target, source.size, positions, value)
    else:
        result = accumulated(ctx, target, source.size, positions, value, kind, include_self=include_self)
    return shaped_like(ctx, result, x)


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

    if accumulate:
        return accumulated(ctx, x, plan.size, plan.positions, value)
    return scattered(ctx, x, plan.size, plan.positions, value)


def _masked_put(
    ctx: GraphLowering, x: TensorBox, indices: Sequence[TensorBox | None], values: TensorBox, accumulate: bool
) -> TensorBox:
    """One mask: a choice for each element instead of a scatter. Several values are taken one after the
    other: a chosen place takes the one whose number is that of the chosen places before it."""
    masks = [(d, t) for d, t in enumerate(indices) if t is not None]
    if len(masks) != 1:
        raise Refused("a mask among several indices")
    dim, mask = masks[0]
    if all(n == ONE for n in values.size):
        values = ctx.graph.view(values, View((), values.size))
    d, end = ctx.dag, dim + mask.ndim
    chosen = (*x.size[:dim], ONE, *x.size[end:])
    lead = len(chosen) - values.ndim
    if mask.size != x.size[dim:end] or lead < 0 or (values.ndim and not mask.ndim):
        raise Refused("a mask or values of another shape")
    common = chosen[lead:]
    repeated = [ctx.sizes.is_repeated(n, own) for n, own in zip(values.size, common, strict=True)]
    for axis, (n, own) in enumerate(zip(values.size, common, strict=True)):
        if n != own and not repeated[axis] and axis != dim - lead:
            raise Refused("values for a mask of which it is not known whether they broadcast")
    several = dim >= lead and _is_several(ctx, values.size[dim - lead])
    if several and any(n.constant == 0 for n in (*x.size, *values.size)):
        raise Refused("a mask and values, of which there are none")
    counts = running_count(ctx, mask) if several else None

    def value(i: tuple[Expr, ...]) -> Node:
        old, holds = x.load(d, i), mask.load(d, i[dim:end])
        place: Expr = ZERO
        if counts is not None:
            most = values.size[dim - lead]
            holds = _as_many(ctx, holds, counts, most, values)
            number = minimum(counts.load(d, i[dim:end]), d.index_expr(most)) - 1
            place = d.indirect(number, most)
        at = [*i[:dim], place, *i[end:]][lead:]
        own = [ZERO if again else e for e, again in zip(at, repeated, strict=True)]
        new = converted(ctx, d.mask(values.load(d, own), holds), x.dtype)
        if accumulate:
            new = old | new if x.dtype is torch.bool else old + new
        return where(holds, new, old)

    return ctx.pointwise(x.size, x.dtype, value)


def _is_several(ctx: GraphLowering, count: Expr) -> bool:
    """Whether there is one value for each place, not one for all. Raises ``Refused`` where that depends on
    data."""
    known = count.constant if count.constant is not None else ctx.sizes.in_trace(count)
    if known is None:
        raise Refused("values for a mask, whose number depends on data")
    return known != 1


def _as_many(ctx: GraphLowering, holds: Node, counts: TensorBox, number: Expr, values: TensorBox) -> Node:
    """``holds``, checked: there are as many places as values."""
    d = ctx.dag
    total = counts.load(d, [n - 1 for n in counts.size])
    shape = ", ".join(map(str, values.size))
    text = f"shape mismatch: value tensor of shape [{shape}] cannot be broadcast to indexing result"
    return d.check(holds, total.eq(d.index_expr(number)), ctx.check(RuntimeError, text))


@lowers(aten.as_strided_scatter.default)
def as_strided_scatter(
    ctx: GraphLowering,
    x: TensorBox,
    source: TensorBox,
    size: Sequence[Any],
    stride: Sequence[Any],
    offset: ExprLike | None = None,
) -> TensorBox:
    """x with ``source`` in place of what other sizes and strides see of its memory."""
    keep_strides(ctx)
    ref = ctx.graph.ref(owned(ctx, copied(ctx, x)))
    part = strided_layout(ctx, ref, size, stride, offset)
    if not part.is_injective or source.size != part.sizes:
        raise Refused("a source that does not fit, or several values for one element")
    result = TensorBox.of(ref.buffer)
    if all(n.constant != 0 for n in part.sizes):
        indices = loop_indices(part.sizes)
        value = ctx.dag.to_dtype(source.load(ctx.dag, indices), x.dtype)
        loops = Scatter(x.dtype, part.sizes, value, part.index(indices))
        result = TensorBox.of(ctx.graph.scatter_into(loops, ref.layout, ref.buffer.storage))
    return result
