"""Graphs that write to inputs, or look at places in their memory, called with tensors that lie otherwise.

AOTAutograd makes a graph for inputs that share memory as those of the first call did, and nothing guards
that where sizes are fixed. So a call of such a graph looks at the addresses of its inputs. Where they are
not as they were, the graph that Dynamo captured is run as it is, by eager operators."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from torch.fx import GraphModule, Node

from braze._torch import shapes, trace_state
from braze._torch.autograd import base_of
from braze._torch.provenance import source_of
from braze.artifact.schema import Fallback
from braze.compile.report import ledger, warn_of
from braze.errors import FallbackError
from braze.frontend.as_captured import CapturedGraph
from braze.frontend.writes import reaches, written_by
from braze.runtime.overlaps import apart
from braze.runtime.spec import byte_span, overlaps_itself

__all__ = [
    "EagerTwin",
    "any_folded",
    "guarded",
    "placed",
    "run_as_captured",
    "writes_through_folded",
    "writes_to_itself",
]

_Call: TypeAlias = Callable[..., Any]

_SHARED = "inputs share memory in another way than those that it was compiled for, and one is written to"
_MOVED = "it reads places in the memory of its inputs, and these lie elsewhere in it than at first"
_ITSELF = "it writes to a tensor whose own elements share memory"


class EagerTwin:
    """The graph that Dynamo captured, to be run by eager operators should that be needed. Keeps nothing of
    the trace. ``strict``: calling it raises ``FallbackError``."""

    def __init__(self, gm: GraphModule, strict: bool) -> None:
        self._captured = CapturedGraph(gm)
        self._where = next(filter(None, map(source_of, gm.graph.nodes)), "")
        self._strict = strict

    def run(self, reason: str, arguments: Sequence[Any]) -> Any:
        """What the captured function returns for these arguments."""
        if self._strict:
            raise FallbackError(f"the graph would run as eager PyTorch: {reason}", where=self._where or None)
        warn_of([Fallback("a graph", reason, self._where)])
        return self._captured(*arguments)


def run_as_captured(gm: GraphModule, strict: bool) -> _Call:
    """A callable for a graph that cannot be compiled for these inputs, because of `writes_to_itself` or
    `writes_through_folded`."""
    twin = EagerTwin(gm, strict)
    ledger.record_eager(Fallback("a graph", _ITSELF))

    def call(*arguments: Any) -> Any:
        return twin.run(_ITSELF, arguments)

    return call


def writes_through_folded(gm: GraphModule) -> bool:
    """Whether a graph of Dynamo's writes to a tensor by way of one whose own elements share memory, such as
    the result of `expand`. Making it functional would give nonsense: what is written there would have to be
    undone for the smaller tensor below."""
    folded = {n for n in gm.graph.nodes if _is_folded(n.meta.get("example_value"))}
    if not folded:
        return False
    return any(reaches(target, folded) for node in gm.graph.nodes for target in written_by(node))


def writes_to_itself(inputs: Sequence[Any], written: Sequence[bool]) -> bool:
    """Whether one of the inputs, of those that are ``written`` to, has elements that share memory: eager
    PyTorch writes to those one by one, in an order that shows, or refuses to."""
    return any_folded([x for x, is_written in zip(inputs, written, strict=False) if is_written])


def any_folded(values: Sequence[Any]) -> bool:
    """Whether one of them is a tensor whose own elements share memory."""
    return any(map(_is_folded, values))


def _is_folded(value: Any) -> bool:
    if not isinstance(value, torch.Tensor) or value.layout is not torch.strided:
        return False
    sizes, strides = ([shapes.hint(n) for n in numbers] for numbers in (value.shape, value.stride()))
    if None in sizes or None in strides:
        return False
    return overlaps_itself(sizes, strides)  # type: ignore[arg-type]


def guarded(
    call: _Call,
    gm: GraphModule,
    inputs: Sequence[Any],
    written: Sequence[int] | None,
    strict: bool,
) -> _Call:
    """`call`, which was compiled for `gm` and example `inputs`, made right for inputs that share memory.

    ``written``: positions of the inputs that it writes to, the graph's own tensors coming first; None where
    some of the example inputs shared memory and it writes to that."""
    own = list(trace_state.own_tensors(gm).values())
    values = [*own, *inputs]
    if written is None:
        return _as_at_first(call, EagerTwin(gm, strict), own)
    targets = [i for i in written if _has_elements(values[i])]
    others = [i for i, v in enumerate(values) if i not in set(written) and _has_elements(v)]
    if not targets or len(targets) + len(others) < 2:
        return call
    lengths = [(i, _length(values[i])) for i in (*targets, *others)]
    test, twin = apart(lengths, len(targets)), EagerTwin(gm, strict)

    def checked(*arguments: Any) -> Any:
        try:
            good = test((*own, *arguments) if own else arguments)
        except RuntimeError:  # tensors without memory, such as fake ones: they share none
            good = True
        return call(*arguments) if good else twin.run(_SHARED, arguments)

    return checked


def placed(call: _Call, gm: GraphModule, inputs: Sequence[Any], strict: bool) -> _Call:
    """`call`, which was compiled for `gm` and example `inputs`, made right for inputs that lie elsewhere in
    their memory, if it looks at places in that: nothing guards where an input lies. (A place that is a symbol
    is looked up at each call.)"""
    if not any(map(_looks_at_a_place, _nodes_within(gm))):
        return call
    places = [
        (i, value.storage_offset())
        for i, value in enumerate(inputs)
        if isinstance(value, torch.Tensor) and value.layout is torch.strided
    ]
    places = [(i, place) for i, place in places if type(place) is int]
    twin = EagerTwin(gm, strict)

    def checked(*arguments: Any) -> Any:
        if all(arguments[i].storage_offset() == place for i, place in places):
            return call(*arguments)
        return twin.run(_MOVED, arguments)

    return checked


def _nodes_within(gm: GraphModule) -> list[Node]:
    graphs = [module.graph for module in gm.modules() if isinstance(module, GraphModule)]
    return [node for graph in graphs for node in graph.nodes]


def _looks_at_a_place(node: Node) -> bool:
    """Whether a node of Dynamo's graph is an ``as_strided`` with a place in the storage."""
    target = node.target
    name = str(target if node.op == "call_method" else getattr(target, "__name__", ""))
    if not name.startswith("as_strided"):
        return False
    sizes = 2 if "scatter" in name else 1
    offset = node.args[sizes + 2] if len(node.args) > sizes + 2 else node.kwargs.get("storage_offset")
    return offset is not None


def _as_at_first(call: _Call, twin: EagerTwin, own: Sequence[torch.Tensor]) -> _Call:
    """`call` for inputs that share memory just as those of its first call, which it is compiled for."""
    expected: object = None

    def checked(*arguments: Any) -> Any:
        nonlocal expected
        try:
            pattern = _sharing((*own, *arguments))
        except RuntimeError:
            return call(*arguments)
        if expected is None:
            expected = pattern
        return call(*arguments) if pattern == expected else twin.run(_SHARED, arguments)

    return checked


def _sharing(values: Sequence[Any]) -> object:
    """How tensors lie in memory that they share with others: which do, where, and in what autograd sees each
    as a view of."""
    tensors = [(i, v) for i, v in enumerate(values) if isinstance(v, torch.Tensor) and v.numel()]
    groups: list[list[tuple[int, torch.Tensor]]] = []
    reach = 0
    for one in sorted(tensors, key=lambda pair: pair[1].untyped_storage().data_ptr()):
        storage = one[1].untyped_storage()
        if storage.data_ptr() >= reach:
            groups.append([])
        groups[-1].append(one)
        reach = max(reach, storage.data_ptr() + storage.nbytes())
    return sorted(_lie(group) for group in groups if len(group) > 1)


def _lie(group: Sequence[tuple[int, torch.Tensor]]) -> list[tuple[int, ...]]:
    first = min(t.untyped_storage().data_ptr() for _, t in group)
    bases: list[int] = []
    found = []
    for i, t in sorted(group, key=lambda pair: pair[0]):
        base = base_of(t)
        if id(base) not in bases:
            bases.append(id(base))
        place = (t.data_ptr() - first, t.untyped_storage().nbytes(), bases.index(id(base)), int(t is base))
        found.append((i, *place, base.storage_offset(), *base.shape, *base.stride()))
    return found


def _has_elements(value: Any) -> bool:
    """Whether a tensor has elements, or may have some in another call."""
    return isinstance(value, torch.Tensor) and all(type(n) is not int or n > 0 for n in value.shape)


def _length(tensor: torch.Tensor) -> int | None:
    """How many bytes a tensor of fixed sizes spans; None where sizes differ from call to call."""
    if any(type(n) is not int for n in (*tensor.shape, *tensor.stride())):
        return None
    return byte_span(tensor)
