"""Reductions of neighbouring slices, whose number is known and whose lengths are not.

A file of its own: each family of operators has one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from braze.errors import Refused
from braze.ir.boxes import TensorBox
from braze.ir.loops import Scan, loop_indices
from braze.lowering.casts import converted, held
from braze.lowering.registry import lowers
from braze.lowering.scatter import accumulated, reduction_start
from braze.lowering.search import insertion
from braze.ops.dag import Node
from braze.ops.dtypes import compute_dtype
from braze.ops.functions import isnan, maximum, minimum, where
from braze.runtime.expr import Expr

if TYPE_CHECKING:
    from braze.lowering.graph import GraphLowering

aten = torch.ops.aten

_KINDS: Mapping[str, str] = {"sum": "sum", "mean": "sum", "prod": "prod", "max": "amax", "min": "amin"}


class _Segments:
    """Rows of segments: ``starts`` and ``ends`` of each, along the last dimension. They are given by their
    lengths or by the offsets at which they start, the last of which is an end."""

    def __init__(self, ctx: GraphLowering, lengths: TensorBox | None, offsets: TensorBox | None) -> None:
        self.ctx = ctx
        given = offsets if lengths is None else lengths
        if given is None:
            raise Refused("segments by indices")
        self.count = given.size[-1] - (1 if lengths is None else 0)
        self.lengths = lengths
        self.bounds = given if lengths is None else self._ends(lengths)

    def _ends(self, lengths: TensorBox) -> TensorBox:
        ctx, d = self.ctx, self.ctx.dag
        wide = ctx.pointwise(lengths.size, torch.int64, lambda i: d.to_dtype(lengths.load(d, i), torch.int64))
        indices = loop_indices(lengths.size)
        along = indices[-1].symbol
        if along is None or any(n.constant == 0 for n in lengths.size):
            return wide
        value = d.scan("sum", wide.load(d, indices), along)
        return ctx.graph.box(Scan(torch.int64, lengths.size, value, lengths.ndim - 1))

    def _bound(self, lead: Sequence[Expr], k: Expr) -> Node:
        d = self.ctx.dag
        return d.to_dtype(self.bounds.load(d, [*lead, k]), torch.int64)

    def end(self, lead: Sequence[Expr], k: Expr) -> Node:
        return self._bound(lead, k if self.lengths is not None else k + 1)

    def length(self, lead: Sequence[Expr], k: Expr) -> Node:
        """How many slices a segment has."""
        if self.lengths is None:
            return self._bound(lead, k + 1) - self._bound(lead, k)
        return self.ctx.dag.to_dtype(self.lengths.load(self.ctx.dag, [*lead, k]), torch.int64)

    def place(self, lead: Sequence[Expr], at: Expr) -> tuple[Node, Expr]:
        """Whether a slice is in a segment, and in which one."""
        d = self.ctx.dag
        behind = insertion(self.ctx, self.bounds, lead, d.index_expr(at), True, torch.int64)
        number = behind if self.lengths is not None else behind - 1
        inside = (number >= 0) & (number < d.index_expr(self.count))
        last = d.index_expr(self.count - 1)
        return inside, d.indirect(maximum(minimum(number, last), 0), self.count)


@lowers(aten.segment_reduce.default)
def segment_reduce(
    ctx: GraphLowering,
    x: TensorBox,
    reduce: str,
    *,
    lengths: TensorBox | None = None,
    indices: TensorBox | None = None,
    offsets: TensorBox | None = None,
    axis: int = 0,
    unsafe: bool = False,
    initial: float | None = None,
) -> TensorBox:
    """Each segment of x along an axis reduced, together with ``initial`` if that is given."""
    if reduce not in _KINDS or indices is not None:
        raise Refused(f"segments reduced by {reduce}")
    d, compute, axis = ctx.dag, compute_dtype(x.dtype), axis % x.ndim
    segments = _Segments(ctx, lengths, offsets)
    kind = _KINDS[reduce]
    size = (*x.size[:axis], segments.count, *x.size[axis + 1 :])
    if any(n.constant == 0 for n in size):
        raise Refused("no segments")
    start = reduction_start(kind, compute)
    first = d.constant(start if initial is None else float(initial), compute)
    begun = ctx.pointwise(size, compute, lambda i: converted(ctx, first, x.dtype))

    def positions(i: Sequence[Expr]) -> list[Expr]:
        return [*i[:axis], segments.place(i[:axis], i[axis])[1], *i[axis + 1 :]]

    def value(i: Sequence[Expr], dtype: torch.dtype) -> Node:
        inside, _ = segments.place(i[:axis], i[axis])
        return where(inside, x.load(d, i), start)

    total = accumulated(ctx, begun, x.size, positions, value, kind)

    def finished(i: tuple[Expr, ...]) -> Node:
        v, lead = total.load(d, i), i[:axis]
        length = segments.length(lead, i[axis])
        if reduce == "mean":
            empty = length.eq(0)
            mean = v / d.to_dtype(where(empty, 1, length), compute)
            v = where(empty, math.nan, mean) if initial is None else mean
        if lengths is None or not unsafe:
            text = "Expected segment_length >= 0" if lengths is None else "lengths contains negative value!"
            v = d.check(v, length >= 0, ctx.check(RuntimeError, text))
        if lengths is not None and not unsafe:
            text = "segment_reduce(): Expected all rows of lengths along axis to sum to data.size"
            whole = segments.end(lead, segments.count - 1).eq(d.index_expr(x.size[axis]))
            v = d.check(v, whole, ctx.check(RuntimeError, text))
        return v

    return ctx.pointwise(size, x.dtype, finished)


@lowers(aten._segment_reduce_backward.default)
def segment_reduce_backward(
    ctx: GraphLowering,
    grad: TensorBox,
    output: TensorBox,
    x: TensorBox,
    reduce: str,
    *,
    lengths: TensorBox | None = None,
    offsets: TensorBox | None = None,
    axis: int = 0,
    initial: float | None = None,
) -> TensorBox:
    """The gradient of each slice, which is that of its segment; 0 outside of all segments."""
    if reduce not in _KINDS or any(n.constant == 0 for n in output.size):
        raise Refused(f"gradients of segments reduced by {reduce}")
    d, compute, axis = ctx.dag, compute_dtype(x.dtype), axis % x.ndim
    segments = _Segments(ctx, lengths, offsets)

    def held_value(i: Sequence[Expr]) -> Node:
        return held(ctx, x.load(d, i), x.dtype)

    def positions(i: Sequence[Expr]) -> list[Expr]:
        return [*i[:axis], segments.place(i[:axis], i[axis])[1], *i[axis + 1 :]]

    def gathered(kind: str, fn: Callable[[Node, Sequence[Expr]], Node]) -> TensorBox:
        """``fn(value, indices)`` of all slices of each segment, reduced."""
        start = reduction_start(kind, compute)
        none = ctx.pointwise(output.size, compute, lambda i: d.constant(start, compute))

        def value(i: Sequence[Expr], dtype: torch.dtype) -> Node:
            return where(segments.place(i[:axis], i[axis])[0], fn(held_value(i), i), start)

        return accumulated(ctx, none, x.size, positions, value, kind)

    def extreme(v: Node, i: Sequence[Expr]) -> Node:
        return isnan(v) | v.eq(held(ctx, output.load(d, positions(i)), output.dtype))

    if reduce in ("max", "min"):
        count = gathered("sum", lambda v, i: d.to_dtype(extreme(v, i), compute))
    elif reduce == "prod":
        nans = gathered("sum", lambda v, i: d.to_dtype(isnan(v), compute))
        zeros = gathered("sum", lambda v, i: d.to_dtype(v.eq(0), compute))
        others = gathered("prod", lambda v, i: where(isnan(v) | v.eq(0), 1, v))

    def without(v: Node, at: Sequence[Expr]) -> Node:
        """The product of a segment without one value, which is 0 or NaN."""
        rest = others.load(d, at) * (1 if initial is None else float(initial))
        rest = where((zeros.load(d, at) - d.to_dtype(v.eq(0), compute)) > 0, rest * 0, rest)
        return where((nans.load(d, at) - d.to_dtype(isnan(v), compute)) > 0, math.nan, rest)

    def value(i: tuple[Expr, ...]) -> Node:
        inside, at = segments.place(i[:axis], i[axis])[0], positions(i)
        g, v = grad.load(d, at), held_value(i)
        if reduce == "mean":
            g = g / d.to_dtype(maximum(segments.length(i[:axis], at[axis]), 1), compute)
        elif reduce in ("max", "min"):
            # eager shares out positive gradients alone
            g = where(extreme(v, i), where(g > 0, g / count.load(d, at), g), 0)
        elif reduce == "prod":
            whole = g * held(ctx, output.load(d, at), output.dtype) / v
            g = where(isnan(v) | v.eq(0), g * without(v, at), whole)
        return where(inside, g, 0)

    return ctx.pointwise(x.size, x.dtype, value)
