"""Sampling pictures at given places.

A file of its own: each family of operators has one.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from braze.frontend.decomps.common import Decomposition

__all__ = ["grid_sampler_2d"]

_BILINEAR, _BICUBIC = 0, 2
_ZEROS, _BORDER = 0, 1


def grid_sampler_2d(plain: Decomposition) -> Decomposition:
    """`plain`, a decomposition for places that are finite, with eager's results for the others: NaN between
    zeros, else the first row or column, but for infinities at a border, which is where they lie."""

    def sampled(x: Tensor, grid: Tensor, mode: int, padding: int, align_corners: bool) -> Tensor:
        if mode == _BICUBIC or (padding == _ZEROS and mode != _BILINEAR):
            out: Tensor = plain(x, grid, mode, padding, align_corners)
            return out
        if padding != _ZEROS:
            lost = torch.isnan(grid) if padding == _BORDER else (grid - grid) != 0
            out = plain(x, torch.where(lost, -1.0, grid), mode, padding, align_corners)
            return out
        nothing = grid - grid  # NaN for what is not finite
        finite = (nothing[..., 0] + nothing[..., 1] == 0).unsqueeze(1)
        return torch.where(finite, plain(x, grid, mode, padding, align_corners), math.nan)

    return sampled
