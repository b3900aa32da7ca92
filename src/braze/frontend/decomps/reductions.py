"""Reductions with several results, or over everything, in terms of those with one, over dimensions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from braze.frontend.decomps.common import Table

__all__ = ["TABLE"]

aten = torch.ops.aten


def max_dim(x: Tensor, dim: int, keepdim: bool = False) -> Any:
    """Greatest values along a dimension and their first positions; NaN counts as greatest."""
    if x.dtype is torch.bool:
        return NotImplemented
    return torch.amax(x, dim, keepdim=keepdim), torch.argmax(x, dim, keepdim=keepdim)


def min_dim(x: Tensor, dim: int, keepdim: bool = False) -> Any:
    """Least values along a dimension and their first positions; NaN counts as least."""
    if x.dtype is torch.bool:
        return NotImplemented
    return torch.amin(x, dim, keepdim=keepdim), torch.argmin(x, dim, keepdim=keepdim)


def max_all(x: Tensor) -> Tensor:
    """The greatest element."""
    return torch.amax(x, list(range(x.ndim)))


def min_all(x: Tensor) -> Tensor:
    """The least element."""
    return torch.amin(x, list(range(x.ndim)))


def mean_all(x: Tensor, *, dtype: torch.dtype | None = None) -> Any:
    """The mean of all elements."""
    return aten.mean.dim(x, list(range(x.ndim)), dtype=dtype)


TABLE: Table = {
    aten.max.dim: max_dim,
    aten.min.dim: min_dim,
    aten.max.default: max_all,
    aten.min.default: min_all,
    aten.mean.default: mean_all,
}
