"""Elements chosen by index tensors. Every index is checked when the compiled code runs; none is trusted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from braze.errors import Refused
from braze.ir.boxes import TensorBox
from braze.ir.loops import Sizes
from braze.ir.views import View
from braze.lowering.casts import copied
from braze.lowering.registry import lowers
from braze.lowering.tables import known_index
from braze.ops.dag import Node
from braze.ops.dtypes import is_integer
from braze.ops.ranges import value_range
from braze.runtime.expr import ONE, ZERO, Expr, known_positive

if TYPE_CHECKING:
    from braze.lowering.graph import GraphLowering

aten = torch.ops.aten


def require_integers(index: TensorBox) -> None:
    """Raises ``Refused`` for a mask: how many elements it chooses depends on data."""
    if not is_integer(index.dtype) or index.dtype is torch.uint8:
        raise Refused("a mask as an index")


def checked(
    ctx: GraphLowering,
    index: Node,
    size: Expr,
    *,
    wrap: bool,
    error: type[BaseException],
) -> Expr:
    """``index`` as an index into ``size`` elements, checked. Raises ``Refused`` where there may be no
    elements."""
    if not known_positive(size):
        raise Refused("an index into a dimension that may be empty")
    known = known_index(ctx.dag, index, size, wrap=wrap)
    if known is not None:
        return known
    if _fits(index, size):
        return ctx.dag.indirect(index, size)
    return ctx.dag.check_index(index, size, wrap=wrap, error=ctx.check(error))


def _fits(index: Node, size: Expr) -> bool:
    """Whether no value of ``index`` can be outside ``size`` elements, whatever the inputs hold."""
    span, least = value_range(index), size.bounds()[0]
    return span is not None and least is not None and span[0] >= 0 and span[1] < least


@lowers(aten.embedding.default)
def embedding(
    ctx: GraphLowering, weight: TensorBox, indices: TensorBox, *rest: Any, **options: Any
) -> TensorBox:
    """Rows of a table."""

    def value(i: tuple[Expr, ...]) -> Node:
        at = indices.load(ctx.dag, i[: indices.ndim])
        row = checked(ctx, at, weight.size[0], wrap=False, error=IndexError)
        return weight.load(ctx.dag, [row, *i[indices.ndim :]])

    return ctx.pointwise(ctx.out_size, weight.dtype, value)


class AdvancedIndex:
    """``x[indices]`` with tensors and whole dimensions (``None``) mixed: its size, and where its elements lie
    in x.

    Index tensors are broadcast together. The dimensions of the result that they make stand where the first
    of them stood if they are next to each other, else in front.
    """

    def __init__(self, ctx: GraphLowering, size: Sizes, indices: Sequence[TensorBox | None]) -> None:
        self.ctx = ctx
        self.source_size = size
        self.tensors = {d: t for d, t in enumerate(indices) if t is not None}
        if not self.tensors:
            raise Refused("an index without tensors")
        for tensor in self.tensors.values():
            require_integers(tensor)
        self.broadcast = ctx.sizes.broadcast([t.size for t in self.tensors.values()])
        dims = list(self.tensors)
        adjacent = dims == list(range(dims[0], dims[0] + len(dims)))
        self.lead = dims[0] if adjacent else 0
        kept = [s for d, s in enumerate(size) if d not in self.tensors]
        self.size: Sizes = (*kept[: self.lead], *self.broadcast, *kept[self.lead :])

    def positions(self, i: Sequence[Expr]) -> list[Expr]:
        """The indices into x for those of the result."""
        end = self.lead + len(self.broadcast)
        inner = i[self.lead : end]
        rest = iter([*i[: self.lead], *i[end:]])
        result: list[Expr] = []
        for d, size in enumerate(self.source_size):
            tensor = self.tensors.get(d)
            if tensor is None:
                result.append(next(rest))
                continue
            at = self.ctx.broadcast_load(tensor, inner, self.broadcast)
            result.append(checked(self.ctx, at, size, wrap=True, error=IndexError))
        return result


@lowers(aten.index.Tensor)
def index_tensor(ctx: GraphLowering, x: TensorBox, indices: Sequence[TensorBox | None]) -> TensorBox:
    """x[indices]."""
    plan = AdvancedIndex(ctx, x.size, indices)
    return ctx.pointwise(plan.size, x.dtype, lambda i: x.load(ctx.dag, plan.positions(i)))


@lowers(aten.index_select.default)
def index_select(ctx: GraphLowering, x: TensorBox, dim: int, index: TensorBox) -> TensorBox:
    """Elements of one dimension."""
    if x.ndim == 0:  # like a tensor of one element
        x, dim = ctx.graph.view(x, View((ONE,), ())), 0
    dim %= x.ndim

    def value(i: tuple[Expr, ...]) -> Node:
        i = i or (ZERO,)
        at = index.load(ctx.dag, [i[dim]] if index.ndim else [])
        own = checked(ctx, at, x.size[dim], wrap=False, error=IndexError)
        return x.load(ctx.dag, [*i[:dim], own, *i[dim + 1 :]])

    return ctx.pointwise(ctx.out_size, x.dtype, value)


def along(
    ctx: GraphLowering, index: TensorBox, dim: int, size: Sizes
) -> Callable[[Sequence[Expr]], list[Expr]]:
    """The rule of gather and scatter: the indices into a tensor of ``size`` for those of ``index``: the same,
    but along ``dim`` what ``index`` says (checked, negative ones refused)."""
    require_integers(index)

    def positions(i: Sequence[Expr]) -> list[Expr]:
        at = index.load(ctx.dag, i)
        return [*i[:dim], checked(ctx, at, size[dim], wrap=False, error=RuntimeError), *i[dim + 1 :]]

    return positions


@lowers(aten.gather.default)
def gather(
    ctx: GraphLowering, x: TensorBox, dim: int, index: TensorBox, *, sparse_grad: bool = False
) -> TensorBox:
    """x at places that ``index`` chooses along one dimension."""
    if x.ndim == 0 or index.ndim == 0:
        if x.ndim or index.ndim:
            raise Refused("gather between a tensor with and one without dimensions")
        return copied(ctx, x)
    positions = along(ctx, index, dim % x.ndim, x.size)
    return ctx.pointwise(index.size, x.dtype, lambda i: x.load(ctx.dag, positions(i)))
