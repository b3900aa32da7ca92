"""Graphs that act on each element by itself: they mean the same for tensors of every rank and shape, so one
such graph, with one kernel for each kind of arguments, serves all of them."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import torch
from torch.fx import Graph, Node

from braze._torch.surroundings import is_pointwise
from braze.fuser.canonical import canonical, key_of
from braze.fuser.strides import Geometry, Ints, broadcast_shapes, elementwise_strides
from braze.lowering import families as families  # fills the registry of lowerings
from braze.lowering.registry import lowering_of
from braze.ops.dtypes import is_supported, short_name

__all__ = ["ElementwiseGraph", "Kind", "graph_between", "kind_of", "nodes_between", "refusal"]

aten, prims = torch.ops.aten, torch.ops.prims

Kind: TypeAlias = Literal["tensor", "float", "int"]

_ALSO_POINTWISE = frozenset(
    {
        prims.convert_element_type.default,
        aten._to_copy.default,
        aten.clone.default,
        aten.alias.default,
        aten.lift_fresh_copy.default,
        aten.where.self,
        aten.full_like.default,
    }
)
_OF_NUMBERS = frozenset(
    {
        operator.add, operator.sub, operator.mul, operator.truediv, operator.neg, operator.pow,
        torch.sym_float, torch.sym_sqrt,
    }
)  # fmt: skip


@dataclass(frozen=True)
class _Step:
    """One tensor on the way: its name, and the tensors that it is made of."""

    name: str
    operands: tuple[str, ...]


@dataclass(frozen=True)
class ElementwiseGraph:
    """A graph of pointwise operators, each of whose inputs is used and each of whose outputs is computed.

    Attributes:
        graph: of ATen operators, whose ``meta`` has the ``dtype`` of each tensor.
        text: the canonical form; ``key`` follows from it.
        kinds: what each input is.
        outputs: the names of the nodes that are returned, each once.
        dtypes: of ``outputs``.
        groups: for each output the inputs that are broadcast against each other for it.
    """

    graph: Graph = field(repr=False, compare=False)
    text: str
    kinds: tuple[Kind, ...]
    outputs: tuple[str, ...]
    dtypes: tuple[torch.dtype, ...]
    groups: tuple[tuple[int, ...], ...]
    _steps: tuple[_Step, ...] = field(repr=False, compare=False)
    _inputs: tuple[str, ...] = field(repr=False, compare=False)

    @property
    def key(self) -> str:
        """What equal graphs share."""
        return key_of(self.text)

    def layouts(self, given: Sequence[Geometry | None]) -> tuple[Geometry, ...]:
        """Sizes and strides of each output, as eager would have them. ``given``: those of the inputs, None
        for numbers. Raises ``ValueError`` where the shapes do not fit each other."""
        common = self._common(given)
        if common is not None:
            return (common,) * len(self.outputs)
        known: dict[str, Geometry] = {
            name: g for name, g in zip(self._inputs, given, strict=True) if g is not None
        }
        for step in self._steps:
            operands = [known[name] for name in step.operands]
            sizes = broadcast_shapes([sizes for sizes, _ in operands])
            known[step.name] = sizes, elementwise_strides(sizes, operands)
        return tuple([known[name] for name in self.outputs])

    def _common(self, given: Sequence[Geometry | None]) -> Geometry | None:
        """The geometry that all inputs share, where they do, all outputs need one, and it is dense."""
        seen: Geometry | None = None
        for here in given:
            if here is None:
                continue
            if seen is not None and here != seen:
                return None
            seen = here
        if seen is None or not all(self.groups):
            return None
        return seen if elementwise_strides(seen[0], [seen]) == seen[1] else None

    def shape(self, layouts: Sequence[Geometry]) -> Ints:
        """The common shape of all outputs: what the loops run over."""
        return broadcast_shapes([sizes for sizes, _ in layouts])


def nodes_between(inputs: Sequence[Node], made: Sequence[Node]) -> list[Node]:
    """What has to be computed for ``made``, given ``inputs``, in order."""
    order: list[Node] = []
    done = set(inputs)
    stack = [(node, False) for node in reversed(made)]
    while stack:
        node, expanded = stack.pop()
        if expanded:
            order.append(node)
        elif node not in done:
            done.add(node)
            stack.append((node, True))
            stack += [(n, False) for n in reversed(node.all_input_nodes) if n not in done]
    return order


def graph_between(inputs: Sequence[Node], made: Sequence[Node]) -> ElementwiseGraph:
    """The graph that computes ``made`` from ``inputs``, all of which are needed. Raises
    `UnserializableError` where it holds what has no text."""
    graph = Graph()
    nodes: dict[Node, Node] = {node: graph.placeholder(node.name) for node in inputs}
    sources: dict[Node, frozenset[int]] = {}
    steps: list[_Step] = []
    for k, node in enumerate(inputs):
        nodes[node].meta["val"] = node.meta.get("val")
        if isinstance(node.meta.get("val"), torch.Tensor):
            sources[node] = frozenset({k})
    for node in nodes_between(inputs, made):
        nodes[node] = graph.node_copy(node, nodes.__getitem__)
        if isinstance(node.meta.get("val"), torch.Tensor):
            operands = [n for n in node.all_input_nodes if isinstance(n.meta.get("val"), torch.Tensor)]
            sources[node] = frozenset().union(*[sources[n] for n in operands])
            steps.append(_Step(nodes[node].name, tuple(nodes[n].name for n in operands)))
    graph.output(tuple(nodes[n] for n in made))
    _forget_the_trace(graph)
    return ElementwiseGraph(
        graph,
        canonical(graph, [_typed(node) for node in inputs]),
        tuple(kind for node in inputs if (kind := kind_of(node.meta.get("val"))) is not None),
        tuple(nodes[n].name for n in made),
        tuple(n.meta["val"].dtype for n in made),
        tuple(tuple(sorted(sources[n])) for n in made),
        tuple(steps),
        tuple(nodes[n].name for n in inputs),
    )


def _forget_the_trace(graph: Graph) -> None:
    """Leave of each node's metadata its type and its place in the program: the graph outlives the trace, and
    the trace's values would keep all of it alive."""
    for node in graph.nodes:
        value, place = node.meta.get("val"), node.meta.get("stack_trace")
        node.meta = {"stack_trace": place} if place else {}
        if isinstance(value, torch.Tensor):
            node.meta["dtype"] = value.dtype


def kind_of(value: Any) -> Kind | None:
    if isinstance(value, torch.Tensor):
        return "tensor"
    if isinstance(value, (float, torch.SymFloat)):
        return "float"
    return "int" if isinstance(value, (int, torch.SymInt)) and not isinstance(value, bool) else None


def _typed(node: Node) -> str:
    """An input's kind, as the text says it: what results there are depends on it."""
    value = node.meta.get("val")
    if not isinstance(value, torch.Tensor):
        return str(kind_of(value))
    return short_name(value.dtype) + ("" if value.dim() else " without dimensions")


def refusal(node: Node, value: Any) -> str | None:
    """Why a node does not act on each element by itself; None where it does."""
    target = node.target
    if node.op != "call_function":
        return f"{node.target} is not an operator"
    if target in _OF_NUMBERS:
        numbers = (torch.SymInt, torch.SymFloat, int, float)
        return None if isinstance(value, numbers) else f"{target} of tensors"
    if not isinstance(value, torch.Tensor):
        return f"{target} gives no tensor"
    if not is_supported(value.dtype):
        return f"{value.dtype} is not compiled"
    if target in (aten.full.default, aten.scalar_tensor.default):
        return None if value.dim() == 0 else f"{target} makes a tensor of a size of its own"
    if not (is_pointwise(target) or target in _ALSO_POINTWISE):
        return f"{target} does not act on each element by itself"
    if node.kwargs.get("memory_format") not in (None, torch.preserve_format):
        return f"{target} asks for a memory format"
    return None if lowering_of(target) is not None else f"{target} is not compiled"
