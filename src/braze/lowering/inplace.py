"""Operators that write their result into their first argument: what the plain operator computes, stored
there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from braze._torch.schema import is_operator, operator_info
from braze.ir.boxes import TensorBox
from braze.ir.loops import Pointwise, loop_indices
from braze.lowering.casts import converted
from braze.lowering.registry import Lowering, lowering_of, lowers

if TYPE_CHECKING:
    from braze.lowering.graph import GraphLowering

aten = torch.ops.aten


def written(ctx: GraphLowering, target: TensorBox, value: TensorBox) -> TensorBox:
    """Store ``value``, broadcast and converted, in the memory of ``target``; the tensor as it is
    afterwards."""
    ref = ctx.graph.ref(target)
    size, dtype = target.size, target.dtype
    element = converted(ctx, ctx.broadcast_load(value, loop_indices(size), size), dtype)
    box = ctx.graph.box(Pointwise(dtype, size, element))
    return TensorBox.of(ctx.graph.realize_into(box, ref.layout, ref.buffer.storage))


@lowers(aten.copy_.default)
def copy_(ctx: GraphLowering, x: TensorBox, source: TensorBox, non_blocking: bool = False) -> TensorBox:
    """Write ``source`` to x."""
    return written(ctx, x, source)


def in_place(target: Any) -> Lowering | None:
    """The lowering of ``add_`` and its like, by that of ``add``; ``None`` where there is no such pair."""
    functional = _functional(target)
    compute = None if functional is None else lowering_of(functional)
    if compute is None:
        return None

    def lowering(ctx: GraphLowering, x: TensorBox, *args: Any, **kwargs: Any) -> TensorBox:
        return written(ctx, x, compute(ctx, x, *args, **kwargs))

    return lowering


def _functional(target: Any) -> Any:
    if not is_operator(target):
        return None
    arguments = operator_info(target).arguments
    if [k for k, a in enumerate(arguments) if a.written] != [0]:
        return None
    name, _, overload = str(target).removeprefix("aten.").partition(".")
    if not name.endswith("_") or name.endswith("__"):
        return None
    packet = getattr(aten, name[:-1], None)
    return getattr(packet, overload, None)
