"""Writes through `unfold`. PyTorch's functionalisation takes what lies between windows, and behind the last
one, for zero once a window was written to. So in a graph of Dynamo's, or of an exported program's, such
windows are made of views whose writes it knows: slices and dimensions taken apart."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from typing import Any

import torch
from torch.fx import Graph, GraphModule, Node
from torch.fx.node import map_arg

from braze._torch.schema import bind
from braze._torch.tracing import copied
from braze.errors import LoweringError
from braze.frontend.writes import reaches, written_by

__all__ = ["with_writable_windows"]

aten = torch.ops.aten


def with_writable_windows(gm: GraphModule) -> GraphModule:
    """The graph, or a copy of it where windows are written to.

    Raises `LoweringError` for those that cannot be made of other views: windows of several elements with gaps
    between them, where behind the last one there is no whole gap."""
    if not any(_written_windows(gm)):
        return gm
    copy = copied(gm)
    for node in list(_written_windows(copy)):
        _replace(copy.graph, node)
    copy.recompile()
    return copy


def _written_windows(gm: GraphModule) -> Iterator[Node]:
    """Those that do not overlap: PyTorch itself refuses writes to others."""
    windows = [n for n in gm.graph.nodes if _is_unfold(n) and isinstance(_value(n), torch.Tensor)]
    if windows:
        written = [target for node in gm.graph.nodes for target in written_by(node)]
        for window in windows:
            _, size, step = map(_value, _window(window))
            if any(reaches(target, {window}) for target in written) and size <= step:
                yield window


def _is_unfold(node: Node) -> bool:
    named = node.op == "call_method" and node.target == "unfold"
    return named or node.target in (torch.Tensor.unfold, aten.unfold.default)


def _value(argument: Any) -> Any:
    """What the trace has for a node; a number as it is."""
    if not isinstance(argument, Node):
        return argument
    return argument.meta.get("example_value", argument.meta.get("val"))


def _window(node: Node) -> tuple[Any, Any, Any]:
    """The dimension, the size and the step of an `unfold`."""
    given = bind(aten.unfold.default, node.args, node.kwargs)
    return given["dimension"], given["size"], given["step"]


def _replace(graph: Graph, node: Node) -> None:
    """The same windows by views of other kinds."""
    x = node.args[0]
    dim, size, step = _window(node)
    width, stride, length = _value(size), _value(step), _value(x).shape[dim]
    dim = dim % _value(x).ndim

    def call(target: Any, *args: Any) -> Node:
        made = graph.call_function(target, args)
        if "val" in node.meta:  # of an exported program, whose nodes all have one
            made.meta["val"] = target(*map_arg(args, _value))
        return made

    with graph.inserting_before(node):
        if width == 1:
            last = call(aten.slice.Tensor, x, dim, 0, None, step)
            found = call(aten.unsqueeze.default, last, -1)
        else:
            if stride > width and (length - width) // stride * stride + stride > length:
                raise LoweringError(
                    "it writes to windows with gaps between them, and no whole gap follows the last one"
                )
            total = call(aten.sym_size.int, x, dim)
            count = call(operator.sub, total, size)
            count = call(operator.floordiv, count, step)
            count = call(operator.add, count, 1)
            end = call(operator.mul, count, step)
            whole = call(aten.slice.Tensor, x, dim, 0, end)
            parts = call(aten.unflatten.int, whole, dim, (count, step))
            window = call(aten.slice.Tensor, parts, dim + 1, 0, size)
            found = call(aten.movedim.int, window, dim + 1, -1)
    node.replace_all_uses_with(found)
    graph.erase_node(node)
