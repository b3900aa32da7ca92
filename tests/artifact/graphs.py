"""Small artefacts, as the compiler makes them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch

from braze import config
from braze.artifact.compiled_graph import CompiledFxGraph
from braze.compile import pipeline
from braze.compile.fx_compile import CompileRequest

__all__ = ["compiled_graphs", "dynamic_bytes", "fixed_bytes"]


def compiled_graphs(
    function: Callable[..., Any], *args: Any, dynamic: bool = False
) -> tuple[Any, list[CompiledFxGraph]]:
    """What ``function(*args)`` gives when it is compiled, and the graphs that this took."""
    made: list[CompiledFxGraph] = []
    compile_graph = pipeline.compile_graph

    def record(request: CompileRequest) -> CompiledFxGraph:
        made.append(compile_graph(request))
        return made[-1]

    torch.compiler.reset()
    pipeline.compile_graph = record
    try:
        with config.patch(cache=False, fx_compile_mode="in-process"):
            result = torch.compile(function, backend="braze", dynamic=dynamic)(*args)
    finally:
        pipeline.compile_graph = compile_graph
        torch.compiler.reset()
    return result, made


def _bytes(function: Callable[..., Any], *args: Any, dynamic: bool = False) -> bytes:
    _, (graph,) = compiled_graphs(function, *args, dynamic=dynamic)
    return graph.prepare_for_serialization()


@functools.lru_cache(maxsize=1)
def fixed_bytes() -> bytes:
    """One kernel, one constant, one view, fixed sizes."""
    return _bytes(lambda x: (x * torch.tensor([1.0, 2.0, 3.0, 4.0])).t(), torch.arange(8.0).view(2, 4))


@functools.lru_cache(maxsize=1)
def dynamic_bytes() -> bytes:
    """Symbolic sizes, a workspace, operators that are called whole, a checked index, a mutated input."""

    def function(x: torch.Tensor, w: torch.Tensor, index: torch.Tensor) -> Any:
        y = torch.mm(x, w).relu()
        values, _ = torch.topk(y, 2, -1)
        return y.sum(1).softmax(0), y[index], x.add_(1), values.t()

    return _bytes(function, torch.randn(5, 7), torch.randn(7, 6), torch.tensor([1, 2]), dynamic=True)
