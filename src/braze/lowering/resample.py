"""Resampling by the nearest element: loads at computed places."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from braze.ir.boxes import TensorBox
from braze.lowering.promotion import Scalar
from braze.lowering.registry import Unsupported, lowers
from braze.lowering.tables import known_index
from braze.ops.dag import Node
from braze.runtime.expr import Expr, known_positive

if TYPE_CHECKING:
    from braze.lowering.graph import GraphLowering

aten = torch.ops.aten


def _source(
    ctx: GraphLowering, place: Expr, length: Expr, target: Expr, scale: Scalar | None, shift: float
) -> Expr:
    """Where the element at ``place`` of ``target`` ones comes from, among ``length``: in float32, as
    eager does."""
    d = ctx.dag
    if isinstance(scale, (int, float)) and scale > 0:
        ratio = d.constant(1.0 / scale, torch.float32)
    elif scale is None:
        ratio = d.op("truediv", d.index_expr(length, torch.float32), d.index_expr(target, torch.float32))
        if length.constant is not None and target.constant is not None:
            ratio = d.constant(float(torch.tensor(length.constant) / target.constant), torch.float32)
    else:
        raise Unsupported("resampling by a symbolic factor")
    at = d.op("add", d.index_expr(place, torch.float32), d.constant(shift, torch.float32))
    index = d.to_dtype(d.op("floor", d.op("mul", at, ratio)), torch.int64)
    index = d.op("minimum", index, d.index_expr(length - 1))
    return known_index(d, index, length, wrap=False) or d.indirect(index, length)


def _nearest(shift: float) -> Callable[..., TensorBox]:
    def lowering(ctx: GraphLowering, x: TensorBox, output_size: Any, *scales: Scalar | None) -> TensorBox:
        size = ctx.out_size
        if not all(known_positive(n) for n in x.size[2:]):
            raise Unsupported("resampling a dimension that may be empty")
        factors = [*scales, *[None] * (x.ndim - 2 - len(scales))]

        def value(i: tuple[Expr, ...]) -> Node:
            spatial = zip(i[2:], x.size[2:], size[2:], factors, strict=True)
            return x.load(ctx.dag, [*i[:2], *[_source(ctx, *numbers, shift) for numbers in spatial]])

        return ctx.pointwise(size, x.dtype, value)

    lowering.__doc__ = "Each element of the result from the nearest one of x."
    return lowering


lowers(aten.upsample_nearest1d.default, aten.upsample_nearest2d.default, aten.upsample_nearest3d.default)(
    _nearest(0.0)
)
lowers(
    aten._upsample_nearest_exact1d.default,
    aten._upsample_nearest_exact2d.default,
    aten._upsample_nearest_exact3d.default,
)(_nearest(0.5))
