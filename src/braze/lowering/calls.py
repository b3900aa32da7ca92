"""Calling operators whole: externs by design, and fallbacks to eager PyTorch."""

from __future__ import annotations

import collections
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.fx import GraphModule, Node

from braze._torch.schema import (
    Effect,
    bind,
    effects_of,
    is_operator,
    is_ordered_call,
    operator_info,
)
from braze._torch.shapes import is_symbolic
from braze.artifact.graph_call import GRAPHS_OF, GraphCall
from braze.ir.boxes import TensorBox
from braze.ir.buffers import Buffer
from braze.ir.externs import (
    ExternKernelAlloc,
    ExternKernelOut,
    FallbackKernel,
    MultiOutput,
    NumberBuffer,
    TensorRef,
    leaves,
    map_leaves,
)
from braze.lowering.registry import Extern
from braze.lowering.scalars import number_buffer, number_in, number_type, stored_number
from braze.ops import dag as ops_dag
from braze.runtime.spec import Layout, TensorSpec

if TYPE_CHECKING:
    from braze.lowering.graph import GraphLowering


_OVERLAPPING = frozenset({torch.ops.aten.unfold.default, torch.ops.aten.as_strided.default})

MIN_PLANNED_BYTES = 1 << 15
"""Results of externs smaller than this (bytes) are left to torch's allocator: making a tensor of planned
memory costs as much as the allocation that it saves."""


def call_extern(ctx: GraphLowering, extern: Extern) -> Any:
    """Call the current node's operator whole, into planned memory where its out-variant allows."""
    better = extern.instead(ctx) if extern.instead is not None else None
    if better is not None:
        return better
    example = ctx.example
    if extern.out is not None and isinstance(example, torch.Tensor):
        layout = _layout(ctx, example)
        nbytes = (layout.extent * layout.dtype.itemsize).constant
        if layout.is_dense and (nbytes is None or nbytes >= MIN_PLANNED_BYTES):
            args, kwargs = stored_args(ctx, ctx.node.args, ctx.node.kwargs)
            name = ctx.graph.operation_name()
            result = Buffer(ctx.graph.buffer_name(), layout)
            kernel = ExternKernelOut(name, extern.out, args, kwargs, [result], origins=[ctx.origin])
            ctx.graph.add_operation(kernel)
            return TensorBox.of(result)
    return _called(ctx, ctx.node.target, ctx.node.args)


def call_fallback(ctx: GraphLowering, reason: str) -> Any:
    """Run the current node as eager PyTorch runs it, honouring what its schema says of writing and
    aliasing."""
    return _called(ctx, ctx.node.target, ctx.node.args, reason)


def call_graphs(ctx: GraphLowering, call: GraphCall) -> Any:
    """Run the current node, which chooses from graphs or repeats them, with these compiled."""
    places = GRAPHS_OF[call.operator]
    given = tuple([argument for place, argument in enumerate(ctx.node.args) if place not in places])
    return _called(ctx, call, given, "its graphs are compiled")


def _called(ctx: GraphLowering, target: Any, given: Any, reason: str | None = None) -> Any:
    """A call of ``target``, a fallback where there is a reason for one."""
    ordered = is_ordered_call(target)
    example = ctx.example
    if ordered:
        # a token in, a token out: what they order stays in order in a plan, so nobody needs them
        target, given, example = given[1], given[2:], _without_token(given[1], example)
    args, kwargs = stored_args(ctx, given, ctx.node.kwargs)
    mutated, aliases = _effects(target, args, kwargs)
    for storage in mutated:
        ctx.graph.flush(storage)
    name = ctx.graph.operation_name()
    results, tree, pattern = _results(ctx, example, name)
    effects = Effect.ALL if isinstance(target, GraphCall) else effects_of(target)
    call = (name, target, args, kwargs, results, pattern)
    kernel = (
        ExternKernelAlloc(*call, origins=[ctx.origin], mutated=mutated, effects=effects)
        if reason is None
        else FallbackKernel(*call, origins=[ctx.origin], mutated=mutated, effects=effects, reason=reason)
    )
    if aliases:
        ctx.graph.share([r.name for r in results], aliases)
    for result in results:
        for dim, size in enumerate(result.layout.sizes):
            symbol = size.symbol
            if symbol is not None and symbol.name not in ctx.graph.known_symbols:
                kernel.binds.append((symbol.name, result.name, dim))
                ctx.graph.know(size)
    ctx.graph.add_operation(kernel)
    tree = map_leaves(tree, lambda leaf: _taken(ctx, leaf))
    if ordered:
        return (None, *tree) if isinstance(tree, (tuple, list)) else (None, tree)
    return tree


def _without_token(operator: Any, example: Any) -> Any:
    """What the operator itself returns, of what a call that orders it does."""
    _, *results = example
    count = len(operator_info(operator).returns)
    return tuple(results) if count > 1 else results[0] if count else None


def stored_args(
    ctx: GraphLowering, args: Sequence[Any], kwargs: dict[str, Any]
) -> tuple[Any, dict[str, Any]]:
    """The arguments as an extern takes them, every tensor in memory."""

    def store(leaf: Any) -> Any:
        if isinstance(leaf, ops_dag.Node):
            return stored_number(ctx, leaf)
        return ctx.graph.ref(leaf) if isinstance(leaf, TensorBox) else leaf

    return map_leaves(ctx.args_of(tuple(args)), store), map_leaves(ctx.args_of(dict(kwargs)), store)


def written_tensors(gm: GraphModule) -> set[Node]:
    """The nodes whose memory something in the graph writes to, and the views between them and the write:
    they have to be in memory before any of these is taken."""
    found: set[Node] = set()
    for node in gm.graph.nodes:
        if (
            node.op != "call_function"
            or not is_operator(node.target)
            or not operator_info(node.target).mutates
        ):
            continue
        bound = bind(node.target, node.args, node.kwargs)
        for argument in operator_info(node.target).arguments:
            if argument.written:
                for value in leaves(bound[argument.name]):
                    found.update(_view_chain(value))
    return found


def tensors_with_views_outside(gm: GraphModule) -> set[Node]:
    """The nodes that several results look at, or one in a way that no memory of its own could have, and the
    views between them and the results: callers see that these share memory, so they have to be in memory
    first."""
    chains = [_view_chain(node) for node in gm.graph.output_node().all_input_nodes]
    results = collections.Counter(chain[-1] for chain in chains if chain)
    found: set[Node] = set()
    for chain in chains:
        if chain and (results[chain[-1]] > 1 or any(map(_lies_in_another, chain))):
            found.update(chain)
    return found


def _lies_in_another(node: Node) -> bool:
    """Whether a view may have strides that no memory of its own has: elements that it shares, or a diagonal
    whose steps among symbolic sizes nobody can order."""
    value = node.meta.get("val")
    if node.target is torch.ops.aten.diagonal.default and isinstance(value, torch.Tensor):
        return any(map(is_symbolic, (*value.shape, *value.stride())))
    return node.target in _OVERLAPPING


def _view_chain(node: Any) -> list[Node]:
    chain: list[Node] = []
    while isinstance(node, Node) and node.op == "call_function":
        chain.append(node)
        is_view = is_operator(node.target) and operator_info(node.target).is_view
        node = node.args[0] if is_view or node.target is operator.getitem else None
    return chain


def _layout(ctx: GraphLowering, example: torch.Tensor) -> Layout:
    # the operator knows its sizes, also those that no expression can say
    size = tuple(map(ctx.sizes.named, example.shape))
    return TensorSpec(example.dtype, size, ctx.exprs(example.stride()), device=example.device.type)


@dataclass(frozen=True)
class _Number:
    """A number among an operator's results, until the call that gives it stands in the graph."""

    buffer: NumberBuffer
    example: Any


def _taken(ctx: GraphLowering, leaf: Any) -> Any:
    return number_in(ctx, leaf.buffer, leaf.example) if isinstance(leaf, _Number) else leaf


def _results(ctx: GraphLowering, example: Any, producer: str) -> tuple[list[Buffer], Any, Any]:
    """A buffer for each tensor in ``example``; ``example``'s structure with tensor boxes in it, and with the
    buffers' names."""
    results: list[Buffer] = []

    def build(value: Any, path: tuple[int, ...]) -> tuple[Any, Any]:
        if isinstance(value, torch.Tensor):
            name = ctx.graph.buffer_name(len(results))
            layout = _layout(ctx, value)
            buffer = MultiOutput(name, layout, producer, path) if path else Buffer(name, layout)
            results.append(buffer)
            return TensorBox.of(buffer), name
        if isinstance(value, (tuple, list)):
            parts = [build(v, (*path, k)) for k, v in enumerate(value)]
            return [box for box, _ in parts], tuple([name for _, name in parts])
        dtype = number_type(value)
        if dtype is None:
            return value, None
        number = number_buffer(ctx.graph.buffer_name(len(results)), dtype)
        results.append(number)
        return _Number(number, value), number.name

    tree, pattern = build(example, ())
    return results, tree, pattern


def _effects(target: Any, args: Any, kwargs: dict[str, Any]) -> tuple[set[str], set[str]]:
    """The storages that a call may write to, and those that its results may share."""
    everything = {x.buffer.storage for x in leaves((args, kwargs)) if isinstance(x, TensorRef)}
    if not is_operator(target):
        return set(), everything  # a higher-order operator or a function: nothing is known of its results
    written: set[str] = set()
    shared: set[str] = set()
    info = operator_info(target)
    bound = bind(target, args, kwargs)
    for argument in info.arguments:
        storages = {x.buffer.storage for x in leaves(bound[argument.name]) if isinstance(x, TensorRef)}
        if argument.written:
            written |= storages
        # what is written is returned as well, or nothing is; a list of views names its storage here only
        if argument.alias or (target is torch.ops.aten._unsafe_view.default and argument.name == "self"):
            shared |= storages
    return written, shared
