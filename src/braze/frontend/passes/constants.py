"""Constant folding of literals: a tensor that holds one number everywhere, known at compile time, is a
`full`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch.fx import GraphModule, Node

from braze._torch import tracing
from braze._torch.devices import in_host_memory
from braze._torch.shapes import same_layout
from braze.frontend.passes.builder import NodeBuilder
from braze.frontend.passes.effects import aliases_output
from braze.lowering.refusals import refusal

__all__ = ["run"]

aten = torch.ops.aten

Number: TypeAlias = "int | float | bool"

_RESHAPING = frozenset(
    {
        aten.alias.default,
        aten.expand.default,
        aten.permute.default,
        aten.select.int,
        aten.slice.Tensor,
        aten.squeeze.dims,
        aten.unsqueeze.default,
        aten.view.default,
        aten.clone.default,
    }
)

_ELEMENTWISE = frozenset(
    {
        aten._to_copy.default,
        aten.abs.default,
        aten.add.Tensor,
        aten.bitwise_and.Tensor,
        aten.bitwise_not.default,
        aten.bitwise_or.Tensor,
        aten.div.Tensor,
        aten.eq.Scalar,
        aten.eq.Tensor,
        aten.ge.Scalar,
        aten.ge.Tensor,
        aten.gt.Scalar,
        aten.gt.Tensor,
        aten.le.Scalar,
        aten.le.Tensor,
        aten.logical_and.default,
        aten.logical_not.default,
        aten.logical_or.default,
        aten.lt.Scalar,
        aten.lt.Tensor,
        aten.maximum.default,
        aten.minimum.default,
        aten.mul.Scalar,
        aten.mul.Tensor,
        aten.ne.Scalar,
        aten.ne.Tensor,
        aten.neg.default,
        aten.reciprocal.default,
        aten.rsqrt.default,
        aten.sqrt.default,
        aten.sub.Tensor,
        aten.where.self,
    }
)

_FOLDABLE_DTYPES = frozenset(
    {torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64}
    | {torch.float16, torch.bfloat16, torch.float32, torch.float64}
)


@dataclass(frozen=True)
class _Literal:
    """The number that a tensor holds in every element. `ndim` takes part in type promotion."""

    value: Number
    dtype: torch.dtype
    ndim: int


def run(gm: GraphModule) -> bool:
    """Replace what can be computed now by `full` nodes, and drop products with 1 and sums with an integer 0.

    A node whose memory leaves the graph becomes a `full` too: that is fresh memory, as its own was.
    """
    leaving = aliases_output(gm)
    known: dict[Node, _Literal] = {}
    changed = False
    with tracing.outside_trace():
        folded = [(node, _fold(node, known)) for node in gm.graph.nodes if node.op == "call_function"]
    for node, literal in folded:
        if literal is not None and node.target is not aten.full.default and _shape(node) is not None:
            # a view of memory that leaves must stay a view of it
            if node.target in _RESHAPING and node.target is not aten.clone.default and node in leaving:
                continue
            _replace(gm, node, literal, known)
            changed = True
        elif literal is None:
            changed |= _drop_neutral(gm, node, known, leaving)
    return changed


def _shape(node: Node) -> list[int] | None:
    """The node's shape where it is known, and the strides are those of a fresh tensor."""
    value = node.meta["val"]
    shape = list(value.shape)
    if not all(type(s) is int for s in shape) or not in_host_memory(value):
        return None
    if node.target in (aten._to_copy.default, aten.clone.default) and not value.is_contiguous():
        return None
    return shape


def _fold(node: Node, known: dict[Node, _Literal]) -> _Literal | None:
    """The number that `node` holds everywhere; recorded in `known` for the nodes after it."""
    value = node.meta.get("val")
    if not isinstance(value, torch.Tensor) or value.dtype not in _FOLDABLE_DTYPES:
        return None
    if refusal(node.target, *torch.fx.map_arg((node.args, node.kwargs), _meta)) is not None:
        return None  # an error, which is eager's to raise
    result: _Literal | None = None
    if node.target is aten.full.default:
        fill = node.args[1]
        if isinstance(fill, (bool, int, float)):
            result = _Literal(torch.full([], fill, dtype=value.dtype).item(), value.dtype, value.ndim)
    elif node.target in _RESHAPING:
        source = known.get(node.args[0])  # type: ignore[arg-type]
        if source is not None:
            result = _Literal(source.value, source.dtype, value.ndim)
    elif node.target in _ELEMENTWISE:
        result = _compute(node, known)
    if result is not None:
        known[node] = result
    return result


def _meta(node: Node) -> Any:
    return node.meta.get("val")


def _compute(node: Node, known: dict[Node, _Literal]) -> _Literal | None:
    if not all(n in known for n in node.all_input_nodes):
        return None
    if any(isinstance(a, (torch.SymInt, torch.SymFloat)) for a in node.args):
        return None
    if node.target is aten._to_copy.default and not set(node.kwargs) <= {"dtype"}:
        return None

    def tensor(argument: Node) -> torch.Tensor:
        literal = known[argument]
        return torch.full([1] * min(literal.ndim, 1), literal.value, dtype=literal.dtype)

    target: Any = node.target
    computed = target(*torch.fx.map_arg(node.args, tensor), **torch.fx.map_arg(node.kwargs, tensor))
    value = node.meta["val"]
    if computed.dtype is not value.dtype:
        return None
    return _Literal(computed.item(), value.dtype, value.ndim)


def _replace(gm: GraphModule, node: Node, literal: _Literal, known: dict[Node, _Literal]) -> None:
    new = NodeBuilder(gm, node).call(
        aten.full.default, _shape(node), literal.value, dtype=literal.dtype, device=node.meta["val"].device
    )
    known[new] = literal
    node.replace_all_uses_with(new)
    gm.graph.erase_node(node)


_NEUTRAL = {aten.mul.Tensor: 1, aten.div.Tensor: 1, aten.add.Tensor: 0, aten.sub.Tensor: 0}


def _drop_neutral(gm: GraphModule, node: Node, known: dict[Node, _Literal], leaving: set[Node]) -> bool:
    """x * 1, x / 1, x - 0 and, for integers, x + 0 are x (-0.0 + 0 is +0.0)."""
    if node.target not in _NEUTRAL or len(node.args) != 2 or node.kwargs or node in leaving:
        return False
    x, other = node.args
    commutes = node.target in (aten.mul.Tensor, aten.add.Tensor)
    if commutes and (not isinstance(x, Node) or x in known):
        x, other = other, x
    literal = known.get(other) if isinstance(other, Node) else None
    number = literal.value if literal is not None else other
    if not isinstance(x, Node) or not isinstance(number, (bool, int, float)):
        return False
    if number != _NEUTRAL[node.target] or math.copysign(1.0, number) < 0:
        return False
    before, after = x.meta["val"], node.meta["val"]
    if node.target is aten.add.Tensor and after.is_floating_point():
        return False
    if not isinstance(before, torch.Tensor) or before.dtype is not after.dtype:
        return False
    if x.op != "call_function" or not same_layout(before, after):
        return False
    node.replace_all_uses_with(x)
    gm.graph.erase_node(node)
    return True
