"""Greatest common divisors and least common multiples of integers.

A file of its own: each family of operators has one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from braze.ir.boxes import TensorBox
from braze.lowering.registry import lowers
from braze.ops.dag import Node
from braze.ops.functions import where

if TYPE_CHECKING:
    from braze.lowering.graph import GraphLowering

aten = torch.ops.aten


@lowers(aten.gcd.default)
def gcd(ctx: GraphLowering, a: TensorBox, b: TensorBox) -> TensorBox:
    """The greatest common divisor."""
    return ctx.elementwise(lambda x, y: ctx.dag.op("gcd", x, y), a, b, compute=ctx.out_dtype)


@lowers(aten.lcm.default)
def lcm(ctx: GraphLowering, a: TensorBox, b: TensorBox) -> TensorBox:
    """The least common multiple, 0 if one of them is 0; of narrow types it is computed in int32, and wraps
    when it is stored."""
    d, dtype = ctx.dag, ctx.out_dtype
    wide = dtype if dtype.itemsize >= 4 else torch.int32

    def value(x: Node, y: Node) -> Node:
        divisor = d.op("gcd", x, y)
        x, y, divisor = (d.to_dtype(v, wide) for v in (x, y, divisor))
        share = d.op("truncdiv", x, where(divisor.eq(0), 1, divisor))
        return d.to_dtype(abs(share * y), dtype)

    return ctx.elementwise(value, a, b, compute=dtype)
