"""Adding nodes to a graph whose nodes carry fake tensors."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import GraphModule, Node

from braze._torch import tracing
from braze.ir import prims

__all__ = ["NodeBuilder"]

# where a node comes from; what depends on its value is not among it
_PROVENANCE = ("stack_trace", "nn_module_stack", "source_fn_stack", "original_aten", "custom", "seq_nr")


class NodeBuilder:
    """Puts nodes before one node of a graph, in its name and with its provenance."""

    def __init__(self, gm: GraphModule, before: Node) -> None:
        self._graph = gm.graph
        self._before = before
        self._fake_mode = tracing.fake_mode_of([n.meta.get("val") for n in (before, *before.all_input_nodes)])
        self._meta = {k: before.meta[k] for k in _PROVENANCE if k in before.meta}

    def call(self, target: Any, *args: Any, **kwargs: Any) -> Node:
        """A node that calls an operator or one of `braze.ir.prims`, with its metadata computed."""
        values = torch.fx.map_arg(args, _value)
        keywords = torch.fx.map_arg(kwargs, _value)
        compute = prims.METAS.get(target, target)
        if self._fake_mode is None:
            return self.call_as(compute(*values, **keywords), target, *args, **kwargs)
        with self._fake_mode:
            value = compute(*values, **keywords)
        return self.call_as(value, target, *args, **kwargs)

    def call_as(self, value: Any, target: Any, *args: Any, **kwargs: Any) -> Node:
        """A node with metadata that is known already: computing it takes longer than all the rest."""
        with self._graph.inserting_before(self._before):
            node = self._graph.call_function(target, args, kwargs)
        node.meta.update(self._meta)
        node.meta["val"] = value
        return node

    def sizes(self, node: Node) -> list[int | Node]:
        """The shape of a node's tensor: numbers, and nodes for the sizes that are symbols."""
        shape = node.meta["val"].shape
        return [
            size if isinstance(size, int) else self.call(torch.ops.aten.sym_size.int, node, dim)
            for dim, size in enumerate(shape)
        ]


def _value(node: Node) -> Any:
    return node.meta["val"]
