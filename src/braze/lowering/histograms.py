"""Histograms: the bin of each element, and what is counted there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from braze.errors import Refused
from braze.ir.boxes import TensorBox
from braze.ir.views import View
from braze.lowering.casts import held
from braze.lowering.reductions import reduced
from braze.lowering.registry import lowers
from braze.lowering.scatter import accumulated
from braze.lowering.search import insertion
from braze.ops.dag import Node
from braze.ops.dtypes import compute_dtype
from braze.ops.functions import isinf, isnan, maximum, minimum, where
from braze.runtime.expr import ONE, Expr, as_expr, known_positive

if TYPE_CHECKING:
    from braze.lowering.graph import GraphLowering

aten = torch.ops.aten


@dataclass(frozen=True)
class _Axis:
    """The bins along one coordinate: their number; the lowest and the highest edge; ``edge(k)``, for a value
    or an index; ``place``: the number of the bin of a value that lies between them, the last edge being one
    behind the last bin."""

    bins: int
    low: Node
    high: Node
    edge: Callable[[Node | Expr], Node]
    place: Callable[[Node], Node]


class _Points:
    """Elements as points: ``x`` of shape (points, coordinates), their ``weight`` if they have one."""

    def __init__(
        self, ctx: GraphLowering, x: TensorBox, coordinates: Expr, weight: TensorBox | None = None
    ) -> None:
        count = x.numel if coordinates == ONE else x.numel // coordinates
        self.ctx, self.dtype = ctx, x.dtype
        self.x = ctx.graph.view(x, View((count, coordinates), x.size))
        self.weight = None if weight is None else ctx.graph.view(weight, View((count,), weight.size))
        self.count = count

    def coordinate(self, point: Expr, axis: int) -> Node:
        """As the tensor holds it: it is compared with edges."""
        return held(self.ctx, self.x.load(self.ctx.dag, [point, as_expr(axis)]), self.dtype)

    # -- bins of one width ------------------------------------------------------------------------------
    def even(self, axis: int, bins: int, span: tuple[float, float] | None, exact: bool, who: str) -> _Axis:
        """``bins`` bins of one width over ``span``, or over what the coordinate covers. ``exact``: an element
        is compared with the edges that its place by division is between."""
        d, dtype = self.ctx.dag, self.dtype
        low, high = self._given(span) if span is not None else self._covered(axis, who)
        same = low.eq(high)
        low, high = where(same, self._rounded(low - 0.5), low), where(same, self._rounded(high + 0.5), high)
        width = self._rounded(high - low)
        step = self._rounded(width / bins)

        def edge(k: Node | Expr) -> Node:
            number = d.index_expr(k) if isinstance(k, Expr) else k
            up = low + d.to_dtype(number, low.dtype) * step
            down = high - d.to_dtype(bins - number, low.dtype) * step
            return self._rounded(where(number < (bins + 1) // 2, up, down))

        def place(v: Node) -> Node:
            share = self._rounded(self._rounded(self._rounded(v - low) * bins) / width)
            number = minimum(maximum(d.to_dtype(share, torch.int64), 0), bins)
            if not exact:
                return number
            first = maximum(number - 1, 0)
            found = first - 1
            for near in (first, first + 1, first + 2):
                here = (near <= minimum(number + 1, bins)) & (edge(near) <= v)
                found = found + d.to_dtype(here, torch.int64)
            return found

        assert low.dtype is compute_dtype(dtype)
        return _Axis(bins, low, high, edge, place)

    def _rounded(self, v: Node) -> Node:
        return held(self.ctx, v, self.dtype)

    def _given(self, span: tuple[float, float]) -> tuple[Node, Node]:
        d, compute = self.ctx.dag, compute_dtype(self.dtype)
        low, high = (self._rounded(d.constant(float(v), compute)) for v in span)
        return low, high

    def _covered(self, axis: int, who: str) -> tuple[Node, Node]:
        ctx, d = self.ctx, self.ctx.dag
        if self.count.constant == 0:
            return self._given((0, 1))
        if not known_positive(self.count):
            raise Refused("the range of elements of which there may be none")
        ends = []
        for kind in ("min", "max"):
            box = reduced(
                ctx, kind, self.dtype, (), (self.count,), lambda i, r: [self.coordinate(r[0], axis)]
            )
            end = held(ctx, box.load(d, []), self.dtype)
            finite = ~(isnan(end) | isinf(end))
            ends.append(d.check(end, finite, ctx.check(RuntimeError, f"{who} is not finite")))
        return ends[0], ends[1]

    # -- bins between given edges -----------------------------------------------------------------------
    def between(self, edges: TensorBox) -> _Axis:
        """The bins between the elements of a row that rises."""
        d, count = self.ctx.dag, edges.size[0].constant
        if count is None or count < 2:
            raise Refused("bins of which the number is not known, or is 0")

        def edge(k: Node | Expr) -> Node:
            at = k if isinstance(k, Expr) else d.indirect(k, edges.size[0])
            return edges.load(d, [at])

        def place(v: Node) -> Node:
            return insertion(self.ctx, edges, [], v, True, v.dtype) - 1

        return _Axis(count - 1, edge(as_expr(0)), edge(as_expr(count - 1)), edge, place)

    # -- counting ---------------------------------------------------------------------------------------
    def counted(self, axes: Sequence[_Axis], density: bool) -> TensorBox:
        """The number, or the weight, of the points in each bin; ``density``: as a part of all, for each unit
        of a bin's size."""
        ctx, d = self.ctx, self.ctx.dag
        size = tuple(as_expr(axis.bins) for axis in axes)
        none = ctx.pointwise(size, self.dtype, lambda i: d.constant(0, compute_dtype(self.dtype)))

        def positions(i: Sequence[Expr]) -> list[Expr]:
            found = []
            for k, axis in enumerate(axes):
                bin = axis.place(self.coordinate(i[0], k))
                found.append(d.indirect(minimum(maximum(bin, 0), axis.bins - 1), as_expr(axis.bins)))
            return found

        def value(i: Sequence[Expr], dtype: torch.dtype) -> Node:
            inside: Node = d.constant(True, torch.bool)
            for k, axis in enumerate(axes):
                v = self.coordinate(i[0], k)
                inside = inside & (v >= axis.low) & (v <= axis.high)
            own = d.constant(1, dtype) if self.weight is None else d.to_dtype(self.weight.load(d, i), dtype)
            return where(inside, own, 0)

        hist = accumulated(ctx, none, (self.count,), positions, value)
        if not density:
            return hist
        total = reduced(ctx, "sum", self.dtype, (), size, lambda i, r: [hist.load(d, r)])

        def share(i: tuple[Expr, ...]) -> Node:
            v = hist.load(d, i) / total.load(d, [])
            for k, axis in zip(i, axes, strict=True):
                v = v / (axis.edge(k + 1) - axis.edge(k))
            return v

        return ctx.pointwise(size, self.dtype, share)

    def edges(self, axis: _Axis) -> TensorBox:
        """The edges of an axis as a tensor."""
        return self.ctx.pointwise((as_expr(axis.bins + 1),), self.dtype, lambda i: axis.edge(i[0]))


@lowers(aten.histc.default)
def histc(ctx: GraphLowering, x: TensorBox, bins: int = 100, min: float = 0, max: float = 0) -> TensorBox:
    """The number of elements in each of ``bins`` bins between two numbers, or over the range of x."""
    points = _Points(ctx, x, ONE)
    span = (min, max) if min != max or points.count.constant == 0 else None
    return points.counted([points.even(0, bins, span, False, "torch.histc: range of elements")], False)


@lowers(aten.histogram.bin_ct)
def histogram(
    ctx: GraphLowering,
    x: TensorBox,
    bins: int = 100,
    *,
    range: Sequence[float] | None = None,
    weight: TensorBox | None = None,
    density: bool = False,
) -> tuple[TensorBox, TensorBox]:
    """Counts or weights in bins of one width, and the edges of these."""
    points = _Points(ctx, x, ONE, weight)
    axis = points.even(0, bins, _span(range, 0), True, "torch.histogramdd: dimension 0's range")
    return points.counted([axis], density), points.edges(axis)


@lowers(aten.histogram.bins_tensor)
def histogram_between(
    ctx: GraphLowering,
    x: TensorBox,
    bins: TensorBox,
    *,
    weight: TensorBox | None = None,
    density: bool = False,
) -> tuple[TensorBox, TensorBox]:
    """Counts or weights between given edges, and a copy of these."""
    points = _Points(ctx, x, ONE, weight)
    axis = points.between(bins)
    return points.counted([axis], density), points.edges(axis)


@lowers(aten._histogramdd_bin_edges.default)
def histogramdd_edges(
    ctx: GraphLowering,
    x: TensorBox,
    bins: Sequence[int],
    *,
    range: Sequence[float] | None = None,
    weight: TensorBox | None = None,
    density: bool = False,
) -> list[TensorBox]:
    """The edges of the bins along each coordinate."""
    points = _Points(ctx, x, x.size[-1], weight)
    return [points.edges(axis) for axis in _grid(points, bins, range)]


@lowers(aten._histogramdd_from_bin_cts.default)
def histogramdd(
    ctx: GraphLowering,
    x: TensorBox,
    bins: Sequence[int],
    *,
    range: Sequence[float] | None = None,
    weight: TensorBox | None = None,
    density: bool = False,
) -> TensorBox:
    """Counts or weights of points in a grid of bins."""
    points = _Points(ctx, x, x.size[-1], weight)
    return points.counted(_grid(points, bins, range), density)


@lowers(aten._histogramdd_from_bin_tensors.default)
def histogramdd_between(
    ctx: GraphLowering,
    x: TensorBox,
    bins: Sequence[TensorBox],
    *,
    weight: TensorBox | None = None,
    density: bool = False,
) -> TensorBox:
    """Counts or weights of points between given edges."""
    points = _Points(ctx, x, x.size[-1], weight)
    return points.counted([points.between(edges) for edges in bins], density)


def _grid(points: _Points, bins: Sequence[int], ends: Sequence[float] | None) -> list[_Axis]:
    return [
        points.even(k, count, _span(ends, k), True, f"torch.histogramdd: dimension {k}'s range")
        for k, count in enumerate(bins)
    ]


def _span(ends: Sequence[float] | None, axis: int) -> tuple[float, float] | None:
    return None if ends is None else (ends[2 * axis], ends[2 * axis + 1])
