"""Graphs inside of a graph: what ``cond``, ``while_loop``, ``map`` and ``scan`` choose from or repeat is
compiled like any other graph, and becomes a part of the artefact of the graph around it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from torch.fx import GraphModule, Node

from braze._torch import tracing
from braze._torch.operators import qualified_name
from braze.artifact.compiled_graph import CompiledFxGraph
from braze.artifact.graph_call import GRAPHS_OF, GraphCall
from braze.compile.fx_compile import CompileRequest
from braze.errors import BrazeError, Refused

__all__ = ["calls_of_graphs", "graphs_inside", "returns_a_tuple"]


def calls_of_graphs(
    request: CompileRequest, compiled: Callable[[CompileRequest], CompiledFxGraph]
) -> dict[str, GraphCall | Refused]:
    """For each node that calls an operator with graphs, by name: its call with these compiled, or why it has
    none. Raises what ``compiled`` raises where the options are strict."""
    found: dict[str, GraphCall | Refused] = {}
    once = _Once(request, compiled)
    for node in _calls(request.gm):
        try:
            found[node.name] = once.call(node)
        except Exception as error:
            if request.config.strict:
                raise
            what = error.what if isinstance(error, BrazeError) else f"{type(error).__name__}: {error}"
            found[node.name] = Refused(f"a graph inside of it could not be compiled: {what}")
    return found


def graphs_inside(gm: GraphModule) -> list[GraphModule]:
    """The graphs that operators of ``gm`` take, each once; not those further inside."""
    found = (inner for node in _calls(gm) for inner in _graphs(gm, node))
    return list(dict.fromkeys(inner for inner in found if isinstance(inner, GraphModule)))


@contextmanager
def returns_a_tuple(gm: GraphModule) -> Iterator[bool]:
    """Inside the block ``gm`` returns a tuple, as all do that are compiled; gives whether it returns a value
    by itself, as graphs inside of others may."""
    output = gm.graph.output_node()
    single = not isinstance(output.args[0], (tuple, list))
    if single:
        output.args = ((output.args[0],),)
    try:
        yield single
    finally:
        if single:
            output = gm.graph.output_node()  # passes may have made the graph anew
            (output.args,) = output.args  # type: ignore[assignment]


def _calls(gm: GraphModule) -> list[Node]:
    nodes = gm.graph.nodes
    return [n for n in nodes if n.op == "call_function" and qualified_name(n.target) in GRAPHS_OF]


class _Once:
    """Compiles the graphs of one request, each of them once, however many calls there are of it."""

    def __init__(
        self, request: CompileRequest, compiled: Callable[[CompileRequest], CompiledFxGraph]
    ) -> None:
        self._request = request
        self._compiled = compiled
        self._known: dict[GraphModule, tuple[CompiledFxGraph, bool]] = {}

    def call(self, node: Node) -> GraphCall:
        operator = qualified_name(node.target)
        assert operator is not None
        parts = enumerate(_graphs(self._request.gm, node))
        graphs, single = zip(*[self._graph(part, f"{node.name}_{n}") for n, part in parts], strict=True)
        return GraphCall(f"{node.name}_", operator, graphs, single)

    def _graph(self, gm: object, part: str) -> tuple[CompiledFxGraph, bool]:
        """A graph compiled, and whether it returns one value."""
        if not isinstance(gm, GraphModule):
            raise BrazeError(f"in the place of a graph it takes a {type(gm).__name__}")
        if gm not in self._known:
            inner = tracing.copied(gm)
            with returns_a_tuple(inner) as single:
                self._known[gm] = self._compiled(_part_of(self._request, inner, part)), single
        return self._known[gm]


def _graphs(gm: GraphModule, node: Node) -> Iterator[object]:
    for place in GRAPHS_OF[str(qualified_name(node.target))]:
        given = node.args[place] if place < len(node.args) else None
        named = isinstance(given, Node) and given.op == "get_attr"
        yield gm.get_submodule(str(given.target)) if named else given  # type: ignore[union-attr]


def _part_of(request: CompileRequest, gm: GraphModule, part: str) -> CompileRequest:
    return replace(
        request,
        gm=gm,
        static_inputs=frozenset(),
        visible_outputs=len(gm.graph.output_node().args[0]),  # type: ignore[arg-type]
        kind="inference",
        part="_".join([*filter(None, [request.part]), part]),
    )
