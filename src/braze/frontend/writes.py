"""What a graph of Dynamo's, or of an exported program's, writes to, before it is made functional."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import torch
from torch.fx import Node

from braze._torch.native import storage_id
from braze._torch.schema import bind, is_operator, operator_info

__all__ = ["reaches", "written_by"]

_WRITING_OPERATORS = frozenset(
    """
    setitem iadd isub imul itruediv ifloordiv imod ipow imatmul iand ior ixor ilshift irshift
    """.split()
)
"""Functions of Python's that write to their first argument, without underscores."""


def written_by(node: Node) -> list[Node]:
    """What a node writes to: by its schema, or by the names that PyTorch gives its functions."""
    if is_operator(node.target):
        info = operator_info(node.target)
        given = bind(node.target, node.args, dict(node.kwargs)) if info.mutates else {}
        return _nodes(given[argument.name] for argument in info.arguments if given and argument.written)
    out = node.kwargs.get("out")
    name = str(node.target if node.op == "call_method" else getattr(node.target, "__name__", ""))
    plain = name.strip("_")
    in_place = node.op in ("call_function", "call_method") and (
        plain in _WRITING_OPERATORS
        or (name.endswith("_") and not name.startswith("__"))
        or node.kwargs.get("inplace") is True
    )
    return _nodes((out, node.args[0] if in_place and node.args else None))


def _nodes(values: Iterable[Any]) -> list[Node]:
    """The nodes among values, and in lists among them."""
    each = [one for value in values for one in (value if isinstance(value, (list, tuple)) else [value])]
    return [one for one in each if isinstance(one, Node)]


def reaches(node: Node, some: Collection[Node]) -> bool:
    """Whether a node, or one that it is a view of, is among ``some``."""
    if node in some:
        return True
    if is_operator(node.target):  # an exported program's values don't share what its tensors do
        return operator_info(node.target).is_view and any(reaches(n, some) for n in _nodes(node.args[:1]))
    value = node.meta.get("example_value")
    if not isinstance(value, torch.Tensor):
        return False
    return any(reaches(one, some) for one in node.all_input_nodes if _shares(one, value))


def _shares(node: Node, value: torch.Tensor) -> bool:
    other = node.meta.get("example_value")
    tensors = other if isinstance(other, (list, tuple)) else [other]
    return any(isinstance(t, torch.Tensor) and storage_id(t) == storage_id(value) for t in tensors)
