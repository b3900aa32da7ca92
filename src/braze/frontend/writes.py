"""What a graph of Dynamo's writes to, before it is made functional."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch.fx import Node

from braze._torch.native import storage_id

__all__ = ["reaches", "written_by"]

_WRITING_OPERATORS = frozenset(
    """
    setitem iadd isub imul itruediv ifloordiv imod ipow imatmul iand ior ixor ilshift irshift
    """.split()
)
"""Functions of Python's that write to their first argument, without underscores."""


def written_by(node: Node) -> list[Node]:
    """What a node of Dynamo's graph writes to, by the names that PyTorch gives its functions."""
    out = node.kwargs.get("out")
    name = str(node.target if node.op == "call_method" else getattr(node.target, "__name__", ""))
    plain = name.strip("_")
    in_place = node.op in ("call_function", "call_method") and (
        plain in _WRITING_OPERATORS
        or (name.endswith("_") and not name.startswith("__"))
        or node.kwargs.get("inplace") is True
    )
    found: list[Node] = []
    for one in (out, node.args[0] if in_place and node.args else None):
        found += [n for n in (one if isinstance(one, (list, tuple)) else [one]) if isinstance(n, Node)]
    return found


def reaches(node: Node, some: Collection[Node]) -> bool:
    """Whether a node, or one that it is a view of, is among ``some``."""
    if node in some:
        return True
    value = node.meta.get("example_value")
    if not isinstance(value, torch.Tensor):
        return False
    return any(reaches(one, some) for one in node.all_input_nodes if _shares(one, value))


def _shares(node: Node, value: torch.Tensor) -> bool:
    other = node.meta.get("example_value")
    tensors = other if isinstance(other, (list, tuple)) else [other]
    return any(isinstance(t, torch.Tensor) and storage_id(t) == storage_id(value) for t in tensors)
