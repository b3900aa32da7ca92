"""Operators that are called whole by design: there is a kernel for them that loops alone would not reach, or
they are no loops at all. The table says which, and why; docs/operators.md shows it.

A row names operators of ATen, or of another namespace (``mkldnn::``), with all their overloads that write to
no argument; releases and builds of PyTorch differ in what they have. One that has a lowering as well is
called whole where that declines.

A file of its own: each family of operators has one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from braze.lowering.products import product_by_onednn
from braze.lowering.registry import Lowering, calls_whole

__all__ = ["BY_DESIGN"]

aten = torch.ops.aten

BY_DESIGN: tuple[tuple[str, str], ...] = (
    (
        "a matrix product: a library's micro-kernels",
        """mm addmm bmm baddbmm _int_mm addbmm _trilinear _grouped_mm _scaled_mm _scaled_mm_v2
        _scaled_grouped_mm _scaled_grouped_mm_v2 _foreach_mm mkldnn::_linear_pointwise""",
    ),
    (
        "a product of packed or quantised weights: their layouts are a library's own",
        """_weight_int8pack_mm _weight_int4pack_mm _weight_int4pack_mm_for_cpu
        _weight_int4pack_mm_with_scales_and_zeros _convert_weight_to_int4pack
        _convert_weight_to_int4pack_for_cpu _dyn_quant_matmul_4bit _dyn_quant_pack_4bit_weight
        _mixed_dtypes_linear _cslt_compress _cslt_sparse_mm _sparse_semi_structured_addmm
        _sparse_semi_structured_apply _sparse_semi_structured_apply_dense
        _sparse_semi_structured_linear _sparse_semi_structured_mm _sparse_semi_structured_tile
        _to_sparse_semi_structured quantized::int4mm_packed_weight_cpu
        quantized::linear_dynamic_fp16_unpacked_weight
        _quantized::wrapped_fbgemm_pack_gemm_matrix_fp16
        _quantized::wrapped_fbgemm_linear_fp16_weight""",
    ),
    (
        "a convolution: oneDNN's blocked kernels",
        """convolution convolution_backward convolution_overrideable
        convolution_backward_overrideable conv_tbc mkldnn_convolution
        mkldnn::_convolution_pointwise mkldnn::_convolution_transpose_pointwise
        _slow_conv2d_forward _slow_conv2d_backward slow_conv3d_forward slow_conv_dilated2d
        slow_conv_dilated3d slow_conv_transpose2d slow_conv_transpose3d
        _nnpack_spatial_convolution _conv_depthwise2d conv_depthwise3d cudnn_convolution
        cudnn_convolution_add_relu cudnn_convolution_relu cudnn_convolution_transpose
        miopen_convolution miopen_convolution_add_relu miopen_convolution_relu
        miopen_convolution_transpose miopen_depthwise_convolution""",
    ),
    (
        "attention that never materialises the scores",
        """_scaled_dot_product_flash_attention_for_cpu
        _scaled_dot_product_flash_attention_for_cpu_backward
        _scaled_dot_product_fused_attention_overrideable
        _scaled_dot_product_fused_attention_overrideable_backward
        _scaled_dot_product_flash_attention _scaled_dot_product_flash_attention_backward
        _scaled_dot_product_efficient_attention _scaled_dot_product_efficient_attention_backward
        _scaled_dot_product_cudnn_attention _scaled_dot_product_cudnn_attention_backward
        _flash_attention_forward _flash_attention_backward _efficient_attention_forward
        _efficient_attention_backward _cudnn_attention_forward _cudnn_attention_backward
        _triton_scaled_dot_attention _triton_multi_head_attention _native_multi_head_attention
        _transformer_encoder_layer_fwd""",
    ),
    (
        "a recurrent layer or cell: one call for all of its steps and gates",
        """mkldnn_rnn_layer mkldnn_rnn_layer_backward _thnn_fused_lstm_cell
        _thnn_fused_lstm_cell_backward_impl _thnn_fused_gru_cell _thnn_fused_gru_cell_backward
        _cudnn_rnn _cudnn_rnn_backward miopen_rnn miopen_rnn_backward""",
    ),
    (
        "pooling over windows",
        """max_pool2d_with_indices max_pool2d_with_indices_backward max_pool3d_with_indices
        max_pool3d_with_indices_backward avg_pool2d avg_pool2d_backward avg_pool3d
        avg_pool3d_backward _adaptive_avg_pool2d_backward _adaptive_avg_pool3d
        _adaptive_avg_pool3d_backward adaptive_max_pool2d adaptive_max_pool2d_backward
        adaptive_max_pool3d adaptive_max_pool3d_backward max_unpool2d max_unpool3d
        fractional_max_pool2d fractional_max_pool2d_backward fractional_max_pool3d
        fractional_max_pool3d_backward""",
    ),
    ("sorting", "sort topk"),
    (
        "selection: a sort in part, whose choice among equal elements is its own",
        "kthvalue median nanmedian mode",
    ),
    ("a Fourier transform: a library's plans", "_fft_r2c _fft_c2r _fft_c2c"),
    (
        "linear algebra: LAPACK's factorisations and solvers",
        """linalg_cholesky_ex cholesky cholesky_inverse cholesky_solve _cholesky_solve_helper
        geqrf ormqr linalg_householder_product linalg_qr _linalg_svd _linalg_eigh linalg_eig
        _linalg_eigvals linalg_inv_ex linalg_pinv linalg_lstsq linalg_ldl_factor_ex
        linalg_ldl_solve linalg_lu linalg_lu_factor_ex linalg_lu_solve lu_unpack _linalg_det
        _linalg_slogdet _linalg_solve_ex linalg_solve_triangular triangular_solve
        linalg_matrix_exp _compute_linear_combination""",
    ),
    ("a check of what a tensor holds, in order with others", "_linalg_check_errors _assert_async"),
    (
        "sampling: what it draws depends on what it drew before",
        "multinomial randperm binomial poisson _standard_gamma _sample_dirichlet",
    ),
    (
        "the derivative of a sampler: a series of its own for each element",
        "_standard_gamma_grad _dirichlet_grad",
    ),
    (
        "derivatives of distances, and distances of rows of a width that is not known",
        "_cdist_forward _cdist_backward _pdist_forward _pdist_backward",
    ),
    (
        "a recursion over alignments, one for each sequence",
        "_ctc_loss _ctc_loss_backward _cudnn_ctc_loss miopen_ctc_loss",
    ),
    (
        "sums over bags of rows, in the order of a sort",
        "_embedding_bag_dense_backward _embedding_bag_per_sample_weights_backward",
    ),
)
"""(reason, operators)."""

_INTO_MEMORY: Mapping[Any, Any] = {
    aten.mm.default: aten.mm.out,
    aten.addmm.default: aten.addmm.out,
    aten.bmm.default: aten.bmm.out,
    aten.baddbmm.default: aten.baddbmm.out,
    aten._int_mm.default: aten._int_mm.out,
}
"""Variants that write into given memory, and do no more than that."""

_BETTER: Mapping[Any, Lowering] = {
    aten.mm.default: product_by_onednn,
    aten.addmm.default: product_by_onednn,
}
"""What may be called instead."""


for _reason, _names in BY_DESIGN:
    _qualified = (n if "::" in n else f"aten::{n}" for n in _names.split())
    calls_whole(_reason, *_qualified)
for _operator, _out in _INTO_MEMORY.items():
    calls_whole(BY_DESIGN[0][0], _operator, out=_out, instead=_BETTER.get(_operator))
