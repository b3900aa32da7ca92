"""Reductions: sums, products, extrema and their positions, any, all, means, variances."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from braze.ir.boxes import TensorBox
from braze.ir.loops import Loops, Reduction, Sizes, WelfordReduction, loop_indices, loop_vars
from braze.lowering.casts import copied, held
from braze.lowering.promotion import dims_of, nonzero
from braze.lowering.registry import Unsupported, lowers
from braze.ops.dag import Node, cost
from braze.ops.dtypes import compute_dtype, is_float
from braze.runtime.expr import ONE, ZERO, Expr, known_positive, product

if TYPE_CHECKING:
    from braze.lowering.graph import GraphLowering

aten = torch.ops.aten

TWO_PASS_LIMIT = 8192
"""Variances of up to so many elements are computed in two passes over a row that stays in cache."""
RECOMPUTE_COST = 4
"""What costs more than this is stored once before a reduction reads it twice."""

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
    which: int = 0,
) -> TensorBox:
    """A tensor of ``size``, each element reduced over ``ranges``: ``fn(indices, reduced indices)`` gives the
    operands of the reduction (one; value and position for argmax and argmin), ``finish`` what is stored of
    its value.

    It is the current node's result number ``which``. Where ``ranges`` holds one element or none, nothing is
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
        return ctx.box(cls(dtype, size, value, ranges, kind), which)
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
        which: int = 0,
    ) -> TensorBox:
        """The reduction of ``fn``'s operands, with ``finish`` applied to its value; the current node's
        result number
        ``which``."""
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
            which=which,
        )

    def require_elements(self) -> None:
        """Raises ``Unsupported`` where there may be nothing to reduce: eager raises, or has an answer of
        its own."""
        if not known_positive(self.numel):
            raise Unsupported("a reduction over a dimension that may be empty")


def _accumulated(ctx: GraphLowering, kind: str, x: TensorBox, dims: Any, keepdim: bool) -> TensorBox:
    space = Space(ctx, x, dims, keepdim)
    dtype = ctx.out_dtype
    if dtype is torch.bool:
        raise Unsupported(f"a {kind} of booleans as a boolean")
    return space.reduce(kind, dtype, lambda i, r: [space.element(i, r, dtype)])


@lowers(aten.sum.dim_IntList)
def sum_dim(
    ctx: GraphLowering, x: TensorBox, dims: Any, keepdim: bool = False, *, dtype: Any = None
) -> TensorBox:
    """The sum over some dimensions; half types accumulate in float32, integers in int64."""
    return _accumulated(ctx, "sum", x, dims, keepdim)


@lowers(aten.sum.default)
def sum_all(ctx: GraphLowering, x: TensorBox, *, dtype: Any = None) -> TensorBox:
    """The sum of all elements."""
    return _accumulated(ctx, "sum", x, None, False)


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
    if correction == 0:
        return n
    return d.op("maximum", d.op("sub", n, d.constant(correction, dtype)), d.constant(0, dtype))


@lowers(aten.mean.dim)
def mean_dim(
    ctx: GraphLowering, x: TensorBox, dims: Any, keepdim: bool = False, *, dtype: Any = None
) -> TensorBox:
    """The mean over some dimensions."""
    d, out = ctx.dag, ctx.out_dtype
    space = Space(ctx, x, dims, keepdim)
    n = count(ctx, space.numel, compute_dtype(out))
    return space.reduce(
        "sum", out, lambda i, r: [space.element(i, r, out)], finish=lambda v: d.op("truediv", v, n)
    )


@lowers(aten.mean.default)
def mean_all(ctx: GraphLowering, x: TensorBox, *, dtype: Any = None) -> TensorBox:
    """The mean of all elements."""
    return mean_dim(ctx, x, None)


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

    def everything(ctx: GraphLowering, x: TensorBox) -> TensorBox:
        return _extremum(ctx, kind, x, None, False)

    def with_indices(
        ctx: GraphLowering, x: TensorBox, dim: int, keepdim: bool = False
    ) -> tuple[TensorBox, TensorBox]:
        space = Space(ctx, x, dim, keepdim)
        space.require_elements()
        if x.dtype is torch.bool:
            raise Unsupported("the position of an extremum among booleans")
        values = space.reduce(kind, x.dtype, lambda i, r: [space.element(i, r)])
        return values, _position(space, "arg" + kind, which=1)

    def arg(ctx: GraphLowering, x: TensorBox, dim: int | None = None, keepdim: bool = False) -> TensorBox:
        space = Space(ctx, x, dim, keepdim)
        space.require_elements()
        if x.dtype is torch.bool:
            raise Unsupported("the position of an extremum among booleans")
        return _position(space, "arg" + kind)

    lowers(getattr(aten, "a" + kind).default)(dims)
    lowers(getattr(aten, kind).default)(everything)
    lowers(getattr(aten, kind).dim)(with_indices)
    lowers(getattr(aten, "arg" + kind).default)(arg)


def _position(space: Space, kind: str, which: int = 0) -> TensorBox:
    d = space.ctx.dag
    return space.reduce(
        kind,
        torch.int64,
        lambda i, r: [
            held(space.ctx, space.element(i, r), space.x.dtype),
            d.index_expr(space.flat_position(r)),
        ],
        which=which,
    )


_make_extremum("max")
_make_extremum("min")


def _quantifier(kind: str) -> Callable[..., TensorBox]:
    def lowering(ctx: GraphLowering, x: TensorBox, dims: Any = None, keepdim: bool = False) -> TensorBox:
        space = Space(ctx, x, dims, keepdim)
        return space.reduce(
            kind, ctx.out_dtype, lambda i, r: [nonzero(ctx, held(ctx, space.element(i, r), x.dtype))]
        )

    lowering.__doc__ = f"Whether {kind} elements are not 0."
    return lowering


for _kind in ("any", "all"):
    _packet = getattr(aten, _kind)
    lowers(_packet.default, _packet.dim, _packet.dims)(_quantifier(_kind))


def stored_if_costly(ctx: GraphLowering, x: TensorBox) -> None:
    """Store ``x`` if it would be computed in more than one pass and is more than a load and a cast."""
    content = x.content
    if isinstance(content, Loops) and cost([content.value]) > RECOMPUTE_COST:
        ctx.graph.realize(x)


def var_and_mean(
    ctx: GraphLowering,
    x: TensorBox,
    dims: Any,
    correction: float,
    keepdim: bool,
    finish: Callable[[Node], Node],
) -> tuple[Callable[[], TensorBox], TensorBox]:
    """The variance (made when called, with ``finish`` applied) and the mean, both in the compute type.

    In two passes, the mean and then the mean square of the deviations, where a row is known to be short
    (it is in
    cache the second time); in one, by Welford's method, otherwise.
    """
    d = ctx.dag
    space = Space(ctx, x, dims, keepdim)
    dtype = compute_dtype(x.dtype)
    stored_if_costly(ctx, x)
    n = count(ctx, space.numel, dtype)
    corrected = count(ctx, space.numel, dtype, correction)
    short = space.numel.constant is not None and space.numel.constant <= TWO_PASS_LIMIT

    def operand(i: tuple[Expr, ...], r: tuple[Expr, ...]) -> list[Node]:
        return [space.element(i, r)]

    def variance(v: Node) -> Node:
        return finish(d.op("truediv", v, corrected))

    if not short:
        mean = space.reduce("welford", dtype, operand, cls=WelfordReduction)
        return lambda: space.reduce(
            "welford", dtype, operand, component=1, cls=WelfordReduction, finish=variance
        ), mean
    mean = space.reduce("sum", dtype, operand, finish=lambda v: d.op("truediv", v, n))

    def square(i: tuple[Expr, ...], r: tuple[Expr, ...]) -> list[Node]:
        deviation = d.op("sub", space.element(i, r), mean.load(d, i))
        return [d.op("mul", deviation, deviation)]

    return lambda: space.reduce("sum", dtype, square, finish=variance), mean


def _correction(correction: Any) -> float:
    if correction is None:
        return 1.0
    if isinstance(correction, (int, float)):
        return float(correction)
    raise Unsupported("a symbolic correction")


def _check_float(x: TensorBox) -> None:
    if not is_float(x.dtype):
        raise Unsupported("the variance of integers")


@lowers(aten.var.correction)
def var(
    ctx: GraphLowering, x: TensorBox, dim: Any = None, *, correction: Any = None, keepdim: bool = False
) -> TensorBox:
    """The variance over some dimensions."""
    _check_float(x)
    variance, _ = var_and_mean(ctx, x, dim, _correction(correction), keepdim, lambda v: v)
    return copied(ctx, variance(), ctx.out_dtype)


@lowers(aten.std.correction)
def std(
    ctx: GraphLowering, x: TensorBox, dim: Any = None, *, correction: Any = None, keepdim: bool = False
) -> TensorBox:
    """The standard deviation over some dimensions."""
    _check_float(x)
    variance, _ = var_and_mean(ctx, x, dim, _correction(correction), keepdim, lambda v: ctx.dag.op("sqrt", v))
    return copied(ctx, variance(), ctx.out_dtype)


@lowers(aten.var_mean.correction)
def var_mean(
    ctx: GraphLowering, x: TensorBox, dim: Any = None, *, correction: Any = None, keepdim: bool = False
) -> tuple[TensorBox, TensorBox]:
    """The variance and the mean over some dimensions."""
    _check_float(x)
    variance, mean = var_and_mean(ctx, x, dim, _correction(correction), keepdim, lambda v: v)
    dtype = ctx.out_dtype
    if dtype is mean.dtype:
        return variance(), mean
    return copied(ctx, variance(), dtype), copied(ctx, mean, dtype)
