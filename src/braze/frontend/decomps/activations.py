"""Activations and their gradients, elementwise."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from braze.frontend.decomps.common import Table, computation

__all__ = ["TABLE"]

aten = torch.ops.aten

_TANH_SCALE = math.sqrt(2.0 / math.pi)
_TANH_CUBIC = 0.044715


def gelu(x: Tensor, approximate: str = "none") -> Tensor:
    """x * Phi(x); with ``approximate="tanh"`` its approximation by tanh."""
    wide = computation(x)
    if approximate == "tanh":
        inner = _TANH_SCALE * (wide + _TANH_CUBIC * (wide * wide * wide))
        return (0.5 * wide * (1.0 + torch.tanh(inner))).to(x.dtype)
    return (wide * 0.5 * (1.0 + torch.erf(wide * math.sqrt(0.5)))).to(x.dtype)


def gelu_backward(grad: Tensor, x: Tensor, approximate: str = "none") -> Tensor:
    """grad * d gelu(x) / dx."""
    wide = computation(x)
    if approximate == "tanh":
        square = wide * wide
        tanh = torch.tanh(_TANH_SCALE * (wide + _TANH_CUBIC * (square * wide)))
        inner_slope = _TANH_SCALE * (1.0 + 3.0 * _TANH_CUBIC * square)
        slope = 0.5 * (1.0 + tanh) + 0.5 * wide * ((1.0 - tanh * tanh) * inner_slope)
    else:
        cdf = 0.5 * (1.0 + torch.erf(wide * math.sqrt(0.5)))
        slope = cdf + wide * (torch.exp(wide * wide * -0.5) * (1.0 / math.sqrt(2.0 * math.pi)))
    return (computation(grad) * slope).to(x.dtype)


def silu(x: Tensor) -> Any:
    """x * sigmoid(x), for real tensors."""
    if x.is_complex():
        return NotImplemented
    wide = computation(x)
    return (wide * torch.sigmoid(wide)).to(x.dtype)


def silu_backward(grad: Tensor, x: Tensor) -> Any:
    """grad * sigmoid(x) * (1 + x * (1 - sigmoid(x))), for real tensors."""
    if x.is_complex():
        return NotImplemented
    wide = computation(x)
    s = torch.sigmoid(wide)
    return (computation(grad) * s * (1.0 + wide * (1.0 - s))).to(x.dtype)


def sigmoid_backward(grad: Tensor, out: Tensor) -> Any:
    """grad * (1 - out) * out, for real tensors."""
    if out.is_complex():
        return NotImplemented
    wide = computation(out)
    return (computation(grad) * ((1.0 - wide) * wide)).to(out.dtype)


def tanh_backward(grad: Tensor, out: Tensor) -> Any:
    """grad * (1 - out^2), for real tensors."""
    if out.is_complex():
        return NotImplemented
    wide = computation(out)
    return (computation(grad) * (1.0 - wide * wide)).to(out.dtype)


def leaky_relu(x: Tensor, negative_slope: float = 0.01) -> Tensor:
    """x where positive, negative_slope * x elsewhere."""
    return torch.where(x > 0, x, x * negative_slope)


def elu(x: Tensor, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> Tensor:
    """scale * x where positive, scale * alpha * (exp(input_scale * x) - 1) elsewhere."""
    wide = computation(x)
    negative = torch.expm1(wide * input_scale) * (alpha * scale)
    return torch.where(wide > 0, wide * scale, negative).to(x.dtype)


def hardtanh(x: Tensor, min_val: float = -1.0, max_val: float = 1.0) -> Tensor:
    """x between the two bounds; these are truncated for integers, as eager does."""
    if not x.is_floating_point():
        return torch.clamp(x, math.trunc(min_val), math.trunc(max_val))
    return torch.clamp(x, min_val, max_val)


TABLE: Table = {
    aten.gelu.default: gelu,
    aten.gelu_backward.default: gelu_backward,
    aten.silu.default: silu,
    aten.silu_backward.default: silu_backward,
    aten.sigmoid_backward.default: sigmoid_backward,
    aten.tanh_backward.default: tanh_backward,
    aten.leaky_relu.default: leaky_relu,
    aten.elu.default: elu,
    aten.hardtanh.default: hardtanh,
}
