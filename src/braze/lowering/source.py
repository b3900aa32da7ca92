"""Where a graph node comes from, in words."""

from __future__ import annotations

import re
from typing import Any

from torch.fx import Node

_FRAME = re.compile(r'File "([^"]+)", line (\d+), in .*\n\s*(.*)')


def operator_name(node: Node) -> str:
    """``aten.add.Tensor``, or the function's name."""
    if node.op != "call_function":
        return node.op
    target: Any = node.target
    return str(target) if not hasattr(target, "__module__") or hasattr(target, "_schema") else target.__name__


def source_of(node: Node) -> str:
    """``file:line: code`` of the innermost frame of the user's program, empty if unknown."""
    trace = node.meta.get("stack_trace") or ""
    frames = _FRAME.findall(trace)
    if not frames:
        return ""
    path, line, code = frames[-1]
    return f"{path}:{line}: {code.strip()}"
