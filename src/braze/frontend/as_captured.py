"""The graph that Dynamo captured, run by eager operators: what is left when anything fails on the way from it
to compiled code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from torch.fx import Graph, GraphModule

from braze import notices
from braze._torch import dynamo
from braze.compile.failing import given_up
from braze.errors import LoweringError

__all__ = ["CapturedGraph", "or_as_captured"]

_Call: TypeAlias = Callable[..., Any]


class CapturedGraph:
    """A copy of a graph of Dynamo's, to be called with its inputs. Keeps nothing of the trace."""

    def __init__(self, gm: GraphModule) -> None:
        self._graph = Graph()
        self._graph.output(self._graph.graph_copy(gm.graph, {}))
        self._attributes = {}
        for node in self._graph.nodes:
            node.meta.clear()
            if node.op in ("get_attr", "call_module"):
                self._attributes[str(node.target)] = _attribute(gm, str(node.target))
        self._module: GraphModule | None = None

    def __call__(self, *arguments: Any) -> Any:
        if self._module is None:
            self._module = GraphModule(self._attributes, self._graph)
        return self._module(*arguments)


def _attribute(gm: GraphModule, target: str) -> Any:
    found: Any = gm
    for name in target.split("."):
        found = getattr(found, name)
    return found


def or_as_captured(compile: Callable[[], _Call], gm: GraphModule, *, strict: bool) -> _Call:
    """What ``compile`` returns, the callable for ``gm``; where it fails, the graph as it is, run by eager
    operators, with one warning. Everything that Dynamo has done for a graph happens in here.

    Lets through what ends the program, and what tells Dynamo to trace again. Raises ``BrazeError`` in strict
    mode, whatever failed."""
    with notices.held():
        try:
            unusual = dynamo.unusual_input(gm)
            if unusual == dynamo.FAKE:  # nothing will be computed, and there is nothing to say of that
                return dynamo.untraced(CapturedGraph(gm))
            if unusual is not None:
                raise LoweringError(f"an input is {unusual}")
            if dynamo.watch_forward_mode():
                raise LoweringError("forward-mode derivatives are not compiled")
            with notices.held():  # of what was said on a way that failed nothing is true any more
                return compile()
        except Exception as error:
            if dynamo.is_for_dynamo(error):
                raise
            given_up("a graph", error, gm, strict=strict)
            return dynamo.untraced(CapturedGraph(gm))
