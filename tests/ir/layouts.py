"""Layouts of plain numbers, and dense strides."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from braze.runtime.spec import Layout, tensor_spec

__all__ = ["layout_of", "strides_in_order"]


def layout_of(dtype: torch.dtype, size: Sequence[int], stride: Sequence[int]) -> Layout:
    return tensor_spec(dtype, size, stride)


def strides_in_order(size: Sequence[int], order: Sequence[int]) -> list[int]:
    """Dense strides with ``order`` listing the dimensions from innermost to outermost."""
    strides = [1] * len(size)
    running = 1
    for dim in order:
        strides[dim] = running
        running *= size[dim]
    return strides
