"""Whether two tensors share memory."""

from __future__ import annotations

from typing import TypeAlias

import torch

__all__ = ["Span", "share_memory", "span"]

Span: TypeAlias = tuple[int, int]
"""The address of a tensor's first byte, and that after its last one; equal for a tensor without elements."""


def span(tensor: torch.Tensor) -> Span:
    """Where a strided tensor lies."""
    begin = tensor.data_ptr()
    return begin, begin + (_reach(tensor) if tensor.numel() else 0)


def share_memory(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether an element of one lies where an element of the other does; both are strided tensors. Costs next
    to nothing unless they lie among each other, as the columns of a matrix do."""
    if not a.numel() or not b.numel():
        return False
    (begin, end), (first, last) = span(a), span(b)
    if end <= first or last <= begin:
        return False
    if a.is_contiguous() or b.is_contiguous():
        return not _misses(a, b)
    return bool(torch.isin(_bytes(a), _bytes(b)).any())


def _misses(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether a tensor without gaps lies in a gap of the other."""
    whole, other = (a, b) if a.is_contiguous() else (b, a)
    begins = _places(other)
    begin, end = whole.data_ptr(), whole.data_ptr() + _reach(whole)
    return not bool(((begins < end) & (begins + other.itemsize > begin)).any())


def _reach(tensor: torch.Tensor) -> int:
    """Bytes from the first element's begin to the last one's end."""
    last = sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride(), strict=True))
    return (last + 1) * tensor.itemsize


def _places(tensor: torch.Tensor) -> torch.Tensor:
    """The address of every element."""
    found = torch.tensor([tensor.data_ptr()])
    for n, s in zip(tensor.shape, tensor.stride(), strict=True):
        found = (found[:, None] + torch.arange(n) * (s * tensor.itemsize)).flatten()
    return found


def _bytes(tensor: torch.Tensor) -> torch.Tensor:
    return (_places(tensor)[:, None] + torch.arange(tensor.itemsize)).flatten()
