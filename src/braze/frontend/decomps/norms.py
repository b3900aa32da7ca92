"""Softmax and the normalisations, in forms whose reductions and elementwise parts fuse into one pass over a
row."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from braze._torch.shapes import true_if_known, true_or_guard
from braze.frontend.decomps.common import Table, computation

__all__ = ["TABLE"]

aten = torch.ops.aten


def _decided_by_data(x: Tensor) -> bool:
    """Whether the trace cannot know if there is an element: of none there is no maximum, but a softmax."""
    return not true_or_guard(x.numel() == 0) and not true_if_known(x.numel() > 0)


def softmax(x: Tensor, dim: int, half_to_float: bool) -> Any:
    """exp(x - max) / sum(exp(x - max)). The result is contiguous, as eager's is."""
    if _decided_by_data(x):
        return NotImplemented
    wide = computation(x.contiguous())
    if not true_or_guard(wide.numel() == 0):
        wide = torch.exp(wide - torch.amax(wide, dim, keepdim=True))
        # a product is cheaper than a quotient in every element, and as good: the sum is 1 or more
        wide = wide * torch.reciprocal(torch.sum(wide, dim, keepdim=True))
    return wide if half_to_float else wide.to(x.dtype)


def log_softmax(x: Tensor, dim: int, half_to_float: bool) -> Any:
    """x - max - log(sum(exp(x - max))), contiguous."""
    if _decided_by_data(x):
        return NotImplemented
    wide = computation(x.contiguous())
    if not true_or_guard(wide.numel() == 0):
        shifted = wide - torch.amax(wide, dim, keepdim=True)
        wide = shifted - torch.log(torch.sum(torch.exp(shifted), dim, keepdim=True))
    return wide if half_to_float else wide.to(x.dtype)


def native_layer_norm(
    x: Tensor, normalized_shape: list[int], weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalise over the last dimensions. Mean and reciprocal deviation keep those dimensions with size 1,
    and have the dtype that eager gives them: the weight's where input and weight differ, the input's
    otherwise."""
    dims = list(range(x.ndim - len(normalized_shape), x.ndim))
    wide = computation(x.contiguous())
    variance, mean = torch.var_mean(wide, dim=dims, correction=0, keepdim=True)
    rstd = torch.rsqrt(variance + eps)
    out = (wide - mean) * rstd
    if weight is not None:
        out = out * weight
    if bias is not None:
        out = out + bias
    statistics = x.dtype if weight is None else weight.dtype
    return out.to(x.dtype), mean.to(statistics), rstd.to(statistics)


def native_group_norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    n: int,
    c: int,
    hxw: int,
    groups: int,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalise each group of channels. Mean and reciprocal deviation are (n, groups)."""
    # one reduction over (channels of the group, positions), on a view
    wide = computation(x.contiguous()).view(n, groups, c // groups, hxw)
    variance, mean = torch.var_mean(wide, dim=[2, 3], correction=0, keepdim=True)
    rstd = torch.rsqrt(variance + eps)
    out = ((wide - mean) * rstd).view(x.shape)
    per_channel = [1, c] + [1] * (x.ndim - 2)
    if weight is not None:
        out = out * weight.view(per_channel)
    if bias is not None:
        out = out + bias.view(per_channel)
    statistics = x.dtype if weight is None else weight.dtype
    return (
        out.to(x.dtype),
        mean.view(n, groups).to(statistics),
        rstd.view(n, groups).to(statistics),
    )


def native_group_norm_backward(
    grad_output: Tensor,
    x: Tensor,
    mean: Tensor,
    rstd: Tensor,
    weight: Tensor | None,
    n: int,
    c: int,
    hxw: int,
    groups: int,
    output_mask: list[bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of `native_group_norm`: with xhat = (x - mean) * rstd and g = grad * weight,
    dx = rstd * (g - mean(g) - xhat * mean(g * xhat)), means being over a group."""
    per_group = [n, groups, c // groups, hxw]
    grad = computation(grad_output.contiguous()).view(per_group)
    wide = computation(x.contiguous()).view(per_group)
    rstd4 = computation(rstd).reshape(n, groups, 1, 1)
    xhat = (wide - computation(mean).reshape(n, groups, 1, 1)) * rstd4
    # sums over positions first: the gradients of weight and bias need no more than these
    sum_grad = grad.sum(dim=[3])
    sum_grad_xhat = (grad * xhat).sum(dim=[3])
    grad_x = grad_weight = grad_bias = None
    if output_mask[0]:
        scaled = [grad, sum_grad, sum_grad_xhat]
        if weight is not None:
            w = computation(weight).view(1, groups, c // groups)
            scaled = [grad * w.unsqueeze(-1), sum_grad * w, sum_grad_xhat * w]
        count = (c // groups) * hxw
        mean_g = (scaled[1].sum(dim=[2], keepdim=True) / count).unsqueeze(-1)
        mean_gx = (scaled[2].sum(dim=[2], keepdim=True) / count).unsqueeze(-1)
        grad_x = (rstd4 * (scaled[0] - mean_g - xhat * mean_gx)).view(x.shape).to(x.dtype)
    if output_mask[1]:
        grad_weight = sum_grad_xhat.sum(dim=[0]).reshape(c)
        grad_weight = grad_weight if weight is None else grad_weight.to(weight.dtype)
    if output_mask[2]:
        grad_bias = sum_grad.sum(dim=[0]).reshape(c)
        grad_bias = grad_bias if weight is None else grad_bias.to(weight.dtype)
    return grad_x, grad_weight, grad_bias


def native_layer_norm_backward(
    grad_output: Tensor,
    x: Tensor,
    normalized_shape: list[int],
    mean: Tensor,
    rstd: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    output_mask: list[bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of `native_layer_norm`: with xhat = (x - mean) * rstd and g = grad * weight,
    dx = rstd * (g - mean(g) - xhat * mean(g * xhat)), means being over a row."""
    inner = list(range(x.ndim - len(normalized_shape), x.ndim))
    outer = list(range(x.ndim - len(normalized_shape)))
    grad = computation(grad_output)
    wide = computation(x)
    rstd = computation(rstd)
    xhat = (wide - computation(mean)) * rstd
    grad_x = grad_weight = grad_bias = None
    if output_mask[0]:
        g = grad if weight is None else grad * weight
        count = math.prod(normalized_shape)
        mean_g = g.sum(dim=inner, keepdim=True) / count
        mean_gx = (g * xhat).sum(dim=inner, keepdim=True) / count
        grad_x = (rstd * (g - mean_g - xhat * mean_gx)).to(x.dtype)
    if output_mask[1] and weight is not None:
        product = grad * xhat
        grad_weight = (product.sum(dim=outer) if outer else product.clone()).to(weight.dtype)
    if output_mask[2] and bias is not None:
        grad_bias = (grad.sum(dim=outer) if outer else grad.clone()).to(bias.dtype)
    return grad_x, grad_weight, grad_bias


def weight_norm_interface(v: Tensor, g: Tensor, dim: int = 0) -> tuple[Tensor, Tensor]:
    """v * (g / norm), the norm over all dimensions but one. Half types have norms in float32, where none
    overflows."""
    wide = computation(v)
    norm = torch.linalg.vector_norm(wide, 2, [d for d in range(v.ndim) if d != dim], keepdim=True)
    return (wide * (computation(g) / norm)).to(v.dtype), norm


TABLE: Table = {
    aten._weight_norm_interface.default: weight_norm_interface,
    aten._softmax.default: softmax,
    aten._log_softmax.default: log_softmax,
    aten.native_layer_norm.default: native_layer_norm,
    aten.native_layer_norm_backward.default: native_layer_norm_backward,
    aten.native_group_norm.default: native_group_norm,
    aten.native_group_norm_backward.default: native_group_norm_backward,
}
