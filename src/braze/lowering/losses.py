"""Loss functions that choose a class for each row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from braze.ir.boxes import TensorBox
from braze.lowering.indexing import checked, require_integers
from braze.lowering.random import bounded
from braze.lowering.reductions import reduced
from braze.lowering.registry import lowers
from braze.ops.dag import Node
from braze.ops.dtypes import compute_dtype
from braze.ops.functions import log, log1p, maximum, where
from braze.runtime.expr import Expr, product

if TYPE_CHECKING:
    from braze.lowering.graph import GraphLowering

aten = torch.ops.aten

_NONE, _MEAN = 0, 1


@lowers(aten.binary_cross_entropy.default)
def binary_cross_entropy(
    ctx: GraphLowering,
    x: TensorBox,
    target: TensorBox,
    weight: TensorBox | None = None,
    reduction: int = _MEAN,
) -> TensorBox:
    """-(target * log(x) + (1 - target) * log(1 - x)), the logarithms at least -100, times the weight. Raises
    RuntimeError in the call where x or target is not in [0, 1]."""
    d, dtype = ctx.dag, compute_dtype(x.dtype)

    def probability(box: TensorBox, i: Sequence[Expr], name: str) -> Node:
        text = f"all elements of {name} should be between 0 and 1"
        value = d.to_dtype(ctx.broadcast_load(box, i, x.size), dtype)
        return bounded(ctx, value, 0.0, 1.0, text)

    def loss(i: Sequence[Expr]) -> Node:
        p, t = probability(x, i, "input"), probability(target, i, "target")
        value = (t - 1) * maximum(log1p(-p), -100) - t * maximum(log(p), -100)
        if weight is None:
            return value
        return value * d.to_dtype(ctx.broadcast_load(weight, i, x.size), dtype)

    if reduction == _NONE:
        return ctx.pointwise(x.size, x.dtype, loss)
    total = reduced(ctx, "sum", dtype, (), x.size, lambda i, r: [loss(r)])
    if reduction != _MEAN:
        return ctx.pointwise((), x.dtype, lambda i: total.load(d, i))
    count = d.index_expr(product(x.size), dtype)
    return ctx.pointwise((), x.dtype, lambda i: total.load(d, i) / count)


@lowers(aten.nll_loss_forward.default, aten.nll_loss2d_forward.default)
def nll_loss(
    ctx: GraphLowering,
    x: TensorBox,
    target: TensorBox,
    weight: TensorBox | None,
    reduction: int,
    ignore_index: int,
) -> tuple[TensorBox, TensorBox]:
    """-weight[class] * x at each row's class, summed or averaged; and the sum of those weights.

    ``x`` is (classes,), (rows, classes) or (rows, classes, ...), ``target`` the same without the classes.
    Rows of class ``ignore_index`` do not count.
    """
    d = ctx.dag
    dtype = compute_dtype(x.dtype)
    channel = 0 if x.ndim == 1 else 1
    require_integers(target)

    def chosen(i: Sequence[Expr]) -> tuple[Node, Expr]:
        label = target.load(d, i)
        counts = label.ne(ignore_index)
        safe = where(counts, label, 0)
        return counts, checked(ctx, safe, x.size[channel], wrap=False, error=IndexError)

    def row_weight(i: Sequence[Expr]) -> Node:
        counts, label = chosen(i)
        one = d.constant(1, dtype) if weight is None else d.to_dtype(weight.load(d, [label]), dtype)
        return where(counts, one, 0)

    def row_loss(i: Sequence[Expr]) -> Node:
        counts, label = chosen(i)
        value = -x.load(d, [*i[:channel], label, *i[channel:]])
        if weight is not None:
            value = value * d.to_dtype(weight.load(d, [label]), dtype)
        return where(counts, value, 0)

    if reduction == _NONE:
        none = ctx.pointwise((), x.dtype, lambda i: d.constant(0, dtype))
        return ctx.pointwise(target.size, x.dtype, row_loss), none
    total = reduced(ctx, "sum", dtype, (), target.size, lambda i, r: [row_weight(r)])
    loss = reduced(ctx, "sum", dtype, (), target.size, lambda i, r: [row_loss(r)])

    def result(i: Sequence[Expr]) -> Node:
        value = loss.load(d, i)
        return value / total.load(d, i) if reduction == _MEAN else value

    return ctx.pointwise((), x.dtype, result), ctx.pointwise((), x.dtype, lambda i: total.load(d, i))
