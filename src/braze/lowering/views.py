"""Views: operators that give a tensor another shape, or its bits another type, and move no element."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

from braze._torch.native import storage_id
from braze.errors import Refused
from braze.ir import views as ir_views
from braze.ir.boxes import ReinterpretView, TensorBox
from braze.ir.views import with_geometry
from braze.lowering.calls import call_fallback
from braze.lowering.registry import lowers
from braze.ops.dag import Node
from braze.ops.dtypes import compute_dtype
from braze.runtime.expr import (
    ONE,
    ZERO,
    Expr,
    ExprLike,
    as_expr,
    floordiv,
    known_less,
    known_nonnegative,
    maximum,
    minimum,
    mod,
)
from braze.runtime.guard import compare

if TYPE_CHECKING:
    from braze.ir.externs import TensorRef
    from braze.lowering.graph import GraphLowering
    from braze.runtime.spec import Layout

aten = torch.ops.aten


@lowers(aten.alias.default)
def same(ctx: GraphLowering, x: TensorBox) -> TensorBox:
    """x itself."""
    return x


@lowers(aten.view.default, aten.reshape.default)
def view(ctx: GraphLowering, x: TensorBox, size: Any) -> TensorBox:
    """The same elements in row-major order under another shape."""
    if ctx.out_size == x.size:
        return x
    return ctx.graph.view(x, ir_views.View(ctx.out_size, x.size))


@lowers(aten.permute.default)
def permute(ctx: GraphLowering, x: TensorBox, dims: Sequence[int]) -> TensorBox:
    """The dimensions in another order."""
    order = tuple(d % x.ndim for d in dims)
    if order == tuple(range(x.ndim)):
        return x
    return ctx.graph.view(x, ir_views.PermuteView(tuple(x.size[d] for d in order), order))


@lowers(aten.expand.default)
def expand(ctx: GraphLowering, x: TensorBox, size: Any, *, implicit: bool = False) -> TensorBox:
    """Dimensions of size 1 repeated without copying."""
    if ctx.out_size == x.size:
        return x
    ctx.store_if_repeated(x, ctx.out_size)
    lead = len(ctx.out_size) - x.ndim
    old = [ONE if ctx.sizes.is_repeated(n, ctx.out_size[d + lead]) else n for d, n in enumerate(x.size)]
    return ctx.graph.view(x, ir_views.ExpandView(ctx.out_size, tuple(old)))


@lowers(aten.squeeze.dims)
def squeeze(ctx: GraphLowering, x: TensorBox, dims: Sequence[int]) -> TensorBox:
    """Without those of the given dimensions that are of size 1."""
    dropped = tuple(sorted({d % x.ndim for d in dims if x.size[d].constant == 1})) if x.ndim else ()
    if x.ndim - len(dropped) != len(ctx.out_size):  # a size that is 1 by what the trace guards
        dropped = tuple(sorted({d % x.ndim for d in dims if ctx.sizes.in_trace(x.size[d]) == 1}))
    if not dropped:
        return x
    size = tuple(s for d, s in enumerate(x.size) if d not in dropped)
    if len(size) != len(ctx.out_size):
        raise Refused("whether a symbolic size is 1 decides the rank")
    return ctx.graph.view(x, ir_views.SqueezeView(size, dropped))


@lowers(aten.unsqueeze.default)
def unsqueeze(ctx: GraphLowering, x: TensorBox, dim: int) -> TensorBox:
    """With a new dimension of size 1."""
    dim %= x.ndim + 1
    return ctx.graph.view(x, ir_views.UnsqueezeView((*x.size[:dim], as_expr(1), *x.size[dim:]), dim))


def clamped(index: ExprLike | None, size: Expr, default: ExprLike) -> Expr:
    """A slice bound as torch reads it, in [0, size]: a negative one counts from the end."""
    e = as_expr(default if index is None else index)
    if known_nonnegative(e):
        return minimum(e, size)
    if known_less(e, 0):
        return minimum(maximum(ZERO, e + size), size)
    e = minimum(maximum(e, -size), size)
    return e + size * minimum(ONE, maximum(ZERO, -e))


def sliced(ctx: GraphLowering, x: TensorBox, dim: int, start: Expr, length: Expr, step: int = 1) -> TensorBox:
    """``length`` elements from ``start`` along a dimension."""
    if start == ZERO and step == 1 and length == x.size[dim]:
        return x
    size = (*x.size[:dim], length, *x.size[dim + 1 :])
    beyond = start + (length - 1) * step + 1
    ctx.require([compare(beyond, "<=", x.size[dim])], RuntimeError, f"a slice ends behind {x.size[dim]}")
    return ctx.graph.view(x, ir_views.SliceView(size, dim, start, step))


@lowers(aten.slice.Tensor)
def slice_(
    ctx: GraphLowering,
    x: TensorBox,
    dim: int = 0,
    start: ExprLike | None = None,
    end: ExprLike | None = None,
    step: int = 1,
) -> TensorBox:
    """Elements start, start + step, ... before end of one dimension."""
    dim %= x.ndim
    first, length = clamped(start, x.size[dim], 0), ctx.out_size[dim]
    if not ctx.sizes.is_bound(length, ctx.graph):  # its bounds depend on data: the trace has a mere name
        last = clamped(end, x.size[dim], x.size[dim])
        length = floordiv(maximum(ZERO, last - first) + step - 1, step)
        ctx.sizes.define(ctx.example.shape[dim], length)
    return sliced(ctx, x, dim, first, length, step)


@lowers(aten.select.int)
def select(ctx: GraphLowering, x: TensorBox, dim: int, index: ExprLike) -> TensorBox:
    """One element of one dimension, which disappears."""
    dim %= x.ndim
    at = position(ctx, index, x.size[dim])
    size = (*x.size[:dim], *x.size[dim + 1 :])
    return ctx.graph.view(x, ir_views.SelectView(size, dim, at))


def position(ctx: GraphLowering, index: ExprLike, size: Expr) -> Expr:
    """A single index as torch reads it, in [0, size). One that depends on data is checked when the graph
    runs. Raises ``Refused`` for another one whose sign is not known."""
    e = as_expr(index)
    wanted = [compare(e, ">=", -size), compare(e, "<", size)]
    checked = ctx.require(wanted, IndexError, f"an index is not among the {size} elements of a dimension")
    if known_nonnegative(e):
        return e
    if known_less(e, 0):
        return e + size
    if checked:
        # of no elements there is no position, and the check lets nothing pass
        return ZERO if size == ZERO else mod(e + size, size)
    raise Refused(f"an index {e} that may be of either sign")


@lowers(aten.diagonal.default)
def diagonal(ctx: GraphLowering, x: TensorBox, offset: int = 0, dim1: int = 0, dim2: int = 1) -> TensorBox:
    """The diagonal of two dimensions, as the last dimension."""
    if not isinstance(offset, int):
        raise Refused("a diagonal at a symbolic offset")
    return ctx.graph.view(x, ir_views.DiagonalView(ctx.out_size, dim1 % x.ndim, dim2 % x.ndim, offset))


@lowers(aten.unfold.default)
def unfold(ctx: GraphLowering, x: TensorBox, dim: int, size: int, step: int) -> TensorBox:
    """Sliding windows along a dimension, as the last dimension."""
    if x.ndim == 0:  # counts as one dimension, in which there is one window
        return ctx.graph.view(x, ir_views.UnsqueezeView(ctx.out_size, 0))
    return ctx.graph.view(x, ir_views.UnfoldView(ctx.out_size, dim % x.ndim, step))


@lowers(aten.as_strided.default)
def as_strided(
    ctx: GraphLowering,
    x: TensorBox,
    size: Sequence[Any],
    stride: Sequence[Any],
    offset: ExprLike | None = None,
) -> TensorBox:
    """The memory of x under other sizes and strides: possible where x lies in memory as eager lays it out."""
    ref = ctx.graph.ref(x)
    return TensorBox(ReinterpretView(ref.buffer, strided_layout(ctx, ref, size, stride, offset)))


def strided_layout(
    ctx: GraphLowering,
    ref: TensorRef,
    size: Sequence[Any],
    stride: Sequence[Any],
    offset: ExprLike | None,
) -> Layout:
    """The layout of what `as_strided` sees, in memory ``ref`` that holds what the current node's first
    argument does. Raises ``Refused`` where that is not known to lie as in eager or to have such elements."""
    example: torch.Tensor = ctx.node.args[0].meta["val"]  # type: ignore[union-attr]
    if ref.layout.strides != ctx.exprs(example.stride()):
        raise Refused("as_strided of a tensor that Braze lays out otherwise")
    base = ref.layout.offset
    if offset is not None:
        base = base + as_expr(offset) - ctx.expr(example.storage_offset())
    layout = with_geometry(ref.layout, ctx.exprs(size), ctx.exprs(stride), base)
    # What lies outside of the part of the storage that Braze knows must not be touched.
    beyond = layout.extent * layout.dtype.itemsize - ref.buffer.layout.extent * ref.buffer.dtype.itemsize
    if not known_nonnegative(base) or not known_nonnegative(-beyond):
        raise Refused("as_strided beyond the tensor's own elements")
    return layout


@lowers(aten.view.dtype)
def view_dtype(ctx: GraphLowering, x: TensorBox, dtype: torch.dtype) -> Any:
    """The same bits as another type of the same width."""
    if _shows_whose_it_is(ctx):
        return call_fallback(ctx, "its memory is returned as another type")
    if dtype.itemsize != x.dtype.itemsize:
        raise Refused("a view as a type of another width")

    def value(i: tuple[Expr, ...]) -> Node:
        v = ctx.dag.to_dtype(x.load(ctx.dag, i), x.dtype)
        return ctx.dag.to_dtype(ctx.dag.bitcast(v, dtype), compute_dtype(dtype))

    if torch.bool in (dtype, x.dtype):
        raise Refused("the bits of booleans")
    return ctx.pointwise(x.size, dtype, value)


def _shows_whose_it_is(ctx: GraphLowering) -> bool:
    """Whether the caller can see that the current node shares memory: with an input, or among results."""
    here, graph = storage_id(ctx.example), ctx.gm.graph
    returned = _sharing(here, graph.output_node().all_input_nodes)
    return returned > 1 or (returned == 1 and _sharing(here, graph.find_nodes(op="placeholder")) > 0)


def _sharing(storage: int, nodes: Iterable[fx.Node]) -> int:
    """How many nodes' tensors have this storage."""
    values = [n.meta.get("val") for n in nodes]
    return sum(isinstance(v, torch.Tensor) and storage_id(v) == storage for v in values)
