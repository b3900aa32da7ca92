"""Searching sorted boundaries, and finding or filling the places of a mask one after the other."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from braze.errors import Refused
from braze.ir.boxes import TensorBox
from braze.ir.loops import loop_indices
from braze.ir.views import View
from braze.lowering.casts import held
from braze.lowering.indexing import checked
from braze.lowering.promotion import Operand, nonzero, operand, result_type
from braze.lowering.reductions import reduced
from braze.lowering.registry import lowers
from braze.lowering.scan import running_count
from braze.lowering.scatter import owned, written_into
from braze.ops.dag import Node
from braze.ops.dtypes import compute_dtype
from braze.ops.functions import maximum, minimum, sqrt, where
from braze.runtime.expr import Expr, as_expr, known_positive, product

if TYPE_CHECKING:
    from braze.lowering.graph import GraphLowering

aten = torch.ops.aten

MOST_STEPS = 24
"""Steps of a binary search that are written out: enough for 16 million boundaries."""


def insertion(
    ctx: GraphLowering,
    boundaries: TensorBox,
    lead: Sequence[Expr],
    value: Node,
    right: bool,
    compute: torch.dtype,
) -> Node:
    """The place of ``value`` in ``boundaries`` (along their last dimension): a binary search without
    branches.

    It asks what eager's search asks, of the same boundaries, so that NaN and boundaries that are not sorted
    give the same places: always the middle one, and on to the right of what is not >= (``right``: not >) the
    value.
    """
    d = ctx.dag
    count = boundaries.size[-1].constant
    if count is None or count == 0 or count.bit_length() > MOST_STEPS:
        raise Refused("a search among boundaries whose number is not known, or is 0")
    start, end = d.constant(0, torch.int64), d.constant(count, torch.int64)
    for _ in range(count.bit_length()):
        middle = start + ((end - start) >> 1)
        place = d.indirect(minimum(middle, count - 1), boundaries.size[-1])
        boundary = d.to_dtype(held(ctx, boundaries.load(d, [*lead, place]), boundaries.dtype), compute)
        left = boundary > value if right else boundary >= value
        some = start < end
        start = where(some & ~left, middle + 1, start)
        end = where(some & left, middle, end)
    return start


@lowers(aten.bucketize.Tensor, aten.bucketize.Scalar)
def bucketize(
    ctx: GraphLowering, x: Operand, boundaries: TensorBox, *, out_int32: bool = False, right: bool = False
) -> TensorBox:
    """The number of boundaries below each element (``right``: not above it)."""
    return _searched(ctx, boundaries, x, right)


@lowers(aten.searchsorted.Tensor, aten.searchsorted.Scalar)
def searchsorted(
    ctx: GraphLowering,
    boundaries: TensorBox,
    x: Operand,
    *,
    out_int32: bool = False,
    right: bool = False,
    side: str | None = None,
    sorter: TensorBox | None = None,
) -> TensorBox:
    """The same, with one row of boundaries for all of x or one for each of its rows."""
    if sorter is not None:
        raise Refused("a search through a sorting permutation")
    return _searched(ctx, boundaries, x, right or side == "right")


def _searched(ctx: GraphLowering, boundaries: TensorBox, x: Operand, right: bool) -> TensorBox:
    size = ctx.out_size
    compute = result_type(boundaries, x)
    if compute is torch.bool:
        raise Refused("a search among booleans")

    def value(i: tuple[Expr, ...]) -> Node:
        lead = i[:-1] if boundaries.ndim > 1 else ()
        wide = operand(ctx, x, i, size, compute, exact=True)
        return insertion(ctx, boundaries, lead, wide, right, wide.dtype)

    return ctx.pointwise(size, ctx.out_dtype, value)


@lowers(aten.masked_scatter.default)
def masked_scatter(ctx: GraphLowering, x: TensorBox, mask: TensorBox, source: TensorBox) -> TensorBox:
    """x with the elements of ``source``, in order, where the mask holds."""
    d, size = ctx.dag, ctx.out_size
    places = running_count(
        ctx, ctx.pointwise(size, torch.bool, lambda i: nonzero(ctx.broadcast_load(mask, i, size)))
    )
    values = ctx.graph.view(source, View((source.numel,), source.size))

    def value(i: tuple[Expr, ...]) -> Node:
        holds = ctx.broadcast_load(mask, i, size)
        place = checked(ctx, places.load(d, i) - 1, source.numel, wrap=False, error=RuntimeError)
        old = ctx.broadcast_load(x, i, size)
        return where(holds, d.mask(values.load(d, [place]), holds), old)

    return ctx.pointwise(size, x.dtype, value)


@lowers(aten.masked_scatter_backward.default)
def masked_scatter_backward(
    ctx: GraphLowering, grad: TensorBox, mask: TensorBox, sizes: Sequence[Any]
) -> TensorBox:
    """The gradient of a masked scatter's source: the elements where the mask holds, in order, then zeros."""
    d, size, out = ctx.dag, grad.size, ctx.exprs(sizes)
    none = ctx.pointwise((product(out),), grad.dtype, lambda i: d.constant(0, compute_dtype(grad.dtype)))
    flat = owned(ctx, none)
    if all(n.constant != 0 for n in (*size, *out)):
        holds = ctx.pointwise(size, torch.bool, lambda i: nonzero(ctx.broadcast_load(mask, i, size)))
        counts, at = running_count(ctx, holds), loop_indices(size)
        number, last = counts.load(d, at) - 1, d.index_expr(flat.numel - 1)
        place = d.indirect(maximum(minimum(number, last), 0), flat.numel)
        wanted = holds.load(d, at) & (number <= last)
        value = d.to_dtype(grad.load(d, at), grad.dtype)
        flat = written_into(ctx, flat, size, lambda i: [place], value, "set", wanted)
    return ctx.graph.view(flat, View(out, flat.size))


@lowers(aten.nonzero_static.default)
def nonzero_static(ctx: GraphLowering, x: TensorBox, *, size: Expr | int, fill_value: int = -1) -> TensorBox:
    """The indices of the first ``size`` elements of x that are not 0, in row-major order, one a row."""
    d, rows = ctx.dag, ctx.expr(size)
    none = ctx.pointwise(ctx.out_size, torch.int64, lambda i: d.constant(fill_value, torch.int64))
    if any(n.constant == 0 for n in (*x.size, *ctx.out_size)):
        return none
    if not known_positive(rows):
        raise Refused("indices of which it is not known whether there are any")
    mask = ctx.pointwise(x.size, torch.bool, lambda i: nonzero(held(ctx, x.load(d, i), x.dtype)))
    counts, at = running_count(ctx, mask), loop_indices(x.size)
    number, last = counts.load(d, at) - 1, d.index_expr(rows - 1)
    wanted = mask.load(d, at) & (number <= last)
    row = d.indirect(maximum(minimum(number, last), 0), rows)
    found = owned(ctx, none)
    for dim, index in enumerate(at):
        position = functools.partial(_in_row, row, as_expr(dim))
        found = written_into(ctx, found, x.size, position, d.index_expr(index), "set", wanted)
    return found


def _in_row(row: Expr, column: Expr, indices: Sequence[Expr]) -> list[Expr]:
    return [row, column]


@lowers(aten._cdist_forward.default)
def cdist(ctx: GraphLowering, a: TensorBox, b: TensorBox, p: float, mode: Any = None) -> TensorBox:
    """Distances between the rows of a and those of b: a sum of squares, or of absolute differences, for
    each pair."""
    d, size = ctx.dag, ctx.out_size
    kinds = {1.0: "sum", 2.0: "sum", float("inf"): "max"}
    if p not in kinds or a.size[-1].constant in (None, 0):
        raise Refused(f"distances by the {p}-norm")

    def difference(i: tuple[Expr, ...], r: tuple[Expr, ...]) -> list[Node]:
        lead = i[:-2]
        one = ctx.broadcast_load(a, [*lead, i[-2], r[0]], [*size[:-2], size[-2], a.size[-1]])
        other = ctx.broadcast_load(b, [*lead, i[-1], r[0]], [*size[:-2], size[-1], a.size[-1]])
        distance = one - other
        return [distance * distance if p == 2 else abs(distance)]

    total = reduced(ctx, kinds[p], a.dtype, size, (a.size[-1],), difference)
    if p != 2:
        return total
    return ctx.pointwise(size, a.dtype, lambda i: sqrt(total.load(d, i)))
