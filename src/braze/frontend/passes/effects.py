"""What the passes must not disturb: writes, random draws, and results that share memory."""

from __future__ import annotations

import operator

import torch
from torch.fx import GraphModule, Node

from braze._torch import schema
from braze._torch.schema import Effect, effects_of

__all__ = ["aliases_output", "is_barrier", "is_pure", "is_view", "view_base", "written_placeholders"]


def is_pure(node: Node) -> bool:
    """Whether a node gives the same value whenever it has the same arguments, and does nothing else."""
    if node.op != "call_function":
        return False
    if schema.is_operator(node.target):
        return not effects_of(node.target)
    # arithmetic on symbolic sizes, and picking one of several results
    return node.target is operator.getitem or _is_size_arithmetic(node)


def _is_size_arithmetic(node: Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, (int, float, torch.SymInt, torch.SymFloat, torch.SymBool)) and not any(
        isinstance(a.meta.get("val"), torch.Tensor) for a in node.all_input_nodes
    )


def is_barrier(node: Node) -> bool:
    """Whether values read before the node may differ from values read after it."""
    if node.op != "call_function":
        return False
    if schema.is_operator(node.target):  # its schema shows what it writes to: no registry has to be asked
        return schema.operator_info(node.target).mutates
    return Effect.WRITE in effects_of(node.target)


def is_view(node: Node) -> bool:
    """Whether the node's value shares memory with its first argument."""
    if node.op != "call_function" or not schema.is_operator(node.target):
        return False
    # its schema promises a fresh tensor, its kernel returns a view
    return node.target is torch.ops.aten._unsafe_view.default or schema.operator_info(node.target).is_view


def view_base(node: Node) -> Node:
    """The node whose memory a chain of views looks at; `node` itself where it is no view."""
    while True:
        if (node.target is operator.getitem and is_view(node.all_input_nodes[0])) or is_view(node):
            node = node.all_input_nodes[0]
        else:
            return node


def aliases_output(gm: GraphModule) -> set[Node]:
    """The nodes whose memory leaves the graph: its outputs, and what these are views of. Two of them must
    stay two tensors even where they hold the same values, because the caller may write to one."""
    found: set[Node] = set()
    for node in gm.graph.output_node().all_input_nodes:
        while node not in found:
            found.add(node)
            # one of several results leaves: the call that made it must stay a call of its own
            if is_view(node) or node.target is operator.getitem:
                node = node.all_input_nodes[0]
    return found


def written_placeholders(gm: GraphModule) -> set[Node]:
    """The inputs that the graph writes to."""
    written: set[Node] = set()
    for node in gm.graph.nodes:
        if not is_barrier(node):
            continue
        if schema.is_operator(node.target):
            bound = schema.bind(node.target, node.args, node.kwargs)
            values = [bound[a.name] for a in schema.operator_info(node.target).arguments if a.written]
        else:
            values = list(node.all_input_nodes)
        for value in values:
            for item in value if isinstance(value, (list, tuple)) else (value,):
                if isinstance(item, Node):
                    written.add(view_base(item))
    return written
