"""Inputs that a forward keeps for its backward, and that are written to when it is done.

PyTorch's partitioner would rather keep an input than what was computed from it, and does not look whether the
function writes to it. The backward would then read what was written, or autograd would refuse to run it. Such
an input is copied while the forward runs, and the copy is kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.fx import GraphModule, Node

from braze._torch.native import storage_id
from braze._torch.schema import bind, is_operator, operator_info

__all__ = ["keep_as_they_were"]


def keep_as_they_were(forward: GraphModule, backward: GraphModule, results: int) -> None:
    """Change both halves of a joint graph in place. ``results``: how many of the forward's outputs are not
    for the backward."""
    inputs = forward.graph.find_nodes(op="placeholder")
    changed = {_storage(node) for node in (*_written_inside(forward), *_written_afterwards(forward, inputs))}
    changed.discard(None)
    output: Any = forward.graph.output_node()
    saved = list(output.args[0])
    taken = backward.graph.find_nodes(op="placeholder")
    for place in range(results, len(saved)):
        node = saved[place]
        if not isinstance(node, Node) or _storage(node) not in changed or not _comes_from(node, inputs):
            continue
        with forward.graph.inserting_after(node if node.op != "placeholder" else inputs[-1]):
            copy = forward.graph.call_function(torch.ops.aten.clone.default, (node,))
        copy.meta = dict(node.meta)
        copy.meta["val"] = torch.clone(node.meta["val"])
        saved[place] = copy
        for theirs in taken:
            if theirs.name == node.name:
                with backward.graph.inserting_before(theirs):
                    again = backward.graph.placeholder(copy.name)
                again.meta = {**theirs.meta, "val": copy.meta["val"]}
                theirs.replace_all_uses_with(again)
                backward.graph.erase_node(theirs)
    if saved != list(output.args[0]):
        output.args = (type(output.args[0])(saved),)
        forward.recompile()
        backward.recompile()


def _storage(node: Node) -> int | None:
    value = node.meta.get("val")
    if not isinstance(value, torch.Tensor) or value.layout is not torch.strided:
        return None
    return storage_id(value)


def _comes_from(node: Node, inputs: Sequence[Node]) -> bool:
    """Whether a node is an input or a view of one."""
    while node not in inputs:
        if not is_operator(node.target) or not operator_info(node.target).is_view:
            return False
        first = node.args[0]
        if not isinstance(first, Node):
            return False
        node = first
    return True


def _written_afterwards(gm: GraphModule, inputs: Sequence[Node]) -> Iterator[Node]:
    """Inputs whose new values are outputs, which AOTAutograd copies to them."""
    described = gm.graph.output_node().meta.get("desc", ())
    for target in filter(None, [getattr(one, "mutated_input", None) for one in described]):
        yield from (node for node in inputs if node.meta.get("desc") == target)


def _written_inside(gm: GraphModule) -> Iterator[Node]:
    for node in gm.graph.nodes:
        if node.op == "call_function" and is_operator(node.target) and operator_info(node.target).mutates:
            bound = bind(node.target, node.args, node.kwargs)
            for argument in operator_info(node.target).arguments:
                value = bound[argument.name]
                if argument.written and isinstance(value, Node):
                    yield value
