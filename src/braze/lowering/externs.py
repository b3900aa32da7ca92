"""Operators that are called whole by design: there is a kernel for them that loops alone would not reach.

A file of its own: each family of operators has one.
"""

from __future__ import annotations

import torch

from braze.lowering.products import product_by_onednn
from braze.lowering.registry import calls_whole

aten = torch.ops.aten

_MATMUL = "a matrix product: a library's micro-kernels"
calls_whole(_MATMUL, aten.mm.default, out=aten.mm.out, instead=product_by_onednn)
calls_whole(_MATMUL, aten.addmm.default, out=aten.addmm.out, instead=product_by_onednn)
calls_whole(_MATMUL, aten.bmm.default, out=aten.bmm.out)
calls_whole(_MATMUL, aten.baddbmm.default, out=aten.baddbmm.out)
calls_whole(_MATMUL, aten._int_mm.default, out=aten._int_mm.out)
calls_whole(_MATMUL, aten.mkldnn_rnn_layer.default, aten.addbmm.default, aten._trilinear.default)

calls_whole(
    "a convolution: oneDNN's blocked kernels",
    aten.convolution.default,
    aten.convolution_backward.default,
)

calls_whole(
    "attention that never materialises the scores",
    aten._scaled_dot_product_flash_attention_for_cpu.default,
    aten._scaled_dot_product_flash_attention_for_cpu_backward.default,
    aten._scaled_dot_product_fused_attention_overrideable.default,
    aten._scaled_dot_product_fused_attention_overrideable_backward.default,
)

calls_whole(
    "pooling over windows",
    aten.max_pool2d_with_indices.default,
    aten.max_pool2d_with_indices_backward.default,
    aten.max_pool3d_with_indices.default,
    aten.max_pool3d_with_indices_backward.default,
    aten.avg_pool2d.default,
    aten.avg_pool2d_backward.default,
    aten.avg_pool3d.default,
    aten.avg_pool3d_backward.default,
    aten._adaptive_avg_pool2d_backward.default,
    aten._adaptive_avg_pool3d.default,
    aten._adaptive_avg_pool3d_backward.default,
    aten.adaptive_max_pool2d.default,
    aten.adaptive_max_pool2d_backward.default,
    aten.adaptive_max_pool3d.default,
    aten.adaptive_max_pool3d_backward.default,
    aten.max_unpool2d.default,
    aten.max_unpool3d.default,
    aten.fractional_max_pool2d.default,
    aten.fractional_max_pool2d_backward.default,
    aten.fractional_max_pool3d.default,
    aten.fractional_max_pool3d_backward.default,
)

calls_whole(
    "sorting",
    aten.sort.default,
    aten.sort.stable,
    aten.topk.default,
)
