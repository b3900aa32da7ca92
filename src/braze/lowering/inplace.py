"""Operators that write their result into their first argument: what the plain operator computes, stored
there.

A file of its own: each family of operators has one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.fx import Node

from braze._torch.schema import is_operator, operator_info
from braze.ir.boxes import TensorBox
from braze.ir.loops import Pointwise, loop_indices
from braze.lowering.casts import converted, held
from braze.lowering.registry import lowers

if TYPE_CHECKING:
    from braze.lowering.graph import GraphLowering

aten = torch.ops.aten


def written(ctx: GraphLowering, target: TensorBox, value: TensorBox, *, moves: bool) -> TensorBox:
    """Store ``value``, broadcast and converted, in the memory of ``target``; the tensor as it is afterwards.

    ``moves``: who uses ``value`` later may find it there.
    """
    ref = ctx.graph.ref(target)
    size, dtype = target.size, target.dtype
    if value.size == size and value.dtype is dtype:
        return TensorBox.of(ctx.graph.realize_into(value, ref.layout, ref.buffer.storage, moves=moves))
    element = held(ctx, ctx.broadcast_load(value, loop_indices(size), size), value.dtype)
    element = converted(ctx, element, dtype)
    box = ctx.graph.box(Pointwise(dtype, size, element))
    return TensorBox.of(ctx.graph.realize_into(box, ref.layout, ref.buffer.storage))


@lowers(aten.copy_.default)
def copy_(ctx: GraphLowering, x: TensorBox, source: TensorBox, non_blocking: bool = False) -> TensorBox:
    """Write ``source`` to x."""
    return written(ctx, x, source, moves=_may_move(*ctx.node.args[:2]))


def _may_move(target: Any, source: Any) -> bool:
    """Whether ``source`` may live on in the memory of ``target``: nobody else writes there, and no result of
    the graph would come to share it."""
    if not isinstance(target, Node) or not isinstance(source, Node) or target.op != "placeholder":
        return False
    return sum(map(_may_write, target.users)) == 1 and not leaves_graph(source)


def _may_write(node: Node) -> bool:
    if not is_operator(node.target):
        return True
    info = operator_info(node.target)
    return info.mutates or info.is_view


def leaves_graph(node: Node) -> bool:
    """Whether the memory of ``node`` leaves the graph."""
    return any(
        user.op == "output"
        or (is_operator(user.target) and operator_info(user.target).is_view and leaves_graph(user))
        for user in node.users
    )
