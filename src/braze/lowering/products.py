"""Matrix products in float32: which library multiplies.

ATen gives float32 products to the BLAS that it was built with. oneDNN, in the same build, multiplies large
ones about twice as fast on CPUs with AVX-512 (measured: 2.0 to 2.2 times from 512x256x256 up, whatever the
strides, without packed weights) but costs 10 us a call. The crossing lies near three million multiplications
for one thread, and a bit below and above for two.

A file of its own: a choice that was measured, and will be measured again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from braze._torch.onednn import linear_operator
from braze.ir.boxes import TensorBox
from braze.ir.buffers import Buffer
from braze.ir.externs import ExternKernelAlloc
from braze.ir.views import PermuteView
from braze.runtime.expr import ONE, product
from braze.runtime.spec import Layout, tensor_spec

if TYPE_CHECKING:
    from braze.lowering.graph import GraphLowering

MIN_MULTIPLICATIONS = 3 << 20
MIN_ROWS = 32
"""Fewer rows do not pay for reading the other matrix in blocks."""


def product_by_onednn(ctx: GraphLowering) -> TensorBox | None:
    """The current node, ``mm`` or ``addmm``, as a call of oneDNN; ``None`` where ATen's own call is the
    better or the only one."""
    operator = linear_operator()
    args = ctx.args_of(tuple(ctx.node.args))
    bias, x, y = args if len(args) == 3 else (None, *args)
    scaled = any(value != 1 for value in ctx.node.kwargs.values())
    if operator is None or scaled or x.dtype is not torch.float32 or not _worthwhile(x, y):
        return None
    if bias is not None and (bias.ndim != 1 or bias.size[0] != y.size[1] or bias.dtype is not x.dtype):
        return None
    weight = ctx.graph.view(y, PermuteView((y.size[1], y.size[0]), (1, 0)))
    refs = [ctx.graph.ref(x), ctx.graph.ref(weight), None if bias is None else ctx.graph.ref(bias)]
    if any(r is not None and not _plain(r.layout) for r in refs):
        return None
    layout = tensor_spec(x.dtype, ctx.out_size, device=x.device)
    if layout.strides != ctx.exprs(ctx.example.stride()):
        return None
    result = Buffer(ctx.graph.buffer_name(), layout)
    kernel = ExternKernelAlloc(
        ctx.graph.operation_name(),
        operator,
        (*refs, "none", [], ""),
        {},
        [result],
        result.name,
        origins=[ctx.origin],
    )
    ctx.graph.add_operation(kernel)
    return TensorBox.of(result)


def _worthwhile(x: TensorBox, y: TensorBox) -> bool:
    rows = x.size[0].constant
    work = product((*x.size, y.size[1])).constant
    return rows is not None and rows >= MIN_ROWS and work is not None and work >= MIN_MULTIPLICATIONS


def _plain(layout: Layout) -> bool:
    """One dimension without gaps, and no overlap: what oneDNN reads as it is."""
    return layout.is_injective and any(
        s == ONE for n, s in zip(layout.sizes, layout.strides, strict=True) if n != ONE
    )
