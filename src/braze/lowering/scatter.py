"""Writing to places that an index tensor chooses along one dimension, and what all such operators share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from braze.errors import Refused
from braze.ir.boxes import StorageBox, TensorBox
from braze.ir.loops import Scatter, Sizes, loop_indices
from braze.ir.views import View
from braze.lowering.casts import copied
from braze.lowering.indexing import along
from braze.lowering.promotion import Operand, operand
from braze.lowering.registry import lowers
from braze.ops.dag import Node
from braze.ops.dtypes import compute_dtype, is_float
from braze.ops.functions import where
from braze.ops.scalar import greatest, least
from braze.runtime.expr import ONE, Expr

if TYPE_CHECKING:
    from braze.lowering.graph import GraphLowering

aten = torch.ops.aten

Positions = Callable[[Sequence[Expr]], list[Expr]]
Element = Callable[[Sequence[Expr], torch.dtype], Node]

_MODES: Mapping[str, str] = {
    "sum": "atomic_add",
    "prod": "atomic_mul",
    "amax": "atomic_max",
    "amin": "atomic_min",
}
_OF_BOOLEANS: Mapping[str, str] = {**_MODES, "sum": "atomic_max", "prod": "atomic_min"}
"""A sum of booleans is whether one of them holds, a product whether all do."""


def reduction_start(kind: str, dtype: torch.dtype) -> float:
    """What a reduction begins with that has seen nothing."""
    if kind == "amax":
        return False if dtype is torch.bool else least(dtype)
    if kind == "amin":
        return True if dtype is torch.bool else greatest(dtype)
    return float(kind == "prod")


def scattered(
    ctx: GraphLowering, x: TensorBox, size: Sizes, positions: Positions, value: Element
) -> TensorBox:
    """A copy of x with ``value(indices, type)`` written at ``positions(indices)`` for all of ``size``."""
    if any(n.constant == 0 for n in size):
        return copied(ctx, x)
    target = owned(ctx, copied(ctx, x))
    return written_into(ctx, target, size, positions, value(loop_indices(size), x.dtype), "set")


def accumulated(
    ctx: GraphLowering,
    x: TensorBox,
    size: Sizes,
    positions: Positions,
    value: Element,
    kind: str = "sum",
    *,
    include_self: bool = True,
) -> TensorBox:
    """A copy of x in which each element is the sum, prod, mean, amax or amin (``kind``) of itself, if
    ``include_self``, and of ``value(indices, type)`` for all ``indices`` below ``size`` whose
    ``positions(indices)`` it is. Without any it stays.

    Half types are collected in float32 and rounded once.
    """
    if any(n.constant == 0 for n in size):
        return copied(ctx, x)
    wide = compute_dtype(x.dtype)
    mean = kind == "mean"
    step = "sum" if mean else kind
    indices = loop_indices(size)
    total = owned(ctx, copied(ctx, x, wide))
    if not include_self:
        start = ctx.dag.constant(reduction_start(step, wide), wide)
        total = written_into(ctx, total, size, positions, start, "set")
    modes = _OF_BOOLEANS if wide is torch.bool else _MODES
    total = written_into(ctx, total, size, positions, value(indices, wide), modes[step])
    if mean:
        total = _divided(ctx, total, size, positions, include_self)
    return total if wide is x.dtype else copied(ctx, total, x.dtype)


def _divided(
    ctx: GraphLowering, total: TensorBox, size: Sizes, positions: Positions, include_self: bool
) -> TensorBox:
    """``total`` divided by the number of elements in each sum, which is counted in its own type, as in
    eager; integers are rounded down."""
    d, dtype = ctx.dag, total.dtype
    none = ctx.pointwise(total.size, dtype, lambda i: d.constant(float(include_self), dtype))
    count = written_into(ctx, owned(ctx, none), size, positions, d.constant(1, dtype), "atomic_add")

    def quotient(i: Sequence[Expr]) -> Node:
        n = count.load(d, i)
        n, own = where(n.eq(0), n.like(1), n), total.load(d, i)
        return own / n if is_float(dtype) else d.op("floordiv", own, n)

    return ctx.pointwise(total.size, dtype, quotient)


def owned(ctx: GraphLowering, x: TensorBox) -> TensorBox:
    """Memory of its own, laid out like the current node's result, if it has its dimensions."""
    example = ctx.example
    fits = isinstance(example, torch.Tensor) and example.dim() == x.ndim
    if fits and isinstance(x.data, StorageBox):
        x.data.stride_hint = ctx.exprs(example.stride())
    return x


def written_into(
    ctx: GraphLowering,
    target: TensorBox,
    size: Sizes,
    positions: Positions,
    value: Node,
    mode: str,
    mask: Node | None = None,
) -> TensorBox:
    """``target``, overwritten: ``value`` stored, or joined to what is there, at ``positions``, where ``mask``
    holds."""
    ref = ctx.graph.ref(target)
    place = ref.layout.index(positions(loop_indices(size)))
    loops = Scatter(target.dtype, size, value, place, mode, mask)
    return TensorBox.of(ctx.graph.scatter_into(loops, ref.layout, ref.buffer.storage))


def at_least_1d(ctx: GraphLowering, x: TensorBox) -> TensorBox:
    """x; a number as a row of one."""
    return x if x.ndim else ctx.graph.view(x, View((ONE,), ()))


def shaped_like(ctx: GraphLowering, result: TensorBox, x: TensorBox) -> TensorBox:
    """A result made of what `at_least_1d` gave for x, with x's dimensions."""
    return result if x.ndim else ctx.graph.view(result, View((), (ONE,)))


@lowers(aten.scatter.src, aten.scatter.value)
def scatter(ctx: GraphLowering, x: TensorBox, dim: int, index: TensorBox, source: Operand) -> TensorBox:
    """x with ``source`` written where ``index`` says along one dimension."""
    return _along(ctx, x, dim, index, source, None)


@lowers(aten.scatter_add.default)
def scatter_add(ctx: GraphLowering, x: TensorBox, dim: int, index: TensorBox, source: TensorBox) -> TensorBox:
    """x with ``source`` added where ``index`` says along one dimension."""
    return _along(ctx, x, dim, index, source, "sum")


@lowers(aten.scatter.reduce, aten.scatter.value_reduce)
def scatter_by(
    ctx: GraphLowering, x: TensorBox, dim: int, index: TensorBox, source: Operand, *, reduce: str
) -> TensorBox:
    """x with ``source`` added, or multiplied by it, where ``index`` says."""
    kinds = {"add": "sum", "multiply": "prod"}
    if reduce not in kinds:
        raise Refused(f"a scatter that combines by {reduce}")
    return _along(ctx, x, dim, index, source, kinds[reduce])


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
    """x combined with ``source`` where ``index`` says, with or without the old value."""
    return _along(ctx, x, dim, index, source, reduce, include_self=include_self)


def _along(
    ctx: GraphLowering,
    x: TensorBox,
    dim: int,
    index: TensorBox,
    source: Operand,
    kind: str | None,
    *,
    include_self: bool = True,
) -> TensorBox:
    target, index = at_least_1d(ctx, x), at_least_1d(ctx, index)
    if isinstance(source, TensorBox):
        source = at_least_1d(ctx, source)

    def value(i: Sequence[Expr], dtype: torch.dtype) -> Node:
        if isinstance(source, TensorBox):  # may be larger than the index: no broadcasting
            return ctx.dag.to_dtype(source.load(ctx.dag, i), compute_dtype(dtype))
        return operand(ctx, source, i, index.size, dtype)

    positions = along(ctx, index, dim % target.ndim, target.size)
    if kind is None:
        result = scattered(ctx, target, index.size, positions, value)
    else:
        result = accumulated(ctx, target, index.size, positions, value, kind, include_self=include_self)
    return shaped_like(ctx, result, x)
