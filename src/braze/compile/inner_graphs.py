"""Graphs inside of a graph: what ``cond``, ``while_loop``, ``map`` and ``scan`` choose from or repeat is
compiled like any other graph, and becomes a part of the artefact of the graph around it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from torch.fx import GraphModule, Node

from braze._torch import tracing
from braze._torch.operators import qualified_name
from braze.artifact.compiled_graph import CompiledFxGraph
from braze.artifact.graph_call import GRAPHS_OF, GraphCall
from braze.compile.fx_compile import CompileRequest
from braze.errors import BrazeError

__all__ = ["calls_of_graphs"]


def calls_of_graphs(
    request: CompileRequest, compiled: Callable[[CompileRequest], CompiledFxGraph]
) -> dict[str, GraphCall | str]:
    """For each node that calls an operator with graphs, by name: its call with these compiled, or why it has
    none. Raises what ``compiled`` raises where the options are strict."""
    found: dict[str, GraphCall | str] = {}
    once = _Once(request, compiled)
    for node in request.gm.graph.nodes:
        if node.op == "call_function" and qualified_name(node.target) in GRAPHS_OF:
            try:
                found[node.name] = once.call(node)
            except Exception as error:
                if request.config.strict:
                    raise
                what = error.what if isinstance(error, BrazeError) else f"{type(error).__name__}: {error}"
                found[node.name] = f"a graph inside of it could not be compiled: {what}"
    return found


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
        parts = enumerate(_graphs(self._request.gm, node, operator))
        graphs, single = zip(*[self._graph(gm, f"{node.name}_{n}") for n, gm in parts], strict=True)
        return GraphCall(f"{node.name}_", operator, graphs, single)

    def _graph(self, gm: GraphModule, part: str) -> tuple[CompiledFxGraph, bool]:
        """A graph compiled, and whether it returns one value."""
        if gm not in self._known:
            inner = tracing.copied(gm)
            output = inner.graph.output_node()
            single = not isinstance(output.args[0], (tuple, list))
            if single:
                output.args = ((output.args[0],),)
            self._known[gm] = self._compiled(_part_of(self._request, inner, part)), single
        return self._known[gm]


def _graphs(gm: GraphModule, node: Node, operator: str) -> Iterator[GraphModule]:
    for place in GRAPHS_OF[operator]:
        given = node.args[place] if place < len(node.args) else None
        found = gm.get_submodule(str(given.target)) if isinstance(given, Node) else given
        if not isinstance(found, GraphModule):
            raise BrazeError(f"its argument {place} is a {type(found).__name__}")
        yield found


def _part_of(request: CompileRequest, gm: GraphModule, part: str) -> CompileRequest:
    examples = [node.meta["val"] for node in gm.graph.find_nodes(op="placeholder")]
    return replace(
        request,
        gm=gm,
        example_inputs=tuple(examples),
        static_inputs=frozenset(),
        visible_outputs=len(gm.graph.output_node().args[0]),  # type: ignore[arg-type]
        kind="inference",
        part="_".join([*filter(None, [request.part]), part]),
    )
