"""Calls of operators that take graphs: ``cond``, ``while_loop``, ``map``, ``scan``, and regions that are
compiled once. Their graphs are compiled ones; the operator, which chooses and repeats them, is PyTorch's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import torch

from braze._torch.operators import find_operator
from braze.artifact.schema import NumberInput, TensorInput
from braze.errors import ArtifactError
from braze.runtime.spec import restrided

if TYPE_CHECKING:
    from braze.artifact.compiled_graph import CompiledFxGraph

__all__ = ["GRAPHS_OF", "GraphCall"]

GRAPHS_OF: Final[Mapping[str, tuple[int, ...]]] = {
    "higher_order::cond": (1, 2),
    "higher_order::invoke_subgraph": (0,),
    "higher_order::map_impl": (0,),
    "higher_order::scan": (0,),
    "higher_order::while_loop": (0, 1),
    "higher_order::while_loop_stack_output": (0, 1),
}
"""The operators, and which of their arguments are graphs."""


class GraphCall:
    """A function of an operator's other arguments, as a launch plan calls it.

    Attributes:
        name: of the call, in its graph.
        operator: a key of `GRAPHS_OF`.
        graphs: its graphs, in the order of the arguments that they are.
        single: for each graph whether it returns a value, and not a tuple of such.
    """

    def __init__(
        self, name: str, operator: str, graphs: Sequence[CompiledFxGraph], single: Sequence[bool]
    ) -> None:
        """Raises ``ArtifactError`` for an operator that is none of these, or takes other graphs."""
        places = GRAPHS_OF.get(operator)
        self._operator = None if places is None else find_operator(operator)
        if places is None or self._operator is None:
            raise ArtifactError(f"{operator!r} is not an operator that takes graphs")
        if not len(places) == len(graphs) == len(single):
            raise ArtifactError(f"{operator} takes {len(places)} graphs, not {len(graphs)}")
        self.name = self.__name__ = name
        self.operator = operator
        self.graphs = tuple(graphs)
        self.single = tuple(single)
        self._places = places
        self._functions: tuple[Callable[..., Any], ...] = ()

    def __str__(self) -> str:
        return self.operator.replace("::", ".")

    def of(self, graphs: Sequence[CompiledFxGraph]) -> GraphCall:
        """The same call of other graphs."""
        return GraphCall(self.name, self.operator, graphs, self.single)

    def post_compile(self, module: object = None, *, min_parallel_work: int | None = None) -> None:
        """Make its graphs callable, and with them the call. Raises as they do."""
        for graph in self.graphs:
            graph.post_compile(module, min_parallel_work=min_parallel_work)
        self._functions = tuple(map(_function, self.graphs, self.single))

    def __call__(self, *arguments: Any) -> Any:
        given = list(arguments)
        for place, function in zip(self._places, self._functions, strict=True):
            given.insert(place, function)
        assert self._operator is not None
        return self._operator(*given)


def _function(graph: CompiledFxGraph, single: bool) -> Callable[..., Any]:
    """A compiled graph as a function of its inputs, wherever in memory these lie: what a loop hands on, or
    takes a part of, has strides of its own."""
    run, specs = graph.run, graph.info.inputs
    symbolic = any(isinstance(s, TensorInput) and None in [e.constant for e in s.spec.strides] for s in specs)

    def function(*arguments: Any) -> Any:
        known = _sizes(graph, arguments) if symbolic else {}
        inputs = list(arguments)
        for position, (spec, value) in enumerate(zip(specs, arguments, strict=True)):
            if isinstance(spec, TensorInput) and isinstance(value, torch.Tensor):
                strides = tuple([e.evaluate(known) for e in spec.spec.strides])
                if len(strides) == value.dim():  # the graph itself says what is wrong with others
                    inputs[position] = restrided(value, strides)
        results = tuple(run(inputs))
        return results[0] if single else results

    return function


def _sizes(graph: CompiledFxGraph, arguments: Sequence[Any]) -> dict[str, int]:
    """The values of the symbols that sizes and numbers among the arguments are."""
    known: dict[str, int] = {}
    for spec, value in zip(graph.info.inputs, arguments, strict=True):
        if isinstance(spec, NumberInput) and spec.expression.symbol is not None:
            known[spec.expression.symbol.name] = int(value)
        elif isinstance(spec, TensorInput):
            pairs = zip(spec.spec.sizes, value.shape)
            known.update({e.symbol.name: n for e, n in pairs if e.symbol is not None})
    return known
