"""Where a graph node comes from, in words."""

from __future__ import annotations

from typing import Any

from torch.fx import Node

from braze._torch.provenance import source_of

__all__ = ["operator_name", "source_of"]


def operator_name(node: Node) -> str:
    """``aten.add.Tensor``, or the function's name."""
    if node.op != "call_function":
        return node.op
    target: Any = node.target
    return str(target) if not hasattr(target, "__module__") or hasattr(target, "_schema") else target.__name__
