"""Distances between rows, by every norm.

A file of its own: each family of operators has one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from braze.errors import Refused
from braze.ir.boxes import TensorBox
from braze.ir.loops import Sizes
from braze.lowering.reductions import reduced
from braze.lowering.registry import lowers
from braze.ops.dag import Node
from braze.ops.functions import ceil, maximum, minimum, sqrt, where
from braze.runtime.expr import Expr

if TYPE_CHECKING:
    from braze.lowering.graph import GraphLowering

aten = torch.ops.aten

Pair = Callable[[Sequence[Expr], Expr], tuple[Node, Node]]
"""The coordinates of the two rows whose distance an element of the result is, by its indices and the number
of the coordinate."""


def _distances(
    ctx: GraphLowering, p: float, dtype: torch.dtype, size: Sizes, width: Expr, pair: Pair
) -> TensorBox:
    """The ``p``-norm of the differences of rows of ``width``; the 0-norm counts those that are not 0."""
    if width.constant in (None, 0):
        raise Refused("distances between rows whose width is not known, or is 0")

    def term(i: tuple[Expr, ...], r: tuple[Expr, ...]) -> list[Node]:
        one, other = pair(i, r[0])
        apart = abs(one - other)
        if p == 0:
            return [minimum(ceil(apart), 1)]
        if p == 2:
            return [apart * apart]
        return [apart if p in (1, math.inf) else apart**p]

    total = reduced(ctx, "max" if p == math.inf else "sum", dtype, size, (width,), term)
    if p in (0, 1, math.inf):
        return total
    return ctx.pointwise(
        size, dtype, lambda i: sqrt(total.load(ctx.dag, i)) if p == 2 else total.load(ctx.dag, i) ** (1 / p)
    )


@lowers(aten._cdist_forward.default)
def cdist(ctx: GraphLowering, a: TensorBox, b: TensorBox, p: float, mode: Any = None) -> TensorBox:
    """Distances between the rows of a and those of b."""
    size, width = ctx.out_size, a.size[-1]

    def pair(i: Sequence[Expr], r: Expr) -> tuple[Node, Node]:
        lead = i[:-2]
        one = ctx.broadcast_load(a, [*lead, i[-2], r], [*size[:-2], size[-2], width])
        other = ctx.broadcast_load(b, [*lead, i[-1], r], [*size[:-2], size[-1], width])
        return one, other

    return _distances(ctx, p, a.dtype, size, width, pair)


@lowers(aten._pdist_forward.default)
def pdist(ctx: GraphLowering, x: TensorBox, p: float = 2) -> TensorBox:
    """Distances between each row and those after it, one row after another."""
    rows, width = x.size
    if rows.constant in (0, 1):
        return ctx.pointwise(ctx.out_size, x.dtype, lambda i: ctx.dag.constant(0, x.dtype))

    def pair(i: Sequence[Expr], r: Expr) -> tuple[Node, Node]:
        d, (first, second) = ctx.dag, _rows_of(ctx, i[0], rows)
        return x.load(d, [first, r]), x.load(d, [second, r])

    return _distances(ctx, p, x.dtype, ctx.out_size, width, pair)


def _rows_of(ctx: GraphLowering, k: Expr, rows: Expr) -> tuple[Expr, Expr]:
    """The two rows whose distance stands at ``k``: first is the greatest row that has no more than k
    distances before its own, of which row i has i * (2 * rows - i - 1) / 2."""
    d = ctx.dag
    at, n = d.index_expr(k), d.index_expr(rows)

    def before(i: Node) -> Node:
        return (i * (n * 2 - i - 1)) >> 1

    middle = d.to_dtype(n, torch.float64) - 0.5
    root = sqrt(maximum(middle * middle - d.to_dtype(at, torch.float64) * 2, 0))
    first = maximum(minimum(d.to_dtype(middle - root, torch.int64), n - 2), 0)
    first = where(before(first) > at, first - 1, first)  # the root is rounded
    first = where(before(first + 1) <= at, first + 1, first)
    second = at - before(first) + first + 1
    return d.indirect(first, rows), d.indirect(second, rows)


@lowers(aten._pdist_backward.default)
def pdist_backward(
    ctx: GraphLowering, grad: TensorBox, x: TensorBox, p: float, distances: TensorBox
) -> TensorBox:
    """The gradient of each row: a sum over the distances to all others."""
    d, (rows, width) = ctx.dag, x.size
    if any(n.constant in (None, 0) for n in (rows, width)) or rows.constant == 1 or p == 0:
        return ctx.pointwise(x.size, x.dtype, lambda i: d.constant(0, x.dtype))

    def term(i: tuple[Expr, ...], r: tuple[Expr, ...]) -> list[Node]:
        own, other = d.index_expr(i[0]), d.index_expr(r[0])
        low, high = minimum(own, other), maximum(own, other)
        n = d.index_expr(rows)
        same = own.eq(other)
        at = ((low * (n * 2 - low - 1)) >> 1) + high - low - 1
        place = d.indirect(where(same, 0, at), grad.size[0])
        apart = x.load(d, i) - x.load(d, [r[0], i[1]])
        share = _slope(p, apart, distances.load(d, [place])) * grad.load(d, [place])
        return [where(same, 0, share)]

    return reduced(ctx, "sum", x.dtype, x.size, (rows,), term)


def _slope(p: float, apart: Node, distance: Node) -> Node:
    """How a distance changes with a difference; 0 where it does not smoothly."""
    sign = where(apart < 0, -1, where(apart > 0, apart.like(1), 0))
    if p == 1:
        return sign
    if p == math.inf:
        return sign * where(abs(apart).eq(distance), apart.like(1), 0)
    if p == 2:
        slope = apart / distance
    elif p < 2:
        slope = sign * abs(apart) ** (p - 1) / distance ** (p - 1)
        if p < 1:
            slope = where(apart.eq(0), 0, slope)
    else:
        slope = apart * abs(apart) ** (p - 2) / distance ** (p - 1)
    return where(distance.eq(0), 0, slope)
