"""Loss functions, where a gradient can be written without a scatter."""

from __future__ import annotations

import torch
from torch import Tensor

from braze.frontend.decomps.common import HALF_TYPES, Table, computation, rounded

__all__ = ["TABLE"]

aten = torch.ops.aten

_REDUCE_NONE, _REDUCE_MEAN = 0, 1


def _reduced(loss: Tensor, reduction: int) -> Tensor:
    if reduction == _REDUCE_NONE:
        return loss
    return torch.mean(loss) if reduction == _REDUCE_MEAN else torch.sum(loss)


def soft_margin_loss(x: Tensor, target: Tensor, reduction: int = _REDUCE_MEAN) -> Tensor:
    """log(1 + exp(-target * x)). In half types every step is rounded, as eager stores it: the exponential
    overflows."""
    if x.dtype not in HALF_TYPES or x.dtype is not target.dtype:
        return _reduced(torch.log1p(torch.exp(-x * target)), reduction)
    product = rounded(-computation(target) * computation(x), x.dtype)
    grown = rounded(torch.exp(product), x.dtype)
    return _reduced(torch.log1p(grown).to(x.dtype), reduction)


def soft_margin_loss_backward(
    grad: Tensor, x: Tensor, target: Tensor, reduction: int = _REDUCE_MEAN
) -> Tensor:
    """-target * grad * z / (z + 1) with z = exp(-target * x), over the number of elements for the mean; every
    step rounded in half types."""

    def step(v: Tensor) -> Tensor:
        return rounded(v, x.dtype) if x.dtype in HALF_TYPES else v

    wide, t = computation(x), -computation(target)
    z = step(torch.exp(step(t * wide)))
    scaled = t / x.numel() if reduction == _REDUCE_MEAN else t
    slope = step(step(step(scaled) * z) / step(z + 1))
    return (slope * computation(grad)).to(x.dtype)


def smooth_l1_loss_backward(
    grad: Tensor, x: Tensor, target: Tensor, reduction: int = _REDUCE_MEAN, beta: float = 1.0
) -> Tensor:
    """grad times d / beta for a difference d = x - target between -beta and beta, else times its sign; over
    the number of elements for the mean. A difference that is NaN is neither."""
    d = computation(x) - computation(target)
    scale = computation(grad) / x.numel() if reduction == _REDUCE_MEAN else computation(grad)
    flat = torch.where(d >= beta, scale, scale * d / beta if beta else scale * d)
    return torch.where(d <= -beta, -scale, flat).to(x.dtype)


def binary_cross_entropy_with_logits(
    x: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    pos_weight: Tensor | None = None,
    reduction: int = _REDUCE_MEAN,
) -> Tensor:
    """(1 - target) * x - log_weight * logsigmoid(x), times the weight, where log_weight is 1 or
    (pos_weight - 1) * target + 1. In half types every step is rounded, as eager stores it: in a tensor like
    the target, to which `x` is broadcast."""

    def step(v: Tensor, dtype: torch.dtype = target.dtype) -> Tensor:
        return rounded(v, dtype) if dtype in HALF_TYPES else v

    wide, t = computation(x).expand(target.shape), computation(target)
    log_sigmoid = step(torch.nn.functional.logsigmoid(wide), x.dtype)
    if pos_weight is not None:
        log_weight = step(step(step(computation(pos_weight) - 1) * t) + 1)
        log_sigmoid = step(log_sigmoid * log_weight)
    loss = step(step(step(1 - t) * wide) - log_sigmoid)
    if weight is not None:
        loss = loss * computation(weight)
    return _reduced(loss.to(target.dtype), reduction)


def nll_loss_backward(
    grad: Tensor,
    x: Tensor,
    target: Tensor,
    weight: Tensor | None,
    reduction: int,
    ignore_index: int,
    total_weight: Tensor,
) -> Tensor:
    """-grad * weight[class] at each row's target class, 0 elsewhere.

    A comparison with the class number instead of a scatter into zeros: elementwise, so that it fuses with the
    gradient of log_softmax that follows. `x` is (classes,), (rows, classes) or (rows, classes, d1, d2).
    """
    channel = 0 if x.ndim < 2 else 1
    if reduction == _REDUCE_MEAN:
        grad = grad / total_weight
    elif reduction == _REDUCE_NONE and x.ndim > 0:
        grad = grad.unsqueeze(channel)
    shape = [1] * x.ndim
    shape[channel] = -1
    classes = torch.arange(x.shape[channel], device=x.device).view(shape)
    where = target.unsqueeze(channel)
    hit = (classes == where) & (where != ignore_index)
    value = -grad if weight is None else -grad * weight.view(shape)
    return torch.where(hit, value, 0.0).to(x.dtype)


TABLE: Table = {
    aten.soft_margin_loss.default: soft_margin_loss,
    aten.soft_margin_loss_backward.default: soft_margin_loss_backward,
    aten.smooth_l1_loss_backward.default: smooth_l1_loss_backward,
    aten.binary_cross_entropy_with_logits.default: binary_cross_entropy_with_logits,
    aten.nll_loss_backward.default: nll_loss_backward,
    aten.nll_loss2d_backward.default: nll_loss_backward,
}
