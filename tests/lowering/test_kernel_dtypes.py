"""The tables of missing kernels say what eager PyTorch does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from braze.lowering.kernel_dtypes import FIRST, PROMOTED

aten = torch.ops.aten

DTYPES = (
    *(torch.float32, torch.float64, torch.float16, torch.bfloat16),
    *(torch.int64, torch.int32, torch.int8, torch.uint8, torch.bool),
)
Call = Callable[[torch.dtype], Any]


def _row(dtype: torch.dtype) -> torch.Tensor:
    return torch.tensor([1, 0, 1, 1], dtype=dtype)


def _picture(dtype: torch.dtype) -> torch.Tensor:
    return torch.ones(1, 2, 4, 4, dtype=dtype)


def _unary(name: str, *rest: Any) -> Call:
    return lambda dtype: getattr(aten, name)(_row(dtype), *rest)


def _binary(name: str, *rest: Any) -> Call:
    return lambda dtype: getattr(aten, name)(_row(dtype), torch.ones_like(_row(dtype)), *rest)


CALLS: dict[str, Call] = {
    **{
        name: _unary(name)
        for name in """abs argmax ceil celu elu floor frac gelu hardshrink hardsigmoid hardswish
        leaky_relu mish relu round silu softplus softshrink special_bessel_j0 special_bessel_j1
        special_erfcx special_log_ndtr special_modified_bessel_i0 special_modified_bessel_i1
        special_spherical_bessel_j0 log_sigmoid_forward trunc std var bitwise_not""".split()
    },
    **{
        name: _binary(name)
        for name in """_prelu_kernel binary_cross_entropy binary_cross_entropy_with_logits bitwise_and
        bitwise_or
        bitwise_xor bitwise_left_shift bitwise_right_shift bucketize dot floor_divide fmod hypot
        huber_loss logaddexp logaddexp2 mse_loss nextafter remainder sigmoid_backward silu_backward
        smooth_l1_loss soft_margin_loss tanh_backward vdot gelu_backward mish_backward
        hardswish_backward""".split()
    },
    "_softmax": _unary("_softmax", 0, False),
    "_log_softmax": _unary("_log_softmax", 0, False),
    "_softmax_backward_data": lambda t: aten._softmax_backward_data(_row(t), _row(t), 0, t),
    "_log_softmax_backward_data": lambda t: aten._log_softmax_backward_data(_row(t), _row(t), 0, t),
    "clamp": lambda t: aten.clamp(_row(t), _row(t), _row(t)),
    "logcumsumexp": _unary("logcumsumexp", 0),
    "glu": _unary("glu", 0),
    "lerp": _binary("lerp", 0.5),
    "addcmul": lambda t: aten.addcmul(_row(t), _row(t), _row(t)),
    "mv": lambda t: aten.mv(_row(t).view(1, 4), _row(t)),
    "trace": lambda t: aten.trace(_row(t).view(2, 2)),
    "threshold": _unary("threshold", 0, 0),
    "linalg_cross": lambda t: aten.linalg_cross(_row(t)[:3], _row(t)[:3]),
    "reflection_pad1d": lambda t: aten.reflection_pad1d(_row(t).view(1, 4), [1, 1]),
    "reflection_pad2d": lambda t: aten.reflection_pad2d(_picture(t), [1, 1, 1, 1]),
    "_adaptive_avg_pool2d": lambda t: aten._adaptive_avg_pool2d(_picture(t), [2, 2]),
    "upsample_nearest1d": lambda t: aten.upsample_nearest1d(_row(t).view(1, 1, 4), [8]),
    "upsample_linear1d": lambda t: aten.upsample_linear1d(_row(t).view(1, 1, 4), [8], False),
    "upsample_nearest2d": lambda t: aten.upsample_nearest2d(_picture(t), [8, 8]),
    "upsample_bilinear2d": lambda t: aten.upsample_bilinear2d(_picture(t), [8, 8], False),
    "upsample_bicubic2d": lambda t: aten.upsample_bicubic2d(_picture(t), [8, 8], False),
    "grid_sampler_2d": lambda t: aten.grid_sampler_2d(
        _picture(t), torch.ones(1, 2, 2, 2, dtype=t), 0, 0, False
    ),
    "native_layer_norm": lambda t: aten.native_layer_norm(_row(t), [4], None, None, 1e-5),
    "native_group_norm": lambda t: aten.native_group_norm(_picture(t), None, None, 1, 2, 16, 1, 1e-5),
    "native_batch_norm": lambda t: aten.native_batch_norm(
        _picture(t), None, None, None, None, True, 0.1, 1e-5
    ),
    "nll_loss_forward": lambda t: aten.nll_loss_forward(
        _row(t).view(2, 2), torch.tensor([0, 1]), None, 1, -1
    ),
    "multi_margin_loss": lambda t: aten.multi_margin_loss(_row(t).view(2, 2), torch.tensor([0, 1])),
    "_cdist_forward": lambda t: aten._cdist_forward(_row(t).view(2, 2), _row(t).view(2, 2), 2.0, None),
}


def _accepts(call: Call, dtype: torch.dtype) -> bool:
    try:
        call(dtype)
    except RuntimeError:
        return False
    return True


@pytest.mark.parametrize("name", CALLS)
def test_the_tables_name_the_types_that_a_kernel_lacks(name: str) -> None:
    packet = getattr(aten, name)
    table = FIRST if packet in FIRST else PROMOTED
    accepted = {dtype for dtype in DTYPES if _accepts(CALLS[name], dtype)}
    assert accepted <= table[packet], "these would be run by eager PyTorch for nothing"
    assert table[packet] & set(DTYPES) <= accepted, "eager PyTorch refuses more than the table says"
