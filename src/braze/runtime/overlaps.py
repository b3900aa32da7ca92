"""Which tensors of a call share memory, where one of them is written to.

Compiled code reads and writes in an order of its own, which is right as long as what is written is memory
that nothing else names. Whether that holds is looked at in every call of a graph that writes to inputs:
by the addresses alone where these lie apart, which they nearly always do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch

from braze.runtime.spec import byte_span, overlaps_itself

__all__ = ["Apart", "apart", "overlapping_pair", "overlaps_itself", "share_memory"]

Apart: TypeAlias = Callable[[Sequence[Any]], bool]


def apart(lengths: Sequence[tuple[int, int | None]], written: int) -> Apart:
    """A test of the arguments of a call: whether none of the tensors that are written to shares memory with
    another one.

    ``lengths``: the position of each tensor among the arguments, those that are written to first, ``written``
    of them, and how many bytes lie between its first and the end of its last element, None where that
    differs from call to call. Each has elements, where that is known."""
    positions = [i for i, _ in lengths]

    def look(arguments: Sequence[Any]) -> bool:
        return overlapping_pair([arguments[i] for i in positions], written) is None

    fixed = [n for _, n in lengths if n is not None]
    if len(fixed) < len(lengths):
        return look
    if len(lengths) == 2:
        (i, length_i), (j, length_j) = positions[0:1] + fixed[0:1], positions[1:2] + fixed[1:2]

        def two(arguments: Sequence[Any]) -> bool:
            p, q = arguments[i].data_ptr(), arguments[j].data_ptr()
            return p + length_i <= q or q + length_j <= p or look(arguments)

        return two
    known: list[int] = []

    def many(arguments: Sequence[Any]) -> bool:
        nonlocal known
        # what was found of the last call's addresses still holds
        addresses = [arguments[i].data_ptr() for i in positions]
        if addresses == known:
            return True
        if not look(arguments):
            return False
        known = addresses
        return True

    return many


def overlapping_pair(tensors: Sequence[torch.Tensor], written: int) -> tuple[int, int] | None:
    """Positions of two tensors that share memory, of which one is among the first ``written``; None where
    there are none. Sorts by address: linear but for that, where ranges of addresses lie apart."""
    spans = [(*_range(t), i) for i, t in enumerate(tensors) if t.numel()]
    spans.sort()
    open_: list[tuple[int, int]] = []  # where spans that reach here end, and whose they are
    for begin, end, i in spans:
        open_ = [one for one in open_ if one[0] > begin]
        for _, j in open_:
            if (i < written or j < written) and share_memory(tensors[i], tensors[j]):
                return min(i, j), max(i, j)
        open_.append((end, i))
    return None


def _range(tensor: torch.Tensor) -> tuple[int, int]:
    """The first byte of a tensor that has elements, and the one after its last."""
    begin = tensor.data_ptr()
    return begin, begin + (tensor.nbytes if tensor.is_contiguous() else byte_span(tensor))


def share_memory(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether two strided tensors share a byte. Costs next to nothing where they lie apart; columns and steps
    of one matrix are told apart by their strides, and what these leave open by where each piece lies."""
    (begin_a, end_a), (begin_b, end_b) = _range(a), _range(b)
    if not a.numel() or not b.numel() or end_a <= begin_b or end_b <= begin_a:
        return False
    width_a, width_b = a.element_size(), b.element_size()
    steps = {s * width_a for n, s in zip(a.shape, a.stride(), strict=True) if n > 1}
    steps |= {s * width_b for n, s in zip(b.shape, b.stride(), strict=True) if n > 1}
    offset = begin_b - begin_a
    # every element lies at a multiple of the common divisor, counted from its tensor's beginning
    if not _meet(offset, width_a, width_b, math.gcd(*steps)):
        return False
    for period in sorted(steps, reverse=True):
        inner_a, inner_b = _inner(a, period), _inner(b, period)
        if period and not _meet(offset, inner_a, inner_b, period):
            return False
    return _pieces_meet(a, b)


def _inner(tensor: torch.Tensor, period: int) -> int:
    """How many bytes a tensor spans once steps that are multiples of ``period`` are left out."""
    width = tensor.element_size()
    pairs = zip(tensor.shape, tensor.stride(), strict=True)
    return width + sum((n - 1) * s * width for n, s in pairs if n > 1 and period and s * width % period)


def _meet(offset: int, length_a: int, length_b: int, period: int) -> bool:
    """Whether intervals that repeat with a period, the second ``offset`` after the first, ever meet."""
    if not period or length_a + length_b > period:
        return True
    at = offset % period
    return at < length_a or at + length_b > period


def _pieces_meet(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether a piece of one meets a piece of the other, looking at each."""
    begins_a, length_a = _pieces(a)
    begins_b, length_b = _pieces(b)
    # the first piece of `a` that ends after a piece of `b` begins, if it begins before that one ends
    first = torch.searchsorted(begins_a, begins_b - length_a, right=True)
    there = first < len(begins_a)
    return bool((begins_a[first[there]] < begins_b[there] + length_b).any())


def _pieces(tensor: torch.Tensor) -> tuple[torch.Tensor, int]:
    """Where each piece without gaps of a tensor begins, in order, and how many bytes it has."""
    width = tensor.element_size()
    steps = sorted((s * width, n) for n, s in zip(tensor.shape, tensor.stride(), strict=True) if n > 1 and s)
    length = width
    begins = torch.tensor([tensor.data_ptr()])
    for step, size in steps:
        if step == length and len(begins) == 1:
            length *= size
        else:
            begins = (begins[:, None] + step * torch.arange(size)).flatten()
    return begins.sort().values, length
