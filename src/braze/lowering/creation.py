"""Tensors made from nothing: constants, ranges, uninitialised memory (which is zeros here)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from braze._torch.prims import prims
from braze.errors import Refused
from braze.ir.boxes import TensorBox
from braze.lowering.casts import converted
from braze.lowering.promotion import Scalar, number
from braze.lowering.registry import lowers
from braze.ops.dag import Node
from braze.ops.dtypes import compute_dtype, integer_limits, is_float
from braze.runtime.expr import Expr, as_expr

if TYPE_CHECKING:
    from braze.lowering.graph import GraphLowering

aten = torch.ops.aten


def filled(ctx: GraphLowering, value: Scalar) -> TensorBox:
    """The current node's result with every element ``value``."""
    dtype = ctx.out_dtype
    compute = compute_dtype(dtype)

    def element(i: tuple[Expr, ...]) -> Node:
        if isinstance(value, Expr):
            return _held(ctx, value, dtype)
        return converted(ctx, number(ctx, value, compute), dtype)

    return ctx.pointwise(ctx.out_size, dtype, element)


def _held(ctx: GraphLowering, value: Expr, dtype: torch.dtype) -> Node:
    """A whole number as ``dtype``, which has to hold it (negative ones wrap in unsigned types, as in
    ATen)."""
    d, compute = ctx.dag, compute_dtype(dtype)
    exact = dtype in (torch.bool, torch.int64, torch.float32, torch.float64, torch.bfloat16)
    # of one float16, ATen stores an infinity
    if exact or (dtype is torch.float16 and all(n.constant == 1 for n in ctx.out_size)):
        return converted(ctx, number(ctx, value, compute), dtype)
    low, high = (-65504, 65504) if is_float(dtype) else integer_limits(dtype)
    wide = d.index_expr(value)
    fits = (wide >= (low or -high)) & (wide <= high)
    text = f"value cannot be converted to type {dtype} without overflow"
    return converted(ctx, d.to_dtype(d.check(wide, fits, ctx.check(RuntimeError, text)), compute), dtype)


@lowers(aten.full.default, aten.full_like.default)
def full(ctx: GraphLowering, shape: Any, value: Scalar, **options: Any) -> TensorBox:
    """Every element ``value``."""
    return filled(ctx, value)


@lowers(aten.scalar_tensor.default, prims.scalar_tensor.default)
def scalar_tensor(ctx: GraphLowering, value: Scalar, **options: Any) -> TensorBox:
    """A number as a tensor without dimensions."""
    return filled(ctx, value)


@lowers(
    aten.empty.memory_format,
    aten.empty_strided.default,
    aten.empty_permuted.default,
    aten.new_empty_strided.default,
)
def empty(ctx: GraphLowering, *args: Any, **options: Any) -> TensorBox:
    """Zeros where eager leaves memory as it finds it: no reader can tell, and no run differs."""
    return filled(ctx, 0)


@lowers(aten.arange.start_step)
def arange(ctx: GraphLowering, start: Scalar, end: Scalar, step: Scalar = 1, **options: Any) -> TensorBox:
    """start, start + step, ...; fractions are computed in float64, as eager does."""
    d, dtype = ctx.dag, ctx.out_dtype
    compute = compute_dtype(dtype)

    def value(i: tuple[Expr, ...]) -> Node:
        if all(isinstance(x, (int, Expr)) for x in (start, step)):
            return converted(ctx, d.index_expr(i[0] * _whole(step) + _whole(start), compute), dtype)
        if not is_float(dtype):  # eager converts the bounds before it counts
            return d.index_expr(i[0] * _whole(step) + _whole(start), dtype)
        steps = number(ctx, step, torch.float64) * d.index_expr(i[0], torch.float64)
        exact = number(ctx, start, torch.float64) + steps
        return converted(ctx, d.to_dtype(exact, compute), dtype)

    return ctx.pointwise(ctx.out_size, dtype, value)


def _whole(value: Scalar) -> Expr:
    """A number as an integer expression. Raises ``Refused`` where only the running graph knows it."""
    if isinstance(value, Node):
        raise Refused("a range of integers between symbolic floating-point numbers")
    assert not isinstance(value, complex)
    return value if isinstance(value, Expr) else as_expr(int(value))


@lowers(prims.iota.default)
def iota(ctx: GraphLowering, length: Scalar, *, start: Scalar, step: Scalar, **options: Any) -> TensorBox:
    """start, start + step, ... (integers)."""
    return ctx.pointwise(
        ctx.out_size,
        ctx.out_dtype,
        lambda i: ctx.dag.index_expr(i[0] * _whole(step) + _whole(start), ctx.out_dtype),
    )
