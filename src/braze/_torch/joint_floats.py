"""Floating-point numbers that are inputs of a joint graph.

PyTorch's partitioner keeps integers and tensors for the backward, but has no place for such numbers. So they
stand beside the cut: while it is made they are attributes, which both halves may use, and afterwards inputs
again, of the forward as always, and of the backward where it needs them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
from torch.fx import GraphModule, Node

__all__ = ["float_inputs", "floats_beside_the_cut"]

Halves: TypeAlias = "tuple[GraphModule, GraphModule]"
_NAME = "braze_number_"


def float_inputs(gm: GraphModule) -> tuple[int, ...]:
    """For each number that a backward graph takes by this way which input of the forward it is."""
    found = []
    for node in gm.graph.find_nodes(op="placeholder"):
        if str(node.target).startswith(_NAME):
            found.append(int(str(node.target).removeprefix(_NAME)))
    return tuple(found)


@contextmanager
def floats_beside_the_cut(joint: GraphModule) -> Iterator[Callable[[GraphModule, GraphModule], Halves]]:
    """Inside this block the numbers are attributes of `joint`. What it gives turns them, in a forward and a
    backward graph, into inputs."""
    names: dict[str, int] = {}
    for position, node in enumerate(joint.graph.find_nodes(op="placeholder")):
        if isinstance(node.meta.get("val"), torch.SymFloat) and node.users:
            name = f"{_NAME}{position}"
            setattr(joint, name, node.meta["val"])
            with joint.graph.inserting_before(_first_call(joint)):
                attribute = joint.graph.create_node("get_attr", name)
            attribute.meta = dict(node.meta)
            node.replace_all_uses_with(attribute)
            names[name] = position

    def rejoin(forward: GraphModule, backward: GraphModule) -> Halves:
        inputs = forward.graph.find_nodes(op="placeholder")
        for node in _attributes(forward, names):
            node.replace_all_uses_with(inputs[names[str(node.target)]])
            forward.graph.erase_node(node)
        first: Any = next(iter(backward.graph.nodes))
        for node in _attributes(backward, names):
            with backward.graph.inserting_before(first):
                number = backward.graph.placeholder(str(node.target))
            number.meta = dict(node.meta)
            node.replace_all_uses_with(number)
            backward.graph.erase_node(node)
        for half in (forward, backward) if names else ():
            half.recompile()
        return forward, backward

    yield rejoin


def _first_call(gm: GraphModule) -> Node:
    first: Node = next(node for node in gm.graph.nodes if node.op != "placeholder")
    return first


def _attributes(gm: GraphModule, names: dict[str, int]) -> list[Node]:
    found: dict[str, Node] = {}
    nodes = [node for node in gm.graph.find_nodes(op="get_attr") if node.target in names]
    for node in nodes:  # one for each number is enough
        first = found.setdefault(str(node.target), node)
        if first is not node:
            node.replace_all_uses_with(first)
            gm.graph.erase_node(node)
    return list(found.values())
