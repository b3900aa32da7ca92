"""The element types that ATen's CPU kernels exist for, where these are fewer than fake versions accept.

The tables follow the kernels of torch 2.13. They may name too many types as missing, which costs a call of
eager PyTorch; what a kernel lacks and no table names is computed, where eager raises an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import torch

__all__ = ["FIRST", "PROMOTED", "Dtypes"]

aten = torch.ops.aten

Dtypes: TypeAlias = frozenset[torch.dtype]

HALVES: Dtypes = frozenset((torch.float16, torch.bfloat16))
WIDE: Dtypes = frozenset((torch.float32, torch.float64))
COMPLEX: Dtypes = frozenset((torch.complex32, torch.complex64, torch.complex128))
FLOATING: Dtypes = HALVES | WIDE | COMPLEX
INTEGERS: Dtypes = frozenset((torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64))
BOOL: Dtypes = frozenset((torch.bool,))


def _packets(names: str) -> tuple[Any, ...]:
    """The overload packets of these names; a release of PyTorch may lack some."""
    found = (getattr(aten, name, None) for name in names.split())
    return tuple([packet for packet in found if packet is not None])


_ACCEPTED: tuple[tuple[Dtypes, str], ...] = (
    (
        FLOATING,
        """_adaptive_avg_pool2d _batch_norm_no_update _batch_norm_with_update _fused_rms_norm _log_softmax
        _log_softmax_backward_data _native_batch_norm_legit _native_batch_norm_legit_functional
        _native_batch_norm_legit_no_training _prelu_kernel _prelu_kernel_backward _safe_softmax _softmax
        _softmax_backward_data batch_norm_backward binary_cross_entropy binary_cross_entropy_with_logits
        binary_cross_entropy_backward celu cudnn_batch_norm elu elu_backward frac gelu gelu_backward glu
        glu_backward grid_sampler_2d grid_sampler_3d hardshrink hardsigmoid hardsigmoid_backward hardswish
        hardswish_backward hardtanh_backward histc leaky_relu leaky_relu_backward lerp
        log_sigmoid_backward log_sigmoid_forward logcumsumexp logit_backward max_unpool2d max_unpool3d
        mish mish_backward native_batch_norm native_batch_norm_backward native_group_norm
        native_group_norm_backward native_layer_norm native_layer_norm_backward nll_loss_forward
        nll_loss2d_forward nll_loss_backward nll_loss2d_backward reflection_pad1d_backward
        reflection_pad2d_backward reflection_pad3d_backward replication_pad1d_backward
        replication_pad2d_backward replication_pad3d_backward rrelu_with_noise sigmoid_backward silu
        silu_backward soft_margin_loss soft_margin_loss_backward softplus softplus_backward softshrink std
        std_mean tanh_backward uniform normal normal_functional exponential cauchy upsample_linear1d
        upsample_trilinear3d native_dropout var var_mean""",
    ),
    (
        WIDE,
        "_histogramdd_bin_edges _histogramdd_from_bin_cts _histogramdd_from_bin_tensors histogram",
    ),
    (
        WIDE,
        "_cdist_forward _euclidean_dist _pdist_backward _pdist_forward multi_margin_loss"
        " multilabel_margin_loss_forward",
    ),
    (
        WIDE | INTEGERS | BOOL,
        """special_airy_ai special_bessel_j0 special_bessel_j1 special_bessel_y0 special_bessel_y1
        special_erfcx special_log_ndtr special_modified_bessel_i0 special_modified_bessel_i1
        special_modified_bessel_k0 special_modified_bessel_k1 special_ndtri special_scaled_modified_bessel_k0
        special_scaled_modified_bessel_k1 special_spherical_bessel_j0""",
    ),
    (
        FLOATING | INTEGERS,
        """abs addmv argmax argmin bucketize ceil dot floor index_reduce linalg_cross mv mvlgamma
        reflection_pad1d reflection_pad2d reflection_pad3d relu round searchsorted threshold
        threshold_backward trace trunc vdot""",
    ),
    (
        FLOATING | {torch.uint8},
        """upsample_bilinear2d upsample_bicubic2d upsample_nearest1d upsample_nearest2d upsample_nearest3d
        _upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d""",
    ),
)
"""The types of the first tensor that an operator's kernel is there for."""

_ACCEPTED_PROMOTED: tuple[tuple[Dtypes, str], ...] = (
    (
        FLOATING,
        """addcdiv huber_loss huber_loss_backward hypot igamma igammac logaddexp logaddexp2 mse_loss nextafter
        smooth_l1_loss""",
    ),
    (FLOATING | INTEGERS, "addcmul clamp clamp_min clamp_max fmod floor_divide remainder"),
    (
        WIDE | INTEGERS | BOOL,
        """special_chebyshev_polynomial_t special_chebyshev_polynomial_u special_chebyshev_polynomial_v
        special_chebyshev_polynomial_w special_shifted_chebyshev_polynomial_t
        special_shifted_chebyshev_polynomial_u special_shifted_chebyshev_polynomial_v
        special_shifted_chebyshev_polynomial_w special_hermite_polynomial_h special_hermite_polynomial_he
        special_laguerre_polynomial_l special_legendre_polynomial_p special_zeta""",
    ),
    (INTEGERS | BOOL, "bitwise_and bitwise_not bitwise_or bitwise_xor"),
    (INTEGERS, "bitwise_left_shift bitwise_right_shift gcd lcm __lshift__ __rshift__"),
)
"""The same for operators that compute in the type to which all their tensors are promoted."""

FIRST: Mapping[Any, Dtypes] = {p: types for types, names in _ACCEPTED for p in _packets(names)}
PROMOTED: Mapping[Any, Dtypes] = {p: types for types, names in _ACCEPTED_PROMOTED for p in _packets(names)}
