"""Where a graph node comes from: the stack of the user's program, as Dynamo notes it."""

from __future__ import annotations

import re

from torch.fx import Node

__all__ = ["source_of", "with_source"]

_FRAME = re.compile(r'File "([^"]+)", line (\d+), in .*\n\s*(.*)')
_SOURCE = re.compile(r'([^"\n]+?):(\d+):(?: (.*))?')


def source_of(node: Node) -> str:
    """``file:line: code`` of the innermost frame of the user's program, empty if unknown."""
    trace = node.meta.get("stack_trace") or ""
    frames = _FRAME.findall(trace)
    if not frames:
        return ""
    path, line, code = frames[-1]
    return f"{path}:{line}: {code.strip()}"


def with_source(node: Node, source: str) -> bool:
    """Note where a node comes from, in the form that `source_of` gives. False for a text of another form."""
    found = _SOURCE.fullmatch(source)
    if found is None:
        return False
    path, line, code = found.groups()
    node.meta["stack_trace"] = f'  File "{path}", line {line}, in forward\n    {code or ""}\n'
    return True
