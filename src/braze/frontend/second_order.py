"""Which inputs of a differentiable graph its gradients depend on, so that a second derivative would have
something to say of them."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import GraphModule, Node

__all__ = ["curved_inputs"]


def curved_inputs(forward: GraphModule, visible: int) -> tuple[int, ...]:
    """The inputs of a forward graph that what it keeps for the backward is computed from, by their numbers
    among the inputs that are tensors. ``visible``: how many of its outputs come before what is kept.

    Integers and booleans are kept as well, and no derivative goes through them."""
    outputs: Any = forward.graph.output_node().args[0]
    reached: set[Node] = set()
    left = [node for node in outputs[visible:] if isinstance(node, Node)]
    while left:
        node = left.pop()
        if node not in reached and _is_differentiable(node):
            reached.add(node)
            left += node.all_input_nodes
    tensors = [n for n in forward.graph.find_nodes(op="placeholder") if _is_tensor(n)]
    return tuple([i for i, node in enumerate(tensors) if node in reached])


def _is_tensor(node: Node) -> bool:
    return isinstance(node.meta.get("val"), torch.Tensor)


def _is_differentiable(node: Node) -> bool:
    """Whether a derivative may go through a node: several results count, whatever they are."""
    value = node.meta.get("val")
    return not isinstance(value, torch.Tensor) or value.is_floating_point() or value.is_complex()
