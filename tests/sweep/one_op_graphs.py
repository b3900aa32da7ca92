"""Single operators through lowering, schedule, machine code and launch plan: each a node of its own, many in
one graph, because a graph costs as much as several nodes."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch._subclasses import FakeTensorMode
from torch.fx import Graph, GraphModule, Node

import braze.lowering.families  # noqa: F401  fills the registry
from braze._torch.shapes import shape_env_of
from braze.compile.fx_compile import CompileRequest
from braze.compile.pipeline import compile_graph
from braze.config import Config
from braze.errors import BrazeError, FallbackError
from braze.frontend.aot import next_graph_id
from tests.numerics import map_tensors
from tests.opinfo.cases import describe as error_text
from tests.sweep.compare import Sample

STRICT = Config(strict=True, fallback_random=True)


@dataclass(frozen=True)
class Refused:
    """No result. ``declined``: the lowering leaves this call to eager, or PyTorch cannot trace it; else an
    error that eager does not raise."""

    reason: str
    declined: bool = False


Outcome = Refused | tuple[Any, Any]
"""No result, or the result and the arguments afterwards."""


def run_batch(samples: Sequence[Sample]) -> Iterator[tuple[Sample, Outcome]]:
    """Every sample with what became of it."""
    rest = list(samples)
    while rest:
        batch = _Batch()
        for sample in rest:
            try:
                batch.add(sample)
            except Exception as error:
                yield sample, Refused(f"its fake version raises {error_text(error)}", declined=True)
        rest = batch.samples
        if not rest:
            return
        try:
            results = batch.run()
        except Exception as error:
            guilty = batch.guilty(error)
            if guilty is not None:
                yield guilty, Refused(str(error), declined=isinstance(error, FallbackError))
                rest = [sample for sample in rest if sample is not guilty]
                continue
            for sample in rest:
                yield from run_batch([sample])
            return
        yield from zip(rest, results, strict=True)
        return


class _Batch:
    """A graph with one node for each sample, whose tensors are its inputs."""

    def __init__(self) -> None:
        self.samples: list[Sample] = []
        self._mode = FakeTensorMode()
        self._arguments: list[Any] = []
        self._calls: list[tuple[Sample, Any, Any, Any]] = []
        self._nodes: dict[str, Sample] = {}

    def add(self, sample: Sample) -> None:
        """One more. Raises what its fake version raises."""
        arguments = list(sample.call.copies())
        fakes = map_tensors(arguments, self._mode.from_tensor)
        before = map_tensors(fakes, lambda t: t)
        with self._mode:
            value = sample.op(*fakes[0], **fakes[1])
        self.samples.append(sample)
        self._arguments.append(arguments)
        self._calls.append((sample, before, value, arguments))

    def run(self) -> list[tuple[Any, Any]]:
        """For each sample the result and the arguments afterwards."""
        graph, inputs, fakes = Graph(), [], []

        def hold(tensor: torch.Tensor) -> Node:
            node = graph.placeholder(f"x{len(inputs)}")
            inputs.append(tensor)
            return node

        trees = [map_tensors(arguments, hold) for arguments in self._arguments]
        placeholders = list(graph.nodes)
        for (_, before, _, _), tree in zip(self._calls, trees, strict=True):
            _pair(tree, before)
        fakes = [node.meta["val"] for node in placeholders]
        outputs: list[Any] = []
        patterns = []
        for (sample, _, value, _), (args, kwargs) in zip(self._calls, trees, strict=True):
            node = graph.call_function(sample.op, tuple(args), dict(kwargs))
            self._nodes[node.name] = sample
            patterns.append(_results(graph, node, value, outputs))
        graph.output(tuple(outputs))
        request = CompileRequest(
            gm=GraphModule({}, graph),
            shape_env=shape_env_of(fakes),
            static_inputs=frozenset(),
            visible_outputs=len(outputs),
            config=STRICT,
            kind="inference",
            graph_id=next_graph_id(),
        )
        torch.manual_seed(1)
        found = compile_graph(request).run(list(inputs))
        results = [_filled(pattern, found) for pattern in patterns]
        return list(zip(results, self._arguments, strict=True))

    def guilty(self, error: Exception) -> Sample | None:
        """The sample whose node an error names, or the only one."""
        if len(self.samples) == 1:
            return self.samples[0]
        name = (error.node or "").split(" ")[0] if isinstance(error, BrazeError) else ""
        return self._nodes.get(name)


def _pair(tree: Any, fakes: Any) -> None:
    """Give the nodes in `tree` the fake tensors in their places in `fakes` as values."""
    if isinstance(tree, Node):
        tree.meta["val"] = fakes
    elif isinstance(tree, dict):
        for key in tree:
            _pair(tree[key], fakes[key])
    elif isinstance(tree, (list, tuple)) and not isinstance(tree, torch.Size):
        for one, other in zip(tree, fakes, strict=True):
            _pair(one, other)


def _results(graph: Graph, node: Node, value: Any, outputs: list[Any]) -> Any:
    """The positions of a node's tensors among the outputs, in the structure of its value."""
    node.meta["val"] = value
    if isinstance(value, (tuple, list)):
        parts = []
        for position, part in enumerate(value):
            item = graph.call_function(operator.getitem, (node, position))
            parts.append(_results(graph, item, part, outputs))
        return parts
    if not isinstance(value, torch.Tensor):
        return _Plain(value)
    outputs.append(node)
    return len(outputs) - 1


@dataclass(frozen=True)
class _Plain:
    value: Any


def _filled(pattern: Any, found: Sequence[Any]) -> Any:
    if isinstance(pattern, list):
        return tuple(_filled(part, found) for part in pattern)
    return pattern.value if isinstance(pattern, _Plain) else found[pattern]
