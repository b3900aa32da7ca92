"""Reductions with several results, or over everything, in terms of those with one, over dimensions.

A file of its own: each family of operators has one.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from braze.frontend.decomps.common import Table

__all__ = ["TABLE"]

aten = torch.ops.aten


def max_dim(x: Tensor, dim: int, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    """Greatest values along a dimension and their first positions; NaN counts as greatest."""
    return torch.amax(x, dim, keepdim=keepdim), torch.argmax(_counted(x), dim, keepdim=keepdim)


def min_dim(x: Tensor, dim: int, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    """Least values along a dimension and their first positions; NaN counts as least."""
    return torch.amin(x, dim, keepdim=keepdim), torch.argmin(_counted(x), dim, keepdim=keepdim)


def _counted(x: Tensor) -> Tensor:
    """x, of a type in which positions are looked for: eager has no such kernel for booleans alone."""
    return x.to(torch.uint8) if x.dtype is torch.bool else x


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
