"""Loss functions, where a gradient can be written without a scatter."""

from __future__ import annotations

import torch
from torch import Tensor

from braze.frontend.decomps.common import Table

__all__ = ["TABLE"]

aten = torch.ops.aten

_REDUCE_NONE, _REDUCE_MEAN = 0, 1


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
    aten.nll_loss_backward.default: nll_loss_backward,
    aten.nll_loss2d_backward.default: nll_loss_backward,
}
