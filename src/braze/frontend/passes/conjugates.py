"""Copies of lazily conjugated tensors become conjugates.

Operators that know nothing of such tensors get copies of them, while the graph is traced. Where a forward and
a backward are cut apart, the lazy tensor before the copy would be kept, which compiled code does not read.

A file of its own: each pass has one.
"""

from __future__ import annotations

import torch
from torch.fx import GraphModule, Node

from braze.frontend.passes.builder import NodeBuilder
from braze.frontend.passes.effects import is_view

__all__ = ["run"]

aten = torch.ops.aten


def run(gm: GraphModule) -> bool:
    """Rewrite ``clone(view(_conj(x)))``, with any number of views, to the conjugate of ``view(x)``."""
    changed = False
    for node in list(gm.graph.nodes):
        if node.target is not aten.clone.default:
            continue
        views = _views_of_conjugate(node.args[0])
        if not views:
            continue
        build = NodeBuilder(gm, node)
        source = views[-1].args[0]
        for view in reversed(views[:-1]):
            source = build.call(view.target, source, *view.args[1:], **view.kwargs)
        node.replace_all_uses_with(build.call_as(node.meta["val"], aten._conj_physical.default, source))
        for unused in (node, *views):
            if not unused.users:
                gm.graph.erase_node(unused)
        changed = True
    return changed


def _views_of_conjugate(node: object) -> list[Node]:
    """The chain of views from a node down to a conjugate, which is the last; empty where there is none."""
    chain: list[Node] = []
    while isinstance(node, Node) and is_view(node) and _is_conjugated(node):
        chain.append(node)
        if node.target is aten._conj.default:
            return chain
        node = node.args[0]
    return []


def _is_conjugated(node: Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and value.is_conj()
