"""Graphs to be fused, by key: registered once, run on whatever arguments come.

The functional core below `braze.fuse`, for people who have a graph and not a function. A key stands for the
graph's canonical text, so equal graphs share one, and their kernels, in every process.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import Graph, GraphModule

from braze.errors import FallbackError
from braze.fuser.accounts import stats
from braze.fuser.arguments import Structure, Unfusable
from braze.fuser.canonical import canonical, key_of
from braze.fuser.function import FusedFunction
from braze.fuser.kernel_cache import KernelSpec, kernel_specs
from braze.fuser.once import OnceMap

__all__ = [
    "compiled_kernel_count",
    "debug_kernel_source",
    "debug_launch",
    "kernels",
    "register_fusion",
    "run_fusion",
]


@dataclass(frozen=True)
class _Fusion:
    text: str
    module: GraphModule
    function: FusedFunction


_fusions: OnceMap[str, _Fusion] = OnceMap()


def register_fusion(graph: Graph | GraphModule) -> str:
    """Make a graph known, to be run by `run_fusion`; the key it has. Equal graphs, whatever their nodes are
    called, have the same key; it is the same in every process.

    Args:
        graph: of functions and operators of tensors and numbers (torch's, or ATen's). It is copied.

    Raises:
        UnserializableError: the graph uses attributes or submodules, which have to become inputs first, or
            calls a function without a name.
    """
    source = graph.graph if isinstance(graph, GraphModule) else graph
    text = canonical(source)
    key = key_of(text)

    def make() -> _Fusion:
        copy = Graph()
        output = copy.graph_copy(source, {})
        copy.output(output)
        module = GraphModule(torch.nn.Module(), copy)
        return _Fusion(text, module, FusedFunction(module.forward, name=key))

    _fusions.get_or_make(key, make)
    return key


def run_fusion(key: str, args: Sequence[Any]) -> Any:
    """What the graph of that key returns for these tensors and numbers: by a fused kernel, or by eager
    operators where it cannot be fused, with a warning that says why.

    Raises:
        KeyError: no graph was registered by that key.
        FallbackError: in strict mode, where it would not be fused.
    """
    return _fusion(key).wrapper(*args)


def _fusion(key: str) -> FusedFunction:
    fusion = _fusions.get(key)
    if fusion is None:
        raise KeyError(f"no fusion is registered as {key!r}")
    return fusion.function


def _resolved(target: str | Graph | GraphModule | Callable[..., Any]) -> FusedFunction:
    """The fused function that a key, a graph, or a function made by `fuse` stands for."""
    if isinstance(target, str):
        return _fusion(target)
    if isinstance(target, (Graph, GraphModule)):
        return _fusion(register_fusion(target))
    fused = getattr(target, "fused", None)
    if not isinstance(fused, FusedFunction):
        raise TypeError(f"{target!r} is neither a key nor a graph, nor a function made by braze.fuse")
    return fused


def _described(function: FusedFunction, args: Sequence[Any]) -> tuple[Structure, list[Any]]:
    """The arguments of a call, as structure and leaves. Raises ``FallbackError``."""
    leaves: list[Any] = []
    try:
        return function.described(function.subject.signature.bound(args), leaves), leaves
    except Unfusable as error:
        name = function.subject.name
        raise FallbackError(f"{name} is not fused for these arguments: {error.what}") from None


def debug_kernel_source(target: str | Graph | GraphModule | Callable[..., Any], args: Sequence[Any]) -> str:
    """The generated code, LLVM IR, that a call with these arguments would run; it is compiled if need be.

    Args:
        target: a key of `register_fusion`, a graph, or a function made by `braze.fuse`.
        args: the arguments of the call.

    Raises:
        FallbackError: such a call is not fused.
    """
    function = _resolved(target)
    return function.preparing.source(*_described(function, args))


def debug_launch(target: str | Graph | GraphModule | Callable[..., Any], args: Sequence[Any]) -> Any:
    """The results for these arguments, by compiled kernels and by nothing else.

    Raises:
        FallbackError: it is not fused for them.
    """
    function = _resolved(target)
    return function.preparing.launched(*_described(function, args))


def compiled_kernel_count() -> int:
    """How many kernels were compiled, or found in the cache, in this process."""
    so_far = stats()
    return so_far.compiled + so_far.loaded


def kernels() -> tuple[KernelSpec, ...]:
    """Every graph of this process that acts on each element by itself; each prints with its kernels."""
    return tuple(kernel_specs.values())
