"""Functions around an elementwise graph: what they do at their edges is no work for a kernel.

A piece of an input (a chunk, a slice, a transposed or expanded view) is an operand that begins elsewhere and
has other strides; results that are joined (``cat``, ``stack``) are written to pieces of one tensor. So a
function that splits its input, computes on each element, and joins what it computed, is an elementwise graph,
with a description of its edges: expressions over the sizes of the call.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import torch
from torch.fx import GraphModule, Node

from braze._torch.schema import is_operator, operator_info
from braze.errors import ExpressionError, UnserializableError
from braze.fuser.elementwise import ElementwiseGraph, graph_between, kind_of, nodes_between, refusal
from braze.fuser.strides import Geometry
from braze.lowering.sizes import SizeTable
from braze.runtime.expr import ZERO, Expr

__all__ = ["Elementwise", "Given", "Joined", "Layout", "Made", "Part", "Result", "Source", "elementwise"]

aten = torch.ops.aten


@dataclass(frozen=True)
class Layout:
    """Sizes, strides, and begin of a piece of a tensor, in elements, over the sizes of a call."""

    sizes: tuple[Expr, ...]
    strides: tuple[Expr, ...]
    offset: Expr = ZERO

    def evaluate(self, sizes: Mapping[str, int]) -> tuple[Geometry, int]:
        """Geometry and begin for these sizes."""
        geometry = (
            tuple([e.evaluate(sizes) for e in self.sizes]),
            tuple([e.evaluate(sizes) for e in self.strides]),
        )
        return geometry, self.offset.evaluate(sizes)


@dataclass(frozen=True)
class Source:
    """Where an input of the graph comes from: an input of the function, or a ``piece`` of one that is laid
    out like ``whole``."""

    position: int
    piece: Layout | None = None
    whole: Layout | None = None


@dataclass(frozen=True)
class Given:
    """A result that is an input of the function as it is."""

    position: int


@dataclass(frozen=True)
class Made:
    """A result that the graph computes: the number of its output."""

    number: int


@dataclass(frozen=True)
class Joined:
    """A result whose pieces are outputs of the graph: for each its number, and where it lies."""

    dtype: torch.dtype
    layout: Layout
    pieces: tuple[tuple[int, Layout], ...]


Result: TypeAlias = Given | Made | Joined | None


@dataclass(frozen=True)
class Part:
    """A graph for some of the outputs of another: which, and which of its inputs."""

    graph: ElementwiseGraph
    outputs: tuple[int, ...]
    inputs: tuple[int, ...]


@dataclass(frozen=True)
class Elementwise:
    """A function that is an elementwise graph, but for its edges.

    Attributes:
        graph: with all that is computed as outputs.
        sources: of the graph's inputs.
        results: of the function.
        symbols: the inputs of the function that are sizes: positions, and the names by which the layouts of
            pieces mention them.
        parts: the same in several graphs, for calls in which the outputs have no common shape. Within a part
            the inputs of each output are among those of one other, so it broadcasts to that one's shape
            whatever the sizes are.
        singles: a graph for each output, for calls in which some of them have no elements.
    """

    graph: ElementwiseGraph
    sources: tuple[Source, ...]
    results: tuple[Result, ...]
    symbols: tuple[tuple[int, str], ...]
    parts: tuple[Part, ...]
    singles: tuple[Part, ...]

    @property
    def has_edges(self) -> bool:
        """Whether it does more than to compute: then it is made for tensors of one rank."""
        pieces = any(s.piece is not None for s in self.sources)
        return pieces or any(isinstance(r, Joined) for r in self.results)


def elementwise(gm: GraphModule) -> Elementwise | str:
    """``gm`` as an elementwise function, or why it is none."""
    try:
        return _Edges(gm).function()
    except _Refused as refused:
        return str(refused)
    except UnserializableError as error:
        return error.what


class _Refused(Exception):
    """Why a graph is no elementwise function."""


class _Edges:
    def __init__(self, gm: GraphModule) -> None:
        self.inputs: list[Node] = gm.graph.find_nodes(op="placeholder")
        self.values: Sequence[Any] = gm.graph.output_node().args[0]  # type: ignore[assignment]
        self.nodes = [n for n in gm.graph.nodes if n.op not in ("placeholder", "output")]
        self.table = SizeTable()
        self.pieces: dict[Node, Source] = {}
        self.made: list[Node] = []
        self.joined: set[int] = set()

    def function(self) -> Elementwise:
        """The function. Raises `_Refused`."""
        for node in self.nodes:
            self._peel(node)
        results = tuple([self._result(value) for value in self.values])
        if not self.made:
            raise _Refused("it computes nothing")
        edges = [*self.inputs, *self.pieces]
        within = nodes_between(edges, self.made)
        for node in within:
            reason = refusal(node, node.meta.get("val"))
            if reason is not None:
                raise _Refused(reason)
        self._check_rest(set(within))
        used = [n for n in edges if any(n in m.all_input_nodes for m in within)]
        graph = graph_between(used, self.made)
        sources = tuple([self._source(node) for node in used])
        if len(self.made) == 1:
            whole = (Part(graph, (0,), tuple(range(len(used)))),)
            return Elementwise(graph, sources, results, self._symbols(), whole, whole)
        parts = tuple([self._part(used, bundle) for bundle in self._bundles(graph)])
        singles = tuple([self._part(used, [k]) for k in range(len(self.made))])
        return Elementwise(graph, sources, results, self._symbols(), parts, singles)

    # -- inputs -----------------------------------------------------------------------------------------
    def _peel(self, node: Node) -> None:
        """Note a node that is a piece of an input."""
        value = node.meta.get("val")
        if not is_operator(node.target) or not isinstance(value, torch.Tensor):
            return
        base = node.args[0] if node.args else None
        if not operator_info(node.target).is_view or not isinstance(base, Node):
            return
        home = self.pieces[base].position if base in self.pieces else None
        if base.op == "placeholder":
            home = self.inputs.index(base)
        if home is None or value.dtype is not base.meta["val"].dtype:
            return
        whole = self._layout(self.inputs[home].meta["val"])
        self.pieces[node] = Source(home, self._layout(value, value.storage_offset()), whole)

    def _layout(self, tensor: torch.Tensor, offset: Any = 0) -> Layout:
        try:
            sizes, strides = ([self.table.expr(n) for n in v] for v in (tensor.shape, tensor.stride()))
            return Layout(tuple(sizes), tuple(strides), self.table.expr(offset))
        except ExpressionError as error:
            raise _Refused(error.what) from None

    def _source(self, node: Node) -> Source:
        if node in self.pieces:
            return self.pieces[node]
        if kind_of(node.meta.get("val")) is None:
            raise _Refused(f"an input is a {type(node.meta.get('val')).__name__}")
        return Source(self.inputs.index(node))

    def _symbols(self) -> tuple[tuple[int, str], ...]:
        found = []
        for position, node in enumerate(self.inputs):
            value = node.meta.get("val")
            if isinstance(value, torch.SymInt):
                symbol = self.table.expr(value).symbol
                if symbol is not None:
                    found.append((position, symbol.name))
        known = {name for _, name in found}
        for source in self.pieces.values():
            self._check_known(source.piece, known)
            self._check_known(source.whole, known)
        return tuple(found)

    @staticmethod
    def _check_known(layout: Layout | None, known: set[str]) -> None:
        for e in () if layout is None else (*layout.sizes, *layout.strides, layout.offset):
            for symbol in e.free_symbols:
                if symbol.name not in known:
                    raise _Refused(f"{symbol.name} is not a size that is passed to it")

    # -- results ----------------------------------------------------------------------------------------
    def _result(self, value: Any) -> Result:
        if value is None:
            return None
        if not isinstance(value, Node):
            raise _Refused("it returns a constant")
        if value.op == "placeholder":
            return Given(self.inputs.index(value))
        if not isinstance(value.meta.get("val"), torch.Tensor):
            raise _Refused("it returns a number")
        if value in self.pieces:
            raise _Refused("it returns a piece of an input")
        if value.target is aten.cat.default and all(user.op == "output" for user in value.users):
            return self._joined(value)
        number = self._number(value)
        if number in self.joined:
            raise _Refused("it returns what it has joined")
        return Made(number)

    def _number(self, node: Node) -> int:
        if node not in self.made:
            self.made.append(node)
        return self.made.index(node)

    def _joined(self, node: Node) -> Joined:
        """``cat`` of computed tensors, each of which may have got a dimension of size 1 before, as by
        ``stack``."""
        value = node.meta["val"]
        layout = self._layout(value)
        dim: Any = node.args[1] if len(node.args) > 1 else 0
        dim %= value.dim()
        begin: Expr = ZERO
        pieces: list[tuple[int, Layout]] = []
        for part in node.args[0]:  # type: ignore[union-attr]
            if not isinstance(part, Node) or part.op == "placeholder" or part in self.pieces:
                raise _Refused("it joins what it does not compute")
            shape = part.meta["val"]
            if shape.dtype is not value.dtype or shape.dim() != value.dim():
                raise _Refused("it joins tensors of other types or ranks")
            sizes, strides = self._layout(shape).sizes, layout.strides
            at = Layout(sizes, strides, begin * layout.strides[dim])
            begin = begin + sizes[dim]
            inner = part
            if part.target is aten.unsqueeze.default:
                inner, gone = cast("tuple[Node, int]", part.args)
                gone %= value.dim()
                at = Layout(_without(at.sizes, gone), _without(at.strides, gone), at.offset)
            if inner in self.made:
                raise _Refused("it returns, or joins twice, what it computes once")
            pieces.append((self._number(inner), at))
            self.joined.add(pieces[-1][0])
        return Joined(value.dtype, layout, tuple(pieces))

    # -- the rest ---------------------------------------------------------------------------------------
    def _check_rest(self, within: set[Node]) -> None:
        """Whether what is not computed by the graph is at the edges, or numbers for them."""
        joins = {n for n in self.nodes if n.target is aten.cat.default}
        joins |= {n for n in self.nodes if n.target is aten.unsqueeze.default and n not in self.pieces}
        for node in self.nodes:
            if node in within or node in self.pieces or node in joins:
                continue
            if not isinstance(node.meta.get("val"), (torch.SymInt, int)):
                raise _Refused(refusal(node, node.meta.get("val")) or f"{node.target} is not computed")

    def _bundles(self, graph: ElementwiseGraph) -> list[list[int]]:
        """The outputs, each with those whose inputs are among its own."""
        order = sorted(range(len(self.made)), key=lambda k: -len(graph.groups[k]))
        bundles: list[list[int]] = []
        for k in order:
            inputs = set(graph.groups[k])
            home = next((b for b in bundles if inputs <= set(graph.groups[b[0]])), None)
            if home is None:
                bundles.append([k])
            else:
                home.append(k)
        return bundles

    def _part(self, used: Sequence[Node], outputs: Sequence[int]) -> Part:
        made = [self.made[k] for k in sorted(outputs)]
        within = nodes_between(used, made)
        own = [k for k, n in enumerate(used) if any(n in m.all_input_nodes for m in within)]
        graph = graph_between([used[k] for k in own], made)
        return Part(graph, tuple(sorted(outputs)), tuple(own))


def _without(values: tuple[Expr, ...], dim: int) -> tuple[Expr, ...]:
    return values[:dim] + values[dim + 1 :]
