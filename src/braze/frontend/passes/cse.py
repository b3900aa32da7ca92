"""Common subexpressions: a node that computes what an earlier one computed is replaced by that one.

A file of its own: each pass has one.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import GraphModule, Node

from braze.frontend.passes.effects import aliases_output, is_barrier, is_pure

__all__ = ["run"]


def run(gm: GraphModule) -> bool:
    """Merge equal nodes: same target, same arguments, no write to memory between them.

    Nodes whose memory leaves the graph are left alone: the caller would get one tensor where eager gives two.
    Linear in the number of nodes.
    """
    kept_apart = aliases_output(gm)
    seen: dict[object, Node] = {}
    changed = False
    for node in list(gm.graph.nodes):
        if is_barrier(node):
            seen.clear()
        elif is_pure(node) and node not in kept_apart:
            key = (node.target, _key(node.args), _key(node.kwargs))
            first = seen.setdefault(key, node)
            if first is not node:
                node.replace_all_uses_with(first)
                gm.graph.erase_node(node)
                changed = True
    return changed


def _key(value: Any) -> object:
    """`value` as something hashable that is equal for arguments of equal meaning only (0, 0.0, -0.0 and
    False are four different arguments)."""
    if isinstance(value, Node):
        return value
    if isinstance(value, (list, tuple)):
        return (list, *map(_key, value))
    if isinstance(value, dict):
        return (dict, *((k, _key(v)) for k, v in value.items()))
    if isinstance(value, slice):
        return (slice, _key(value.start), _key(value.stop), _key(value.step))
    if isinstance(value, (float, complex)):
        return (type(value), repr(value))
    if isinstance(value, (torch.SymInt, torch.SymFloat, torch.SymBool)):
        return (type(value), id(value.node))
    return (type(value), value)
