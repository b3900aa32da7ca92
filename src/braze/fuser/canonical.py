"""A graph as text that equal graphs share: what fusions are found by."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.fx import Graph, Node

from braze._torch.schema import is_operator
from braze.errors import UnserializableError

__all__ = ["canonical", "key_of"]

_PLAIN = (
    int, float, complex, bool, str, bytes, type(None), type(Ellipsis),
    torch.dtype, torch.device, torch.layout, torch.memory_format,
)  # fmt: skip


def canonical(graph: Graph, types: Sequence[str] = ()) -> str:
    """One line for each node that an output or an effect needs, with names by position. ``types``: what the
    inputs are. Raises `UnserializableError` for a graph that holds what has no text of its own."""
    names: dict[Node, str] = {}
    lines: list[str] = []
    needed = _needed(graph)
    for node in graph.nodes:
        if node.op == "output":
            lines.append(f"return {_text(node.args[0], names)}")
        elif node.op == "placeholder":
            kind = f" {types[len(names)]}" if types else ""
            names[node] = f"%{len(names)}"
            default = f" or {_text(node.args[0], {})}" if node.args else ""
            lines.append(f"{names[node]} = input{kind}{default}")
        elif node in needed:
            arguments = [_text(a, names) for a in node.args]
            arguments += [f"{k}={_text(v, names)}" for k, v in sorted(node.kwargs.items())]
            names[node] = f"%{len(names)}"
            lines.append(f"{names[node]} = {_target(node)}({', '.join(arguments)})")
    return "\n".join(lines)


def key_of(text: str) -> str:
    """The key of a fusion with this text: the same in every process."""
    return "fusion_" + hashlib.sha256(text.encode()).hexdigest()[:16]


def _needed(graph: Graph) -> set[Node]:
    found: set[Node] = set()
    for node in reversed(graph.nodes):
        if node.op == "output" or node.is_impure() or any(user in found for user in node.users):
            found.add(node)
    return found


def _target(node: Node) -> str:
    if isinstance(node.target, str):
        if node.op in ("get_attr", "call_module"):
            raise UnserializableError(f"the graph uses {node.target}, an attribute of its module")
        return f".{node.target}"
    if is_operator(node.target):
        return str(node.target)
    name = getattr(node.target, "__qualname__", getattr(node.target, "__name__", ""))
    name = name.removeprefix("_VariableFunctionsClass.")  # where PyTorch's generated bindings live
    module = getattr(node.target, "__module__", None) or "torch"
    if _found_by_name(module, name) is not node.target:
        raise UnserializableError(f"the graph calls {node.target}, which has no name of its own")
    return f"{module.lstrip('_')}.{name}"


def _found_by_name(module: str, name: str) -> Any:
    value: Any = sys.modules.get(module)
    for part in name.split("."):
        value = getattr(value, part, None)
    return value


def _text(value: Any, names: Mapping[Node, str]) -> str:
    if isinstance(value, Node):
        return names[value]
    if type(value) is tuple:
        return f"({', '.join([_text(v, names) for v in value])})"
    if isinstance(value, (tuple, list)):
        return f"[{', '.join([_text(v, names) for v in value])}]"
    if isinstance(value, dict):
        return f"{{{', '.join([f'{k!r}: {_text(v, names)}' for k, v in value.items()])}}}"
    if isinstance(value, slice):
        return f"slice({', '.join([_text(v, names) for v in (value.start, value.stop, value.step)])})"
    if isinstance(value, _PLAIN):
        return repr(value)
    raise UnserializableError(f"the graph holds a {type(value).__name__}")
