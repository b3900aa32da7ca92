"""Conversions between element types, and copies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from braze._torch.native import storage_id
from braze._torch.prims import prims
from braze.errors import Refused
from braze.ir.boxes import TensorBox
from braze.lowering.registry import lowers
from braze.ops.dag import Node
from braze.ops.dtypes import HALF_TYPES, compute_dtype
from braze.runtime.expr import Expr

if TYPE_CHECKING:
    from braze.lowering.graph import GraphLowering

aten = torch.ops.aten


def converted(ctx: GraphLowering, v: Node, dtype: torch.dtype) -> Node:
    """``v`` as an element of type ``dtype`` would hold it, in the compute type of ``dtype``: half types
    round."""
    d, compute = ctx.dag, compute_dtype(dtype)
    if v.op == "constant" and compute is not dtype:
        return d.constant(torch.tensor(v.attrs[0], dtype=v.dtype).to(dtype).item(), compute)
    return d.to_dtype(d.to_dtype(v, dtype), compute)


def held(ctx: GraphLowering, v: Node, dtype: torch.dtype) -> Node:
    """``v``, an element of a tensor of type ``dtype``, as the tensor holds it in memory: what comparisons,
    steps, conversions and indices are to be made of."""
    return converted(ctx, v, dtype) if dtype in HALF_TYPES else v


def copied(ctx: GraphLowering, x: TensorBox, dtype: torch.dtype | None = None) -> TensorBox:
    """The elements of ``x`` as a tensor of their own, converted to ``dtype``."""
    target = x.dtype if dtype is None else dtype

    def value(i: tuple[Expr, ...]) -> Node:
        v = x.load(ctx.dag, i)
        return v if target is x.dtype else converted(ctx, held(ctx, v, x.dtype), target)

    return ctx.pointwise(x.size, target, value)


@lowers(aten._to_copy.default)
def to_copy(ctx: GraphLowering, x: TensorBox, **options: Any) -> TensorBox:
    """x in another type or memory format."""
    device = options.get("device")
    if device is not None and torch.device(device).type != x.device:
        raise Refused(f"a copy to {device}")
    return copied(ctx, x, ctx.out_dtype)


@lowers(prims.convert_element_type.default)
def convert_element_type(ctx: GraphLowering, x: TensorBox, dtype: torch.dtype) -> TensorBox:
    """x in another type."""
    return copied(ctx, x, dtype)


@lowers(aten.clone.default, aten.lift_fresh_copy.default)
def clone(ctx: GraphLowering, x: TensorBox, *, memory_format: Any = None) -> TensorBox:
    """x in memory of its own."""
    return copied(ctx, x)


def keep_strides(ctx: GraphLowering) -> None:
    """Raises ``Refused`` where a result that keeps its argument's strides, gaps included, is one of the
    graph's, and these symbolic strides may be such that elements share memory: those would not be kept."""
    example = ctx.example
    if ctx.layout_of(example).is_injective:
        return
    here = storage_id(example)
    results = [n.meta.get("val") for n in ctx.gm.graph.output_node().all_input_nodes]
    if any(isinstance(value, torch.Tensor) and storage_id(value) == here for value in results):
        raise Refused("a copy with strides of which it is not known whether elements share memory")


@lowers(aten.copy.default)
def copy(ctx: GraphLowering, x: TensorBox, source: TensorBox, non_blocking: bool = False) -> TensorBox:
    """``source`` with the size, type and strides of x."""
    keep_strides(ctx)
    size = ctx.out_size
    return ctx.pointwise(
        size,
        x.dtype,
        lambda i: converted(ctx, held(ctx, ctx.broadcast_load(source, i, size), source.dtype), x.dtype),
    )
