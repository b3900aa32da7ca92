"""Tensors without elements: nothing has to be computed for them.

A file of its own: each pass has one.
"""

from __future__ import annotations

import torch
from torch.fx import GraphModule

from braze.frontend.passes.effects import is_pure

__all__ = ["run"]


def run(gm: GraphModule) -> None:
    """Make what `gm` computes without any elements an empty tensor, in place: kernels of operators may not be
    made for such, and their loops are no loops. Leaves alone what has effects, and sizes that may differ."""
    for node in list(gm.graph.nodes):
        if not (is_pure(node) and _is_empty(node.meta.get("val"))):
            continue
        value = node.meta["val"]
        with gm.graph.inserting_before(node):
            made = gm.graph.call_function(
                torch.ops.aten.empty_strided.default,
                (list(value.shape), list(value.stride())),
                {"dtype": value.dtype, "device": value.device},
            )
        made.meta = {**node.meta}
        node.replace_all_uses_with(made)
        gm.graph.erase_node(node)


def _is_empty(value: object) -> bool:
    return (
        isinstance(value, torch.Tensor)
        and value.layout is torch.strided
        and all(type(n) is int for n in (*value.shape, *value.stride()))
        and 0 in value.shape
    )
