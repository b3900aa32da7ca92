"""Tensors put together from several, or from one and a border: cat, padding, flips, writing into a slice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from braze.ir.boxes import TensorBox
from braze.ir.externs import ConcatKernel
from braze.ir.loops import Loops
from braze.lowering.casts import copied, keep_strides
from braze.lowering.promotion import Scalar, number
from braze.lowering.registry import always_whole, lowers
from braze.lowering.views import clamped, position
from braze.ops.dag import Node, cost, loads
from braze.ops.dtypes import compute_dtype
from braze.ops.functions import where
from braze.runtime.expr import ONE, ZERO, Expr, ExprLike, as_expr, known_less, known_nonnegative
from braze.runtime.spec import TensorSpec, tensor_spec

if TYPE_CHECKING:
    from braze.lowering.graph import GraphLowering

aten = torch.ops.aten

FUSED_PIECES = 4
FUSED_COST = 6
FUSED_LOADS = 2


def between(ctx: GraphLowering, e: Expr, low: ExprLike, high: ExprLike) -> Node:
    """Whether ``low <= e < high``, leaving out what the bounds of ``e`` say already."""
    d = ctx.dag
    holds = d.constant(True, torch.bool)
    if not known_nonnegative(e - low):
        holds = d.index_expr(e) >= d.index_expr(low)
    if not known_less(e, high):
        holds = holds & (d.index_expr(e) < d.index_expr(high))
    return holds


@lowers(aten.cat.default)
def cat(ctx: GraphLowering, tensors: Sequence[TensorBox], dim: int = 0) -> TensorBox:
    """Tensors one after the other along a dimension.

    Written as one loop with a choice (`_chosen`) where consumers can then be fused with it: at most 4 pieces,
    each cheap to compute at any index (a cost of at most 6, 2 loads), and some user that is itself a loop.
    Else each piece is computed straight into its part of one buffer (`_in_place`), and no element is looked
    at twice.
    """
    size = ctx.out_size
    # eager ignores pieces of shape (0,) whatever the others' shape
    pieces = [x for x in tensors if not (x.ndim == 1 and x.size[0].constant == 0 and len(size) != 1)]
    dim %= len(size)
    pieces = [x for x in pieces if x.size[dim].constant != 0] or pieces[:1]
    if len(pieces) == 1:
        return copied(ctx, pieces[0], ctx.out_dtype)
    pieces = [x if x.dtype is ctx.out_dtype else copied(ctx, x, ctx.out_dtype) for x in pieces]
    if len(pieces) <= FUSED_PIECES and all(map(_is_cheap, pieces)) and _feeds_loops(ctx):
        return _chosen(ctx, pieces, dim)
    return _in_place(ctx, pieces, dim)


def _is_cheap(x: TensorBox) -> bool:
    content = x.content
    if not isinstance(content, Loops):
        return True
    return cost([content.value]) <= FUSED_COST and len(loads([content.value])) <= FUSED_LOADS


def _feeds_loops(ctx: GraphLowering) -> bool:
    return all(user.op == "call_function" and not always_whole(user.target) for user in ctx.node.users)


def _chosen(ctx: GraphLowering, pieces: Sequence[TensorBox], dim: int) -> TensorBox:
    d, dtype = ctx.dag, compute_dtype(ctx.out_dtype)

    def value(i: tuple[Expr, ...]) -> Node:
        start = ZERO
        parts: list[tuple[Node, Node]] = []
        for x in pieces:
            end = start + x.size[dim]
            inside = between(ctx, i[dim], start, end)
            own = [*i[:dim], ZERO if x.size[dim] == ONE else i[dim] - start, *i[dim + 1 :]]
            parts.append((between(ctx, i[dim], 0, end), d.mask(d.to_dtype(x.load(d, own), dtype), inside)))
            start = end
        result = parts[-1][1]
        for before_end, part in reversed(parts[:-1]):
            result = where(before_end, part, result)
        return result

    return ctx.pointwise(ctx.out_size, ctx.out_dtype, value)


def _in_place(ctx: GraphLowering, pieces: Sequence[TensorBox], dim: int) -> TensorBox:
    size, dtype = ctx.out_size, ctx.out_dtype
    device = ctx.graph.device
    layout = TensorSpec(dtype, size, ctx.exprs(ctx.example.stride()), device=device)
    if not layout.is_dense:
        layout = tensor_spec(dtype, size, device=device)
    buffer = ctx.graph.new_buffer(layout)
    ctx.graph.add_operation(ConcatKernel(ctx.graph.operation_name(), buffer, origins=[ctx.origin]))
    start = ZERO
    for x in pieces:
        offset = layout.offset + start * layout.strides[dim]
        part = TensorSpec(dtype, x.size, layout.strides, offset, device)
        ctx.graph.realize_into(x, part, buffer.name)
        start = start + x.size[dim]
    return TensorBox.of(buffer)


@lowers(aten.constant_pad_nd.default)
def constant_pad_nd(
    ctx: GraphLowering, x: TensorBox, pad: Sequence[ExprLike], value: Scalar = 0
) -> TensorBox:
    """A border of ``value``; negative widths cut. ``pad`` counts from the last dimension: before, after,
    ..."""
    d, dtype = ctx.dag, compute_dtype(x.dtype)
    before = [ZERO] * x.ndim
    for k in range(len(pad) // 2):
        before[x.ndim - 1 - k] = as_expr(pad[2 * k])

    def element(i: tuple[Expr, ...]) -> Node:
        own = [index - b for index, b in zip(i, before)]
        inside = d.constant(True, torch.bool)
        for e, n in zip(own, x.size):
            inside = inside & between(ctx, e, 0, n)
        own = [ZERO if n == ONE else e for e, n in zip(own, x.size)]
        return where(inside, d.mask(x.load(d, own), inside), number(ctx, value, dtype))

    return ctx.pointwise(ctx.out_size, x.dtype, element)


@lowers(aten.flip.default)
def flip(ctx: GraphLowering, x: TensorBox, dims: Sequence[int]) -> TensorBox:
    """Some dimensions backwards."""
    chosen = {d % x.ndim for d in dims} if x.ndim else set()

    def element(i: tuple[Expr, ...]) -> Node:
        own = [n - 1 - e if d in chosen and n != ONE else e for d, (e, n) in enumerate(zip(i, x.size))]
        return x.load(ctx.dag, own)

    return ctx.pointwise(x.size, x.dtype, element)


@lowers(aten.slice_scatter.default)
def slice_scatter(
    ctx: GraphLowering,
    x: TensorBox,
    source: TensorBox,
    dim: int = 0,
    start: ExprLike | None = None,
    end: ExprLike | None = None,
    step: int = 1,
) -> TensorBox:
    """x with ``source`` in place of one of its slices."""
    keep_strides(ctx)
    d = ctx.dag
    dim %= x.ndim
    first = clamped(start, x.size[dim], 0)
    length = source.size[dim]
    if first == ZERO and step == 1 and length == x.size[dim]:
        return copied(ctx, source, x.dtype)

    def element(i: tuple[Expr, ...]) -> Node:
        distance = i[dim] - first
        inside = between(ctx, distance, 0, (length - 1) * step + 1)
        if step != 1:
            inside = inside & d.index_expr(distance % step).eq(0)
        own = [*i[:dim], ZERO if length == ONE else distance // step, *i[dim + 1 :]]
        new = d.mask(d.to_dtype(source.load(d, own), compute_dtype(x.dtype)), inside)
        return where(inside, new, x.load(d, i))

    return ctx.pointwise(x.size, x.dtype, element)


@lowers(aten.select_scatter.default)
def select_scatter(
    ctx: GraphLowering, x: TensorBox, source: TensorBox, dim: int, index: ExprLike
) -> TensorBox:
    """x with ``source`` in place of one element of a dimension."""
    keep_strides(ctx)
    d = ctx.dag
    dim %= x.ndim
    at = position(ctx, index, x.size[dim])

    def element(i: tuple[Expr, ...]) -> Node:
        here = d.index_expr(i[dim]).eq(d.index_expr(at))
        own = [*i[:dim], *i[dim + 1 :]]
        new = d.mask(d.to_dtype(source.load(d, own), compute_dtype(x.dtype)), here)
        return where(here, new, x.load(d, i))

    return ctx.pointwise(x.size, x.dtype, element)


@lowers(aten.repeat.default)
def repeat(ctx: GraphLowering, x: TensorBox, repeats: Sequence[ExprLike]) -> TensorBox:
    """x laid out side by side."""
    lead = len(repeats) - x.ndim

    def element(i: tuple[Expr, ...]) -> Node:
        return x.load(ctx.dag, [i[d + lead] % n if n != ONE else ZERO for d, n in enumerate(x.size)])

    return ctx.pointwise(ctx.out_size, x.dtype, element)


@lowers(aten.diagonal_scatter.default)
def diagonal_scatter(
    ctx: GraphLowering, x: TensorBox, source: TensorBox, offset: int = 0, dim1: int = 0, dim2: int = 1
) -> TensorBox:
    """x with ``source`` in place of a diagonal of two dimensions."""
    keep_strides(ctx)
    d = ctx.dag
    dim1, dim2 = dim1 % x.ndim, dim2 % x.ndim
    first, second = (0, offset) if offset >= 0 else (-offset, 0)

    def element(i: tuple[Expr, ...]) -> Node:
        along = i[dim1] - first
        on = d.index_expr(along).eq(d.index_expr(i[dim2] - second))
        on = on & between(ctx, along, 0, source.size[-1])
        own = [e for k, e in enumerate(i) if k not in (dim1, dim2)]
        own.append(ZERO if source.size[-1] == ONE else along)
        new = d.mask(d.to_dtype(source.load(d, own), compute_dtype(x.dtype)), on)
        return where(on, new, x.load(d, i))

    return ctx.pointwise(x.size, x.dtype, element)
