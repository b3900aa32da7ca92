"""Operators that choose elements, in terms of slices, `index` and `index_put`."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from braze._torch.shapes import true_or_guard
from braze.frontend.decomps.common import Table, computation

__all__ = ["TABLE"]

aten = torch.ops.aten

_SUM, _MEAN = 0, 1


def split_with_sizes(x: Tensor, sizes: list[int], dim: int = 0) -> list[Tensor]:
    """Each part as a slice, so that no node has several results."""
    parts, start = [], 0
    for size in sizes:
        parts.append(aten.slice.Tensor(x, dim, start, start + size))
        start += size
    return parts


def take(x: Tensor, index: Tensor) -> Any:
    """The elements of `x` in row-major order, at positions of any shape."""
    return aten.index.Tensor(x.reshape(-1), [index])


def index_fill(x: Tensor, dim: int, index: Tensor, value: Any) -> Any:
    """`x` with `value` written to its slices `index`, of which a negative one counts from the end."""
    if isinstance(value, Tensor):
        value = value.to(x.dtype)
    else:
        value = torch.full((), value, dtype=x.dtype, device=x.device)
    if x.ndim == 0:
        return aten.index_put.default(x.reshape(1), [index], value).reshape(())
    return aten.index_put.default(x, [*[None] * (dim % x.ndim), index], value)


def put(x: Tensor, index: Tensor, source: Tensor, accumulate: bool = False) -> Any:
    """`x` with the elements of `source` at places `index` of its elements in row-major order."""
    flat = aten.index_put.default(x.reshape(-1), [index.reshape(-1)], source.reshape(-1), accumulate)
    return flat.reshape(x.shape)


def view_copy(x: Tensor, size: list[int]) -> Tensor:
    """`x` under another shape, in memory of its own."""
    return x.clone(memory_format=torch.contiguous_format).view(size)


def _bag_of_position(indices: Tensor, offsets: Tensor) -> Tensor:
    """For each position of `indices` the number of its bag: bags that start there or before, minus one."""
    starts = torch.zeros([indices.shape[0] + 1], dtype=indices.dtype, device=indices.device)
    ones = torch.ones_like(offsets, dtype=indices.dtype)
    # with two dimensions, so that it raises the error of `embedding_bag`
    starts = aten.index_add.default(starts.unsqueeze(1), 0, offsets, ones.unsqueeze(1)).squeeze(1)
    return torch.cumsum(starts, 0)[: indices.shape[0]] - 1


def embedding_bag(
    weight: Tensor,
    indices: Tensor,
    offsets: Tensor,
    scale_grad_by_freq: bool = False,
    mode: int = 0,
    sparse: bool = False,
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int = -1,
) -> Any:
    """Sums or means of rows of `weight`: an indexed load and an `index_add`. Not for mode "max", and not
    where gradients are scaled by frequency: eager's own scale is not the documented one.

    Raises RuntimeError in the call, as eager does, for a row that the table lacks, and for offsets that begin
    after 0 (bag -1) or lie beyond the indices: `gather` and `index_add` count nothing from the end.

    Returns the bags, the bag of each position, the number of rows in each bag, and an empty tensor.
    """
    if mode not in (_SUM, _MEAN) or sparse or scale_grad_by_freq:
        return NotImplemented
    bags = offsets.shape[0] - (1 if include_last_offset else 0)
    bag = _bag_of_position(indices, offsets)
    rows = computation(aten.gather.default(weight, 0, indices.unsqueeze(1).expand(-1, weight.shape[1])))
    if per_sample_weights is not None:
        rows = rows * per_sample_weights.unsqueeze(1)
    counted = torch.ones_like(indices)
    if padding_idx >= 0:
        counted = (indices != padding_idx).to(indices.dtype)
        rows = torch.where((indices != padding_idx).unsqueeze(1), rows, 0.0)
    total = torch.zeros([bags, weight.shape[1]], dtype=rows.dtype, device=weight.device)
    total = aten.index_add.default(total, 0, bag, rows)
    size = torch.zeros([bags], dtype=indices.dtype, device=indices.device)
    size = aten.index_add.default(size, 0, bag, counted)
    if mode == _MEAN:
        total = total / torch.clamp(size, min=1).unsqueeze(1)
    return total.to(weight.dtype), bag, size, torch.zeros([0], dtype=indices.dtype, device=indices.device)


def embedding_bag_backward(
    grad: Tensor,
    indices: Tensor,
    offsets: Tensor,
    offset2bag: Tensor,
    bag_size: Tensor,
    maximum_indices: Tensor,
    num_weights: int,
    scale_grad_by_freq: bool,
    mode: int,
    sparse: bool,
    per_sample_weights: Tensor | None,
    padding_idx: int = -1,
) -> Any:
    """Each row's share of its bag's gradient, accumulated into the table."""
    if mode not in (_SUM, _MEAN) or sparse or scale_grad_by_freq:
        return NotImplemented
    grad = computation(grad)
    if mode == _MEAN:
        grad = grad / torch.clamp(bag_size, min=1).unsqueeze(1)
    rows = aten.index.Tensor(grad, [offset2bag])
    if per_sample_weights is not None:
        rows = rows * per_sample_weights.unsqueeze(1)
    if padding_idx >= 0:
        rows = torch.where((indices != padding_idx).unsqueeze(1), rows, 0.0)
    table = torch.zeros([num_weights, grad.shape[1]], dtype=rows.dtype, device=grad.device)
    return aten.index_put.default(table, [indices], rows, True)


_COMPARED = 16
"""So many elements are compared with each one that is looked for; more are sorted."""


def isin(
    elements: Tensor, test_elements: Tensor, *, assume_unique: bool = False, invert: bool = False
) -> Tensor:
    """Which of `elements` are among the others. NaN equals nothing, and is sorted to the end, where it counts
    as infinite: so a search finds the first of what may be equal."""
    dtype = torch.result_type(elements, test_elements)
    sought, tests = elements.to(dtype), test_elements.to(dtype).reshape(-1)
    count = tests.shape[0]
    if true_or_guard(count <= _COMPARED):
        found = (sought.unsqueeze(-1) == tests).any(-1)
    else:
        tests = torch.sort(tests).values
        ordered = torch.where(tests != tests, math.inf, tests) if dtype.is_floating_point else tests
        place = torch.searchsorted(ordered, sought)
        found = tests[torch.clamp(place, max=count - 1)] == sought
    return torch.logical_not(found) if invert else found


TABLE: Table = {
    aten.split_with_sizes.default: split_with_sizes,
    aten.isin.Tensor_Tensor: isin,
    aten.take.default: take,
    aten.put.default: put,
    aten.index_fill.int_Scalar: index_fill,
    aten.index_fill.int_Tensor: index_fill,
    aten.view_copy.default: view_copy,
    aten._embedding_bag.default: embedding_bag,
    aten._embedding_bag_forward_only.default: embedding_bag,
    aten._embedding_bag_backward.default: embedding_bag_backward,
}
