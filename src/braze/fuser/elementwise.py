"""Functions that act on each element by themselves, but for what they do at their edges.

An elementwise graph means the same for tensors of every rank and shape, so one such graph, with one kernel
for each kind of arguments, serves all of them. What a function does at its edges is no work for a kernel: a
piece of an input (a chunk, a slice, a transposed or expanded view) is an operand that begins elsewhere and
has other strides; results that are joined (``cat``, ``stack``) are written to pieces of one tensor. So a
function that splits its input, computes on each element, and joins what it computed, is an elementwise graph,
with a description of its edges: expressions over the sizes of the call.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeAlias, cast

import torch
from torch.fx import Graph, GraphModule, Node

from braze._torch.schema import is_operator, operator_info
from braze._torch.surroundings import is_pointwise
from braze.errors import ExpressionError, Refused, UnserializableError
from braze.fuser.canonical import canonical, key_of
from braze.fuser.strides import Geometry, Ints, broadcast_shapes, elementwise_strides
from braze.lowering import families as families  # fills the registry of lowerings
from braze.lowering.registry import has_lowering
from braze.lowering.sizes import SizeTable
from braze.ops.dtypes import is_supported, short_name
from braze.runtime.expr import ZERO, Expr
from braze.runtime.spec import Layout, tensor_spec

__all__ = ["Concat", "ElementwiseFunction", "ElementwiseGraph", "elementwise", "evaluated"]

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


# -- graphs --------------------------------------------------------------------------------------------------
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
        _steps: each tensor on the way, by name, and the tensors that it is made of.
    """

    graph: Graph = field(repr=False, compare=False)
    text: str
    kinds: tuple[Kind, ...]
    outputs: tuple[str, ...]
    dtypes: tuple[torch.dtype, ...]
    groups: tuple[tuple[int, ...], ...]
    _steps: tuple[tuple[str, tuple[str, ...]], ...] = field(repr=False, compare=False)
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
        for made, names in self._steps:
            operands = [known[name] for name in names]
            sizes = broadcast_shapes([sizes for sizes, _ in operands])
            known[made] = sizes, elementwise_strides(sizes, operands)
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


def _nodes_between(inputs: Sequence[Node], made: Sequence[Node]) -> list[Node]:
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


def _graph_between(inputs: Sequence[Node], made: Sequence[Node]) -> ElementwiseGraph:
    """The graph that computes ``made`` from ``inputs``, all of which are needed. Raises
    `UnserializableError` where it holds what has no text."""
    graph = Graph()
    nodes: dict[Node, Node] = {node: graph.placeholder(node.name) for node in inputs}
    sources: dict[Node, frozenset[int]] = {}
    steps: list[tuple[str, tuple[str, ...]]] = []
    for k, node in enumerate(inputs):
        nodes[node].meta["val"] = node.meta.get("val")
        if isinstance(node.meta.get("val"), torch.Tensor):
            sources[node] = frozenset({k})
    for node in _nodes_between(inputs, made):
        nodes[node] = graph.node_copy(node, nodes.__getitem__)
        if isinstance(node.meta.get("val"), torch.Tensor):
            operands = [n for n in node.all_input_nodes if isinstance(n.meta.get("val"), torch.Tensor)]
            sources[node] = frozenset().union(*[sources[n] for n in operands])
            steps.append((nodes[node].name, tuple(nodes[n].name for n in operands)))
    graph.output(tuple(nodes[n] for n in made))
    _forget_the_trace(graph)
    return ElementwiseGraph(
        graph,
        canonical(graph, [_typed(node) for node in inputs]),
        tuple(kind for node in inputs if (kind := _kind_of(node.meta.get("val"))) is not None),
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


def _kind_of(value: Any) -> Kind | None:
    """What an input is; None for what a kernel does not take."""
    if isinstance(value, torch.Tensor):
        return "tensor"
    if isinstance(value, (float, torch.SymFloat)):
        return "float"
    return "int" if isinstance(value, (int, torch.SymInt)) and not isinstance(value, bool) else None


def _typed(node: Node) -> str:
    """An input's kind, as the text says it: what results there are depends on it."""
    value = node.meta.get("val")
    if not isinstance(value, torch.Tensor):
        return str(_kind_of(value))
    return short_name(value.dtype) + ("" if value.dim() else " without dimensions")


def _refusal(node: Node, value: Any) -> str | None:
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
    return None if has_lowering(target) else f"{target} is not compiled"


# -- functions ----------------------------------------------------------------------------------------------
def evaluated(layout: Layout, sizes: Mapping[str, int]) -> tuple[Geometry, int]:
    """Sizes and strides, and the begin, of a layout over the sizes of a call."""
    geometry = (
        tuple([e.evaluate(sizes) for e in layout.sizes]),
        tuple([e.evaluate(sizes) for e in layout.strides]),
    )
    return geometry, layout.offset.evaluate(sizes)


class _Source(NamedTuple):
    """Where an input of the graph comes from: an input of the function, or a ``piece`` of one that is laid
    out like ``whole``."""

    position: int
    piece: Layout | None = None
    whole: Layout | None = None


class _Result(NamedTuple):
    """A result that is an input of the function, as it is, or an output of the graph: its number."""

    kind: Literal["input", "output"]
    number: int


class Concat(NamedTuple):
    """A result whose pieces are outputs of the graph: for each its number, and where it lies."""

    layout: Layout
    pieces: tuple[tuple[int, Layout], ...]


class _Part(NamedTuple):
    """A graph for some of the outputs of another: which, and which of its inputs."""

    graph: ElementwiseGraph
    outputs: tuple[int, ...]
    inputs: tuple[int, ...]


@dataclass(frozen=True)
class ElementwiseFunction:
    """A function that is an elementwise graph, but for its edges.

    Attributes:
        graph: with all that is computed as outputs.
        sources: of the graph's inputs.
        results: of the function.
        symbols: the inputs of the function that are sizes: positions, and the names by which the layouts of
            pieces mention them.
        bundles: the same in several graphs, for calls in which the outputs have no common shape. Within one
            the inputs of each output are among those of one other, so it broadcasts to that one's shape
            whatever the sizes are.
        singles: a graph for each output, for calls in which some of them have no elements.
    """

    graph: ElementwiseGraph
    sources: tuple[_Source, ...]
    results: tuple[_Result | Concat | None, ...]
    symbols: tuple[tuple[int, str], ...]
    bundles: tuple[_Part, ...]
    singles: tuple[_Part, ...]

    @property
    def has_edges(self) -> bool:
        """Whether it does more than to compute: then it is made for tensors of one rank."""
        pieces = any(s.piece is not None for s in self.sources)
        return pieces or any(isinstance(r, Concat) for r in self.results)

    def parts(self, layouts: Sequence[Geometry]) -> Sequence[_Part]:
        """The graphs to launch for outputs laid out so: one for all, or several."""
        if len({0 in sizes for sizes, _ in layouts}) > 1:
            return self.singles
        try:
            self.graph.shape(layouts)
        except ValueError:
            return self.bundles
        return [_Part(self.graph, tuple(range(len(layouts))), tuple(range(len(self.sources))))]


def elementwise(gm: GraphModule) -> ElementwiseFunction | None:
    """``gm`` as an elementwise function; None where it is none."""
    try:
        return _EdgeFinder(gm).function()
    except (Refused, UnserializableError):
        return None


class _EdgeFinder:
    """Finds the edges of a graph, and the elementwise graph between them."""

    def __init__(self, gm: GraphModule) -> None:
        self.inputs: list[Node] = gm.graph.find_nodes(op="placeholder")
        self.values: Sequence[Any] = gm.graph.output_node().args[0]  # type: ignore[assignment]
        self.nodes = [n for n in gm.graph.nodes if n.op not in ("placeholder", "output")]
        self.table = SizeTable()
        self.pieces: dict[Node, _Source] = {}
        self.made: list[Node] = []
        self.concatenated: set[int] = set()

    def function(self) -> ElementwiseFunction:
        """The function. Raises `Refused`."""
        for node in self.nodes:
            self._peel(node)
        results = tuple([self._result(value) for value in self.values])
        if not self.made:
            raise Refused("it computes nothing")
        edges = [*self.inputs, *self.pieces]
        within = _nodes_between(edges, self.made)
        for node in within:
            reason = _refusal(node, node.meta.get("val"))
            if reason is not None:
                raise Refused(reason)
        self._check_rest(set(within))
        used = [n for n in edges if any(n in m.all_input_nodes for m in within)]
        graph = _graph_between(used, self.made)
        sources = tuple([self._source(node) for node in used])
        bundles = tuple([self._part(used, bundle) for bundle in self._bundles(graph)])
        singles = tuple([self._part(used, [k]) for k in range(len(self.made))])
        return ElementwiseFunction(graph, sources, results, self._symbols(), bundles, singles)

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
        self.pieces[node] = _Source(home, self._layout(value, value.storage_offset()), whole)

    def _layout(self, tensor: torch.Tensor, offset: Any = 0) -> Layout:
        try:
            sizes, strides = ([self.table.expr(n) for n in v] for v in (tensor.shape, tensor.stride()))
            return tensor_spec(tensor.dtype, sizes, strides, self.table.expr(offset))
        except ExpressionError as error:
            raise Refused(error.what) from None

    def _source(self, node: Node) -> _Source:
        if node in self.pieces:
            return self.pieces[node]
        if _kind_of(node.meta.get("val")) is None:
            raise Refused(f"an input is a {type(node.meta.get('val')).__name__}")
        return _Source(self.inputs.index(node))

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
        for e in () if layout is None else layout.numbers:
            for symbol in e.free_symbols:
                if symbol.name not in known:
                    raise Refused(f"{symbol.name} is not a size that is passed to it")

    # -- results ----------------------------------------------------------------------------------------
    def _result(self, value: Any) -> _Result | Concat | None:
        if value is None:
            return None
        if not isinstance(value, Node):
            raise Refused("it returns a constant")
        if value.op == "placeholder":
            return _Result("input", self.inputs.index(value))
        if not isinstance(value.meta.get("val"), torch.Tensor):
            raise Refused("it returns a number")
        if value in self.pieces:
            raise Refused("it returns a piece of an input")
        if value.target is aten.cat.default and all(user.op == "output" for user in value.users):
            return self._concat(value)
        number = self._number(value)
        if number in self.concatenated:
            raise Refused("it returns what it has joined")
        return _Result("output", number)

    def _number(self, node: Node) -> int:
        if node not in self.made:
            self.made.append(node)
        return self.made.index(node)

    def _concat(self, node: Node) -> Concat:
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
                raise Refused("it joins what it does not compute")
            shape = part.meta["val"]
            if shape.dtype is not value.dtype or shape.dim() != value.dim():
                raise Refused("it joins tensors of other types or ranks")
            sizes, strides = self._layout(shape).sizes, layout.strides
            at = Layout(value.dtype, sizes, strides, begin * strides[dim])
            begin = begin + sizes[dim]
            inner = part
            if part.target is aten.unsqueeze.default:
                inner, gone = cast("tuple[Node, int]", part.args)
                gone %= value.dim()
                sizes, strides = _without(sizes, gone), _without(strides, gone)
                at = Layout(value.dtype, sizes, strides, at.offset)
            if inner in self.made:
                raise Refused("it returns, or joins twice, what it computes once")
            pieces.append((self._number(inner), at))
            self.concatenated.add(pieces[-1][0])
        return Concat(layout, tuple(pieces))

    # -- the rest ---------------------------------------------------------------------------------------
    def _check_rest(self, within: set[Node]) -> None:
        """Whether what is not computed by the graph is at the edges, or numbers for them."""
        joins = {n for n in self.nodes if n.target is aten.cat.default}
        joins |= {n for n in self.nodes if n.target is aten.unsqueeze.default and n not in self.pieces}
        for node in self.nodes:
            if node in within or node in self.pieces or node in joins:
                continue
            if not isinstance(node.meta.get("val"), (torch.SymInt, int)):
                raise Refused(_refusal(node, node.meta.get("val")) or f"{node.target} is not computed")

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

    def _part(self, used: Sequence[Node], outputs: Sequence[int]) -> _Part:
        made = [self.made[k] for k in sorted(outputs)]
        within = _nodes_between(used, made)
        own = [k for k, n in enumerate(used) if any(n in m.all_input_nodes for m in within)]
        graph = _graph_between([used[k] for k in own], made)
        return _Part(graph, tuple(sorted(outputs)), tuple(own))


def _without(values: tuple[Expr, ...], dim: int) -> tuple[Expr, ...]:
    return values[:dim] + values[dim + 1 :]
