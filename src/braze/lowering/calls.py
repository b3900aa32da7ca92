"""Calling operators whole: externs by design, and fallbacks to eager PyTorch."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.fx import GraphModule, Node

from braze._torch.schema import bind, is_operator, is_ordered_call, operator_info
from braze.errors import LoweringError
from braze.ir.boxes import TensorBox
from braze.ir.buffers import Buffer
from braze.ir.externs import (
    ExternKernel,
    ExternKernelAlloc,
    ExternKernelOut,
    FallbackKernel,
    MultiOutput,
    TensorRef,
    leaves,
    map_leaves,
)
from braze.ir.layout import FixedLayout
from braze.lowering.registry import Extern
from braze.ops import dag as ops_dag

if TYPE_CHECKING:
    from braze.lowering.graph import GraphLowering


MIN_PLANNED_BYTES = 1 << 15
"""Results of externs smaller than this (bytes) are left to torch's allocator: making a tensor of planned
memory costs as much as the allocation that it saves."""


def call_extern(ctx: GraphLowering, extern: Extern) -> Any:
    """Call the current node's operator whole, into planned memory where its out-variant allows."""
    better = extern.instead(ctx) if extern.instead is not None else None
    if better is not None:
        return better
    args, kwargs = stored_args(ctx, ctx.node.args, ctx.node.kwargs)
    example = ctx.example
    name = ctx.graph.operation_name()
    if extern.out is not None and isinstance(example, torch.Tensor):
        layout = _layout(ctx, example)
        nbytes = (layout.extent * layout.dtype.itemsize).constant
        if layout.is_dense and (nbytes is None or nbytes >= MIN_PLANNED_BYTES):
            result = Buffer(ctx.graph.buffer_name(), layout)
            kernel: ExternKernel = ExternKernelOut(
                name, extern.out, args, kwargs, [result], origins=[ctx.origin]
            )
            ctx.graph.add_operation(kernel)
            return TensorBox.of(result)
    results, tree, pattern = _results(ctx, example, name)
    kernel = ExternKernelAlloc(name, ctx.node.target, args, kwargs, results, pattern, origins=[ctx.origin])
    ctx.graph.add_operation(kernel)
    return tree


def call_fallback(ctx: GraphLowering, reason: str) -> Any:
    """Run the current node as eager PyTorch runs it, honouring what its schema says of writing and
    aliasing."""
    ordered = is_ordered_call(ctx.node.target)
    target: Any = ctx.node.target
    given: Any = ctx.node.args
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
    kernel = FallbackKernel(
        name,
        target,
        args,
        kwargs,
        results,
        pattern,
        origins=[ctx.origin],
        reason=reason,
        mutated=mutated,
        aliases={r.name: set(aliases) for r in results} if aliases else {},
        draws=is_operator(target) and operator_info(target).random,
    )
    for result in results:
        for dim, size in enumerate(result.layout.size):
            symbol = size.symbol
            if symbol is not None and symbol.name not in ctx.graph.known_symbols:
                kernel.binds.append((symbol.name, result.name, dim))
                ctx.graph.know(size)
    ctx.graph.add_operation(kernel)
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
            raise LoweringError(f"{ctx.origin.operator} takes a floating-point number that depends on sizes")
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


def _view_chain(node: Any) -> list[Node]:
    chain: list[Node] = []
    while isinstance(node, Node) and node.op == "call_function":
        chain.append(node)
        is_view = is_operator(node.target) and operator_info(node.target).is_view
        node = node.args[0] if is_view or node.target is operator.getitem else None
    return chain


def _layout(ctx: GraphLowering, example: torch.Tensor) -> FixedLayout:
    return FixedLayout(
        example.dtype, ctx.exprs(example.shape), ctx.exprs(example.stride()), device=example.device
    )


def _results(ctx: GraphLowering, example: Any, producer: str) -> tuple[list[Buffer], Any, Any]:
    """A buffer for each tensor in ``example``; ``example``'s structure with tensor boxes in it, and with the
    buffers' names."""
    results: list[Buffer] = []

    def build(value: Any, path: tuple[int, ...]) -> tuple[Any, Any]:
        if isinstance(value, torch.Tensor):
            name = f"buf{len(ctx.graph.buffers) + len(results)}"
            layout = _layout(ctx, value)
            buffer = MultiOutput(name, layout, producer, path) if path else Buffer(name, layout)
            results.append(buffer)
            return TensorBox.of(buffer), name
        if isinstance(value, (tuple, list)):
            parts = [build(v, (*path, k)) for k, v in enumerate(value)]
            return [box for box, _ in parts], tuple([name for _, name in parts])
        return (ctx.expr(value) if isinstance(value, torch.SymInt) else value), None

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
    returned = frozenset().union(*[r.alias for r in info.returns]) if info.returns else frozenset()
    for argument in info.arguments:
        storages = {x.buffer.storage for x in leaves(bound[argument.name]) if isinstance(x, TensorRef)}
        if argument.written:
            written |= storages
        if argument.alias & returned:
            shared |= storages
    return written, shared
