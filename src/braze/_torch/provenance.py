"""Where a graph node comes from: the stack of the user's program, as Dynamo notes it."""

from __future__ import annotations

import re

from torch.fx import GraphModule, Node, traceback

__all__ = ["current_source", "source_of", "source_of_error", "with_source"]

_ORIGIN = "Original traceback:"
_FRAME = re.compile(r'File "([^"]+)", line (\d+), in .*\n\s*(.*)')
_SOURCE = re.compile(r'([^"\n]+?):(\d+):(?: (.*))?')


def source_of(node: Node) -> str:
    """``file:line: code`` of the innermost frame of the user's program, empty if unknown."""
    trace = node.meta.get("stack_trace") or ""
    return _line(_FRAME.findall(trace))


def _line(frames: list[tuple[str, str, str]]) -> str:
    if not frames:
        return ""
    path, line, code = frames[-1]
    return f"{path}:{line}: {code.strip()}"


def current_source() -> str:
    """The line that is being traced right now, in the form of `source_of`; empty if unknown."""
    return _line(_FRAME.findall(traceback.get_current_meta().get("stack_trace") or ""))


def source_of_error(error: BaseException, gm: GraphModule) -> str | None:
    """The line of the user's program that a trace of `gm` failed at, in the form of `source_of`: what the
    interpreter of graphs adds to an error says which; else the first line that the graph comes from."""
    _, marked, listing = str(error).partition(_ORIGIN)
    found = (_line(_FRAME.findall(listing)) if marked else "") or next(
        filter(None, (source_of(node) for node in gm.graph.nodes)), ""
    )
    return found or None


def with_source(node: Node, source: str) -> bool:
    """Note where a node comes from, in the form that `source_of` gives. False for a text of another form."""
    found = _SOURCE.fullmatch(source)
    if found is None:
        return False
    path, line, code = found.groups()
    node.meta["stack_trace"] = f'  File "{path}", line {line}, in forward\n    {code or ""}\n'
    return True
