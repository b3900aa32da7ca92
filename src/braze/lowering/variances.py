"""Variances and standard deviations: exact for equal numbers, and without overflow on the way."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from braze.errors import Refused
from braze.ir.boxes import TensorBox
from braze.ir.loops import Loops, WelfordReduction, loop_indices
from braze.lowering.casts import copied
from braze.lowering.reductions import Space, count
from braze.lowering.registry import lowers
from braze.ops.dag import Node, cost
from braze.ops.dtypes import compute_dtype, is_float
from braze.ops.functions import fma, maximum, minimum, sqrt, where
from braze.runtime.expr import ZERO, Expr, known_positive

if TYPE_CHECKING:
    from braze.lowering.graph import GraphLowering

aten = torch.ops.aten

TWO_PASS_LIMIT = 8192
"""Variances of up to so many elements are computed in two passes over a row that stays in cache."""
RECOMPUTE_COST = 4
"""What costs more than this is stored once before a reduction reads it twice."""

Indices = tuple[Expr, ...]


def _stored_if_costly(ctx: GraphLowering, x: TensorBox) -> None:
    """Store ``x`` if it would be computed in more than one pass and is more than a load and a cast."""
    content = x.content
    if isinstance(content, Loops) and cost([content.value]) > RECOMPUTE_COST:
        ctx.graph.realize(x)


def _var_and_mean(
    ctx: GraphLowering,
    x: TensorBox,
    dims: Any,
    correction: float,
    keepdim: bool,
    *,
    dtype: torch.dtype,
    finish: Callable[[Node], Node] = lambda v: v,
) -> tuple[Callable[[], TensorBox], TensorBox]:
    """The variance (made when called, with ``finish`` applied) and the mean, both computed in ``dtype``.

    In two passes, the mean and then the mean square of the deviations, where a row is known to be short (it
    is in cache the second time); in strips of two passes each, merged as Welford's are, otherwise.
    """
    space = Space(ctx, x, dims, keepdim)
    _stored_if_costly(ctx, x)
    n = space.numel.constant
    if n is None or n > TWO_PASS_LIMIT:
        return _in_strips(space, correction, dtype, finish)
    if n == 0:

        def nothing() -> TensorBox:
            return ctx.pointwise(space.size, dtype, lambda i: ctx.dag.constant(math.nan, dtype))

        return nothing, nothing()
    row = _Row(space, n, dtype)
    mean = row.mean()
    return lambda: row.variance(mean, correction, finish), mean


def _in_strips(
    space: Space, correction: float, dtype: torch.dtype, finish: Callable[[Node], Node]
) -> tuple[Callable[[], TensorBox], TensorBox]:
    """Halves of what the elements differ by from the first one are reduced, so that merging the strips' means
    loses nothing of large numbers either. Where there may be no element, they are reduced as they are."""
    divisor = count(space.ctx, space.numel, dtype, correction)
    shifted = known_positive(space.numel)
    at = loop_indices(space.size)

    def operand(i: Indices, r: Indices) -> list[Node]:
        x = space.element(i, r, dtype)
        return [_scaled_difference(x, _first(space, i, dtype), 0.5) if shifted else x]

    def component(which: int, finish: Callable[[Node], Node]) -> TensorBox:
        return space.reduce("welford", dtype, operand, component=which, cls=WelfordReduction, finish=finish)

    def mean(v: Node) -> Node:
        return fma(v, 2, _first(space, at, dtype)) if shifted else v

    def variance(v: Node) -> Node:
        v = v / divisor
        return finish(v * 4 if shifted else v)

    return lambda: component(1, variance), component(0, mean)


def _first(space: Space, i: Indices, dtype: torch.dtype) -> Node:
    """The first element of a row, or 0 where it is not finite."""
    v = space.element(i, [ZERO] * len(space.ranges), dtype)
    return where(abs(v) < math.inf, v, 0)


class _Row:
    """A variance over ``n`` elements, in two passes over them, both relative to the first one.

    So the variance of equal numbers is 0, and large numbers that differ by little lose nothing. What is
    summed is scaled by a power of two, so that no sum overflows where the mean and the variance don't.
    """

    def __init__(self, space: Space, n: int, dtype: torch.dtype) -> None:
        self.space, self.n, self.dtype = space, n, dtype
        self.d = space.ctx.dag
        self.scale = 0.5 ** (n.bit_length() + 1)
        # eager sums squares in float64
        self.root = 1.0 if dtype is torch.float64 else 0.5 ** math.ceil((n - 1).bit_length() / 2)

    def _sum(self, fn: Callable[[Indices, Node], Node], finish: Callable[[Node, Indices], Node]) -> TensorBox:
        """The sum of ``fn(indices, element)``."""
        at = loop_indices(self.space.size)
        return self.space.reduce(
            "sum",
            self.dtype,
            lambda i, r: [fn(i, self.space.element(i, r, self.dtype))],
            finish=lambda v: finish(v, at),
        )

    def _difference(self, i: Indices, x: Node) -> Node:
        return _scaled_difference(x, _first(self.space, i, self.dtype), self.scale)

    def _mean(self, differences: Node, i: Indices) -> Node:
        half = differences / (2 * self.n * self.scale)
        return fma(half, 2, _first(self.space, i, self.dtype))

    def mean(self) -> TensorBox:
        """The first element, and the mean difference from it."""
        return self._sum(self._difference, self._mean)

    def variance(self, mean: TensorBox, correction: float, finish: Callable[[Node], Node]) -> TensorBox:
        """The mean square of the deviations from the mean, less the square of what the mean lost when it was
        rounded: both sums in one pass, the corrected two-pass algorithm. Source: Chan, Golub, LeVeque:
        Algorithms for computing the sample variance (1983)."""
        d = self.d

        def square(i: Indices, x: Node) -> Node:
            deviation = _scaled_difference(x, mean.load(d, i), self.root)
            return deviation * deviation

        def variance(squares: Node, _: Indices) -> Node:
            rest = squares
            if squares.op == "reduction":
                (deviation, _same), rvars = squares.args[0].args, squares.attrs[2]
                assert isinstance(rvars, tuple)
                total = d.reduction("sum", [deviation], rvars)
                excess = total * total / self.n
                excess = minimum(excess, torch.finfo(self.dtype).max)  # inf - inf
                rest = maximum(squares - excess, 0)
            divisor = max(self.n - correction, 0.0) * self.root * self.root
            return finish(rest / divisor)

        return self._sum(square, variance)


def _scaled_difference(a: Node, b: Node, scale: float) -> Node:
    """``(a - b) * scale``, rounded once; ``scale`` is a power of two."""
    return a - b if scale == 1 else fma(a, scale, b * -scale)


def _correction(correction: Any) -> float:
    if correction is None:
        return 1.0
    if isinstance(correction, (int, float)):
        return float(correction)
    raise Refused("a symbolic correction")


def _check_float(x: TensorBox) -> None:
    if not is_float(x.dtype):
        raise Refused("the variance of integers")


@lowers(aten.var.correction)
def var(
    ctx: GraphLowering, x: TensorBox, dim: Any = None, *, correction: Any = None, keepdim: bool = False
) -> TensorBox:
    """The variance over some dimensions."""
    _check_float(x)
    variance, _ = _var_and_mean(ctx, x, dim, _correction(correction), keepdim, dtype=compute_dtype(x.dtype))
    return copied(ctx, variance(), ctx.out_dtype)


def _std_and_mean(
    ctx: GraphLowering, x: TensorBox, dim: Any, correction: Any, keepdim: bool
) -> tuple[Callable[[], TensorBox], TensorBox]:
    """The standard deviation (made when called) and the mean, computed in float64 as eager's are: the square
    of a deviation of 1e20 or 1e-30 is beyond what float32 and bfloat16 hold, and its root is not."""
    _check_float(x)
    return _var_and_mean(
        ctx,
        x,
        dim,
        _correction(correction),
        keepdim,
        dtype=torch.float32 if x.dtype is torch.float16 else torch.float64,
        finish=sqrt,
    )


def _both(ctx: GraphLowering, spread: TensorBox, mean: TensorBox) -> tuple[TensorBox, TensorBox]:
    dtype = ctx.out_dtype
    if dtype is mean.dtype:
        return spread, mean
    return copied(ctx, spread, dtype), copied(ctx, mean, dtype)


@lowers(aten.std.correction)
def std(
    ctx: GraphLowering, x: TensorBox, dim: Any = None, *, correction: Any = None, keepdim: bool = False
) -> TensorBox:
    """The standard deviation over some dimensions."""
    deviation, _ = _std_and_mean(ctx, x, dim, correction, keepdim)
    return copied(ctx, deviation(), ctx.out_dtype)


@lowers(aten.std_mean.correction)
def std_mean(
    ctx: GraphLowering, x: TensorBox, dim: Any = None, *, correction: Any = None, keepdim: bool = False
) -> tuple[TensorBox, TensorBox]:
    """The standard deviation and the mean over some dimensions."""
    deviation, mean = _std_and_mean(ctx, x, dim, correction, keepdim)
    return _both(ctx, deviation(), mean)


@lowers(aten.var_mean.correction)
def var_mean(
    ctx: GraphLowering, x: TensorBox, dim: Any = None, *, correction: Any = None, keepdim: bool = False
) -> tuple[TensorBox, TensorBox]:
    """The variance and the mean over some dimensions."""
    _check_float(x)
    variance, mean = _var_and_mean(
        ctx, x, dim, _correction(correction), keepdim, dtype=compute_dtype(x.dtype)
    )
    return _both(ctx, variance(), mean)
