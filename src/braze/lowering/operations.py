"""Elementwise operators that are one operation of the vocabulary, in the type of the result: a table.

A file of its own: it is where one looks for an operator first."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from braze.ir.boxes import TensorBox
from braze.lowering.promotion import Operand
from braze.lowering.registry import lowers

if TYPE_CHECKING:
    from braze.lowering.graph import GraphLowering

aten = torch.ops.aten


def _operation(name: str, booleans: str, wide: int | None) -> Callable[..., TensorBox]:
    def lowering(ctx: GraphLowering, *operands: Operand) -> TensorBox:
        compute = ctx.out_dtype
        chosen = booleans if booleans and compute is torch.bool else name
        return ctx.elementwise(
            lambda *nodes: ctx.dag.op(chosen, *nodes), *operands, compute=compute, wide=wide
        )

    lowering.__doc__ = f"{name}, in the type of the result{f'; of booleans, {booleans}' if booleans else ''}."
    return lowering


def _row(names: str, overloads: str = "default", booleans: str = "", wide: int | None = None) -> None:
    """``names`` of operators and of their operations; ``booleans``: the operation in place of it where the
    result is boolean; ``wide``: see `GraphLowering.elementwise`."""
    for name in names.split():
        packet = getattr(aten, name)
        lowers(*[getattr(packet, o) for o in overloads.split()])(_operation(name, booleans, wide))


_row("neg maximum minimum atan2 hypot igamma igammac")
_row("copysign", "Tensor Scalar")
_row("mul", "Tensor Scalar", booleans="logical_and", wide=1)
_row("sqrt rsqrt exp exp2 expm1 sigmoid log log1p log2 log10 erf erfc erfinv lgamma digamma")
_row("sin cos tan asin acos atan sinh cosh tanh asinh acosh atanh")
_row("bitwise_and", "Tensor Scalar Scalar_Tensor", booleans="logical_and")
_row("bitwise_or", "Tensor Scalar Scalar_Tensor", booleans="logical_or")
_row("bitwise_xor", "Tensor Scalar Scalar_Tensor", booleans="logical_xor")
_row("bitwise_not", booleans="logical_not")
