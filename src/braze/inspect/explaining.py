"""`explain`: compile a function, run it, and say what it became and where its time goes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch

from braze._torch import dynamo
from braze.artifact.schema import Fallback
from braze.errors import BrazeError
from braze.frontend.backend import make_backend
from braze.inspect import machine
from braze.inspect.assemble import all_work, graph_of, refusals_of
from braze.inspect.explanation import Explanation, GraphBreak
from braze.inspect.timing import Watch, WatchedGraph

__all__ = ["explain"]

_SECONDS = 0.8


def explain(fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Explanation:
    """Compile ``fn`` with Braze, call it some times, and report what it was made into.

    Args:
        fn: a function, a module, or what `torch.compile` made of either.
        *args, **kwargs: what to call it with.

    ``fn`` is called about ten to two hundred times, and what it changes it changes each time: explain an
    optimizer's step on a copy. The state of torch's random numbers is put back. Where results require
    gradients these are computed too, so that backward graphs are in the report; no ``.grad`` is touched.
    What was compiled before stays as it is.

    Raises:
        BrazeError: ``fn`` has no graph to compile; and with ``strict`` as `torch.compile` would.
    """
    original = dynamo.original_callable(fn)
    watch = Watch()
    compiled = dynamo.compile_apart(original, make_backend(watch))
    broken_before = len(dynamo.break_reasons())

    def call() -> None:
        result = compiled(*args, **kwargs)
        _differentiate(result)

    with torch.random.fork_rng(devices=[]):
        first, whole = watch.measure(call, _SECONDS)
    if not watch.graphs:
        raise BrazeError(
            f"{_name(original)} gave Dynamo no graph to compile",
            hint="it may call no operator of PyTorch, or be marked with torch.compiler.disable",
        )
    breaks = dict.fromkeys(GraphBreak(*b) for b in dynamo.break_reasons()[broken_before:])
    here = machine.measured()
    kernels, externs = all_work(watch.graphs, here)
    return Explanation(
        function=_name(original),
        kernels=kernels,
        externs=externs,
        fallbacks=tuple(_fallbacks(watch.graphs)),
        graph_breaks=tuple(breaks),
        graphs=tuple(map(graph_of, watch.graphs)),
        refusals=tuple(r for g in watch.graphs for r in refusals_of(g)),
        machine=here,
        call_us=whole,
        first_call_seconds=first,
    )


def _name(function: Callable[..., Any]) -> str:
    return getattr(function, "__qualname__", None) or type(function).__qualname__


def _differentiate(result: object) -> None:
    """Compute the gradients of all leaves that the results depend on, and keep none of them."""
    outputs = [x for x in _tensors(result) if x.requires_grad and x.dtype.is_floating_point]
    leaves = _leaves(outputs)
    if leaves:
        torch.autograd.grad(outputs, leaves, list(map(torch.ones_like, outputs)), allow_unused=True)


def _tensors(value: object) -> Iterable[torch.Tensor]:
    """The tensors in a structure of tuples, lists, dictionaries and objects that are one of these."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _tensors(item)


def _leaves(outputs: Iterable[torch.Tensor]) -> list[torch.Tensor]:
    """The leaves of the graph of gradients above ``outputs``."""
    found: dict[int, torch.Tensor] = {}
    stack: list[Any] = [t.grad_fn for t in outputs if t.grad_fn is not None]
    seen: set[Any] = set()
    while stack:
        function = stack.pop()
        if function in seen:
            continue
        seen.add(function)
        variable = getattr(function, "variable", None)  # of the node that accumulates a leaf's gradient
        if isinstance(variable, torch.Tensor):
            found[id(variable)] = variable
        stack.extend(following for following, _ in function.next_functions if following is not None)
    return list(found.values())


def _fallbacks(graphs: Sequence[WatchedGraph]) -> Iterable[Fallback]:
    for watched in graphs:
        if watched.report is not None:
            yield from watched.report.fallbacks
        elif watched.reason is not None:
            yield Fallback(watched.request.name, watched.reason)
