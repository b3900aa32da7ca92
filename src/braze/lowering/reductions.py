"""Reductions: sums, products, extrema and their positions, any, all, means."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from braze.errors import Refused
from braze.ir.boxes import TensorBox
from braze.ir.loops import Reduction, Sizes, loop_indices, loop_vars
from braze.lowering.casts import held
from braze.lowering.promotion import dims_of, nonzero
from braze.lowering.registry import lowers
from braze.ops.dag import Node
from braze.ops.dtypes import compute_dtype
from braze.ops.functions import maximum
from braze.runtime.expr import ONE, ZERO, Expr, known_positive, product

if TYPE_CHECKING:
    from braze.lowering.graph import GraphLowering

aten = torch.ops.aten

IDENTITIES: dict[str, tuple[float, ...]] = {
    "sum": (0,),
    "prod": (1,),
    "any": (False,),
    "all": (True,),
    "welford": (math.nan, 0, 0),
}
"""The components of a reduction of nothing, for the kinds of which eager allows one."""


def reduced(
    ctx: GraphLowering,
    kind: str,
    dtype: torch.dtype,
    size: Sizes,
    ranges: Sizes,
    fn: Callable[[tuple[Expr, ...], tuple[Expr, ...]], Sequence[Node]],
    *,
    component: int = 0,
    cls: type[Reduction] = Reduction,
    finish: Callable[[Node], Node] = lambda v: v,
) -> TensorBox:
    """A tensor of ``size``, each element reduced over ``ranges``: ``fn(indices, reduced indices)`` gives the
    operands of the reduction (one; value and position for argmax and argmin), ``finish`` what is stored of
    its value.

    Where ``ranges`` holds one element or none, nothing is
    reduced.
    """
    d = ctx.dag
    rindices = loop_indices(ranges, "r")
    rvars = loop_vars(rindices)
    operands = fn(loop_indices(size), rindices)
    if any(n.constant == 0 for n in ranges):
        value = d.constant(IDENTITIES[kind][component], operands[0].dtype)
    elif not rvars:
        value = operands[-1] if component == 0 else d.constant((0, 0, 1)[component], operands[0].dtype)
    else:
        value = d.to_dtype(finish(d.reduction(kind, operands, rvars, component)), compute_dtype(dtype))
        return ctx.box(cls(dtype, size, value, ranges, kind))
    return ctx.pointwise(size, dtype, lambda i: finish(value))


class Space:
    """What a reduction of ``x`` over ``dims`` runs over: the result's sizes, the reduced ranges."""

    def __init__(
        self, ctx: GraphLowering, x: TensorBox, dims: int | Sequence[int] | None, keepdim: bool
    ) -> None:
        self.ctx = ctx
        self.x = x
        self.dims = dims_of(dims, x.ndim)
        self.keepdim = keepdim
        self.ranges: Sizes = tuple(x.size[d] for d in self.dims)
        kept = [ONE if d in self.dims else s for d, s in enumerate(x.size) if keepdim or d not in self.dims]
        self.size: Sizes = tuple(kept)
        self.numel = product(self.ranges)

    def full_indices(self, indices: Sequence[Expr], reduced: Sequence[Expr]) -> list[Expr]:
        """Indices of x from those of the result and of the reduced dimensions."""
        inner = dict(zip(self.dims, reduced, strict=True))
        if self.keepdim:
            return [inner.get(d, i) for d, i in enumerate(indices)]
        rest = iter(indices)
        return [inner[d] if d in inner else next(rest) for d in range(self.x.ndim)]

    def element(
        self, indices: Sequence[Expr], reduced: Sequence[Expr], dtype: torch.dtype | None = None
    ) -> Node:
        """The element of x, in the compute type of ``dtype`` (its own by default)."""
        v = self.x.load(self.ctx.dag, self.full_indices(indices, reduced))
        if dtype is None or dtype is self.x.dtype:
            return v
        return self.ctx.dag.to_dtype(held(self.ctx, v, self.x.dtype), compute_dtype(dtype))

    def flat_position(self, reduced: Sequence[Expr]) -> Expr:
        """The row-major position within the reduced ranges."""
        flat = ZERO
        for n, r in zip(self.ranges, reduced, strict=True):
            flat = flat * n + r
        return flat

    def reduce(
        self,
        kind: str,
        dtype: torch.dtype,
        fn: Callable[[tuple[Expr, ...], tuple[Expr, ...]], Sequence[Node]],
        *,
        component: int = 0,
        cls: type[Reduction] = Reduction,
        finish: Callable[[Node], Node] = lambda v: v,
    ) -> TensorBox:
        """The reduction of ``fn``'s operands, with ``finish`` applied to its value."""
        return reduced(
            self.ctx,
            kind,
            dtype,
            self.size,
            self.ranges,
            fn,
            component=component,
            cls=cls,
            finish=finish,
        )

    def require_elements(self) -> None:
        """Raises ``Refused`` where there may be nothing to reduce: eager raises, or has an answer of
        its own."""
        if not known_positive(self.numel):
            raise Refused("a reduction over a dimension that may be empty")


def _accumulated(ctx: GraphLowering, kind: str, x: TensorBox, dims: Any, keepdim: bool) -> TensorBox:
    space = Space(ctx, x, dims, keepdim)
    dtype = ctx.out_dtype
    if dtype is torch.bool:
        raise Refused(f"a {kind} of booleans as a boolean")
    return space.reduce(kind, dtype, lambda i, r: [space.element(i, r, dtype)])


@lowers(aten.sum.dim_IntList)
def sum_dim(
    ctx: GraphLowering, x: TensorBox, dims: Any, keepdim: bool = False, *, dtype: Any = None
) -> TensorBox:
    """The sum over some dimensions; half types accumulate in float32, integers in int64."""
    return _accumulated(ctx, "sum", x, dims, keepdim)


@lowers(aten.prod.default)
def prod_all(ctx: GraphLowering, x: TensorBox, *, dtype: Any = None) -> TensorBox:
    """The product of all elements."""
    return _accumulated(ctx, "prod", x, None, False)


@lowers(aten.prod.dim_int)
def prod_dim(
    ctx: GraphLowering, x: TensorBox, dim: int, keepdim: bool = False, *, dtype: Any = None
) -> TensorBox:
    """The product over one dimension."""
    return _accumulated(ctx, "prod", x, dim, keepdim)


def count(ctx: GraphLowering, numel: Expr, dtype: torch.dtype, correction: float = 0) -> Node:
    """A number of elements, less ``correction`` (but not below 0), as a value."""
    d = ctx.dag
    if numel.constant is not None:
        return d.constant(max(float(numel.constant) - correction, 0.0), dtype)
    n = d.index_expr(numel, dtype)
    return n if correction == 0 else maximum(n - correction, 0)


@lowers(aten.mean.dim)
def mean_dim(
    ctx: GraphLowering, x: TensorBox, dims: Any, keepdim: bool = False, *, dtype: Any = None
) -> TensorBox:
    """The mean over some dimensions."""
    out = ctx.out_dtype
    space = Space(ctx, x, dims, keepdim)
    n = count(ctx, space.numel, compute_dtype(out))
    return space.reduce("sum", out, lambda i, r: [space.element(i, r, out)], finish=lambda v: v / n)


def _extremum(ctx: GraphLowering, kind: str, x: TensorBox, dims: Any, keepdim: bool) -> TensorBox:
    space = Space(ctx, x, dims, keepdim)
    space.require_elements()
    if x.dtype is torch.bool:
        logical = {"max": "any", "min": "all"}[kind]
        return space.reduce(logical, torch.bool, lambda i, r: [space.element(i, r)])
    return space.reduce(kind, x.dtype, lambda i, r: [space.element(i, r)])


def _make_extremum(kind: str) -> None:
    def dims(ctx: GraphLowering, x: TensorBox, dims: Any = (), keepdim: bool = False) -> TensorBox:
        return _extremum(ctx, kind, x, dims, keepdim)

    def arg(ctx: GraphLowering, x: TensorBox, dim: int | None = None, keepdim: bool = False) -> TensorBox:
        space = Space(ctx, x, dim, keepdim)
        space.require_elements()
        if x.dtype is torch.bool:
            raise Refused("the position of an extremum among booleans")
        return _position(space, "arg" + kind)

    lowers(getattr(aten, "a" + kind).default)(dims)
    lowers(getattr(aten, "arg" + kind).default)(arg)


def _position(space: Space, kind: str) -> TensorBox:
    d = space.ctx.dag
    return space.reduce(
        kind,
        torch.int64,
        lambda i, r: [
            held(space.ctx, space.element(i, r), space.x.dtype),
            d.index_expr(space.flat_position(r)),
        ],
    )


_make_extremum("max")
_make_extremum("min")


@lowers(aten.any.default, aten.any.dim, aten.any.dims)
def any_(ctx: GraphLowering, x: TensorBox, dims: Any = None, keepdim: bool = False) -> TensorBox:
    """Whether any elements are not 0."""
    space = Space(ctx, x, dims, keepdim)
    return space.reduce("any", ctx.out_dtype, lambda i, r: [nonzero(held(ctx, space.element(i, r), x.dtype))])
