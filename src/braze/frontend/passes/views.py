"""Views, copies and casts that change nothing, and chains of them that one can do alone."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import GraphModule, Node

from braze._torch.shapes import same_layout, same_size
from braze.frontend.passes.effects import aliases_output, is_view, view_base, written_placeholders

__all__ = ["run"]

aten = torch.ops.aten

_VIEWS = frozenset(
    {
        aten.alias.default,
        aten.as_strided.default,
        aten.detach.default,
        aten.expand.default,
        aten.permute.default,
        aten.slice.Tensor,
        aten.squeeze.dims,
        aten.view.default,
        aten._unsafe_view.default,
    }
)

_BY_PLACE = frozenset(
    {aten.as_strided.default, aten.as_strided_copy.default, aten.as_strided_scatter.default}
)
_COPIES = frozenset({aten.clone.default, aten._to_copy.default, aten.lift_fresh_copy.default})

_WIDER: dict[torch.dtype, frozenset[torch.dtype]] = {
    torch.bool: frozenset(
        {torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64}
        | {torch.float16, torch.bfloat16, torch.float32, torch.float64}
    ),
    torch.uint8: frozenset(
        {torch.int16, torch.int32, torch.int64, torch.float16, torch.bfloat16, torch.float32, torch.float64}
    ),
    torch.int8: frozenset(
        {torch.int16, torch.int32, torch.int64, torch.float16, torch.bfloat16, torch.float32, torch.float64}
    ),
    torch.int16: frozenset({torch.int32, torch.int64, torch.float32, torch.float64}),
    torch.int32: frozenset({torch.int64, torch.float64}),
    torch.float16: frozenset({torch.float32, torch.float64}),
    torch.bfloat16: frozenset({torch.float32, torch.float64}),
    torch.float32: frozenset({torch.float64}),
}
"""The types that hold every value of a type."""


def run(gm: GraphModule) -> bool:
    """Shorten chains, then remove what is left of them without effect. Linear in the number of nodes."""
    outputs = set(gm.graph.output_node().all_input_nodes)
    leaving = aliases_output(gm)
    written = written_placeholders(gm)
    changed = False
    for node in list(gm.graph.nodes):
        if node.op != "call_function":
            continue
        if node.target in _VIEWS:
            changed |= _shorten_view(node)
            removable = _looks_the_same(node) and not _merges_outputs(node, outputs)
        elif node.target in _COPIES:
            changed |= _shorten_cast(node)
            removable = (
                _looks_the_same(node) and _may_share(node, leaving, written) and not _placed_anew(node)
            )
        else:
            continue
        if removable:
            node.replace_all_uses_with(node.args[0])
            gm.graph.erase_node(node)
            changed = True
    return changed


def _looks_the_same(node: Node) -> bool:
    """Whether the result has the sizes, strides, offset, type and place of the argument."""
    source = node.args[0]
    if not isinstance(source, Node):
        return False
    before, after = source.meta.get("val"), node.meta.get("val")
    if not (isinstance(before, torch.Tensor) and isinstance(after, torch.Tensor)):
        return False
    if before.dtype != after.dtype or before.device != after.device:
        return False
    # conjugation is a bit on the tensor that its sizes do not show; sparse ones have no strides
    if before.is_complex() or before.layout is not torch.strided or after.layout is not torch.strided:
        return False
    if node.target in _VIEWS and not same_size(before.storage_offset(), after.storage_offset()):
        return False
    return same_layout(before, after)


def _merges_outputs(node: Node, outputs: set[Node]) -> bool:
    """Whether without it the graph would return one tensor object where it returned two, or an input."""
    source: Any = node.args[0]
    return node in outputs and (source in outputs or source.op != "call_function")


def _may_share(node: Node, leaving: set[Node], written: set[Node]) -> bool:
    """Whether a copy may be the original: nobody outside gets hold of both, and nothing is written in
    between."""
    source: Any = node.args[0]
    base = view_base(source)
    if base in written:
        return False
    return node not in leaving or (base.op == "call_function" and base not in leaving)


def _placed_anew(copy: Node) -> bool:
    """Whether somebody looks at the copy by places in its memory, where its elements do not lie as the
    original's do in theirs."""
    waiting = [copy]
    for node in waiting:
        for user in node.users:
            if user.target in _BY_PLACE:
                return True
            if user not in waiting and (is_view(user) or user.target in _COPIES):
                waiting.append(user)
    return False


def _shorten_view(node: Node) -> bool:
    """view(view(x)) -> view(x), and the same for permute, expand and squeeze-free chains of one kind."""
    source: Any = node.args[0]
    if not isinstance(source, Node) or source.target is not node.target:
        return False
    if node.target in (aten.view.default, aten.expand.default, aten._unsafe_view.default):
        # an expanded size may be given as -1: "as in the argument", which is another one then
        if node.target is aten.expand.default and -1 in node.args[1]:  # type: ignore[operator]
            return False
        node.replace_input_with(source, source.args[0])  # type: ignore[arg-type]
        return True
    if node.target is aten.permute.default:
        inner, outer = source.args[1], node.args[1]
        rank = len(inner)  # type: ignore[arg-type]
        node.args = (source.args[0], [inner[d % rank] % rank for d in outer])  # type: ignore[index,operator,union-attr]
        return True
    return False


def _shorten_cast(node: Node) -> bool:
    """to(to(x, A), B) -> to(x, B) where A holds every value of x."""
    source: Any = node.args[0]
    if node.target is not aten._to_copy.default or not isinstance(source, Node):
        return False
    if source.target is not node.target or set(source.kwargs) != {"dtype"} or set(node.kwargs) != {"dtype"}:
        return False
    first: Any = source.args[0]
    before, between = first.meta["val"], source.meta["val"]
    if between.dtype not in _WIDER.get(before.dtype, ()):
        return False
    node.replace_input_with(source, first)
    return True
