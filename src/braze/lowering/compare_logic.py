"""Comparisons, boolean logic, shifts, and choosing between two values."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from braze.errors import Refused
from braze.ir.boxes import TensorBox
from braze.lowering.casts import held
from braze.lowering.promotion import Operand, nonzero, operand, result_type
from braze.lowering.registry import lowers
from braze.ops import functions
from braze.ops.dag import Node
from braze.ops.dtypes import is_float
from braze.runtime.expr import Expr

if TYPE_CHECKING:
    from braze.lowering.graph import GraphLowering

aten = torch.ops.aten


def _comparison(name: str) -> Callable[..., TensorBox]:
    def lowering(ctx: GraphLowering, a: Operand, b: Operand) -> TensorBox:
        compute = result_type(a, b)
        return ctx.elementwise(lambda x, y: ctx.dag.op(name, x, y), a, b, compute=compute, exact=True)

    lowering.__doc__ = f"Whether a {name} b, compared in the type that both are promoted to."
    return lowering


for _name in ("eq", "ne", "lt", "le", "gt", "ge"):
    _packet = getattr(aten, _name)
    lowers(_packet.Tensor, _packet.Scalar)(_comparison(_name))


def _logical(name: str) -> Callable[..., TensorBox]:
    def lowering(ctx: GraphLowering, a: TensorBox, b: TensorBox) -> TensorBox:
        size = ctx.out_size
        return ctx.pointwise(
            size,
            torch.bool,
            lambda i: ctx.dag.op(
                name,
                nonzero(held(ctx, ctx.broadcast_load(a, i, size), a.dtype)),
                nonzero(held(ctx, ctx.broadcast_load(b, i, size), b.dtype)),
            ),
        )

    lowering.__doc__ = f"{name}: every operand counts as true where it is not 0."
    return lowering


for _name in ("logical_and", "logical_or", "logical_xor"):
    lowers(getattr(aten, _name).default)(_logical(_name))


@lowers(aten.logical_not.default)
def logical_not(ctx: GraphLowering, x: TensorBox) -> TensorBox:
    """Whether x is 0."""
    return ctx.elementwise(lambda v: ~nonzero(v), x, compute=x.dtype, exact=True)


def _shift(name: str) -> Callable[..., TensorBox]:
    def lowering(ctx: GraphLowering, a: Operand, b: Operand) -> TensorBox:
        if is_float(ctx.out_dtype):
            raise Refused("shifts of floating-point numbers")
        return ctx.elementwise(lambda x, y: ctx.dag.op(name, x, y), a, b, compute=ctx.out_dtype)

    lowering.__doc__ = f"{name} of integers."
    return lowering


for _packet, _name in ((aten.bitwise_left_shift, "shl"), (aten.bitwise_right_shift, "shr")):
    lowers(_packet.Tensor, _packet.Tensor_Scalar, _packet.Scalar_Tensor)(_shift(_name))
for _packet, _name in ((aten.__lshift__, "shl"), (aten.__rshift__, "shr")):
    lowers(_packet.Tensor, _packet.Scalar)(_shift(_name))


def _float_test(name: str) -> Callable[..., TensorBox]:
    def lowering(ctx: GraphLowering, x: TensorBox) -> TensorBox:
        if not is_float(x.dtype):
            return ctx.elementwise(lambda v: ctx.dag.constant(False, torch.bool), x, compute=x.dtype)
        return ctx.elementwise(lambda v: ctx.dag.op(name, v), x, compute=x.dtype, exact=True)

    lowering.__doc__ = f"{name}(x); false for integers."
    return lowering


for _name in ("isnan", "isinf"):
    lowers(getattr(aten, _name).default)(_float_test(_name))


@lowers(aten.signbit.default)
def signbit(ctx: GraphLowering, x: TensorBox) -> TensorBox:
    """Whether the sign bit is set: -0.0 counts as negative."""
    if x.dtype is torch.bool:
        return ctx.elementwise(lambda v: v.like(False), x, compute=x.dtype)

    def value(v: Node) -> Node:
        return functions.signbit(v) if is_float(v.dtype) else v < 0

    return ctx.elementwise(value, x, compute=x.dtype, exact=True)


@lowers(aten.where.self)
def where(ctx: GraphLowering, condition: TensorBox, a: TensorBox, b: TensorBox) -> TensorBox:
    """a where the condition holds, b elsewhere."""
    size, dtype = ctx.out_size, ctx.out_dtype

    def value(i: tuple[Expr, ...]) -> Node:
        holds = nonzero(held(ctx, ctx.broadcast_load(condition, i, size), condition.dtype))
        return functions.where(holds, operand(ctx, a, i, size, dtype), operand(ctx, b, i, size, dtype))

    return ctx.pointwise(size, dtype, value)
