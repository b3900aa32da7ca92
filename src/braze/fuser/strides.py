"""Sizes and strides: those that eager gives the result of an elementwise operation, and the loops over them.

The rule for results is that of ATen's ``TensorIterator`` (aten/src/ATen/native/TensorIterator.cpp: how
dimensions are reordered, and how outputs are allocated): operands that all lie in memory in one way are
followed; else the dimensions are ordered by the strides of the operands, the first operand that tells two
dimensions apart deciding, and the result is dense in that order.

The loops of a kernel run over the common shape of its operands, less dimensions of size 1, with neighbouring
dimensions merged wherever every operand allows it. What is left of each operand is a *pattern*, one letter
for each loop, outermost first::

    u   neighbours lie side by side (stride 1)
    s   some other stride, passed at run time
    b   repeated (stride 0)

So tensors of any rank that are contiguous make one kernel, ``cpu [n0] f32(u) -> f32(u)``; a row added
to a matrix another, ``cpu [n0, n1] f32(su), f32(bu) -> f32(su)``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

__all__ = [
    "Geometry",
    "Ints",
    "broadcast_shapes",
    "contiguous",
    "elementwise_strides",
    "expanded",
    "is_dense",
    "merged_loops",
    "pattern",
]

Ints: TypeAlias = tuple[int, ...]
Geometry: TypeAlias = tuple[Ints, Ints]
"""Sizes and strides, in elements."""


def contiguous(sizes: Sequence[int]) -> Ints:
    """Row-major strides; a dimension of size 0 counts as 1."""
    strides = [1] * len(sizes)
    for d in range(len(sizes) - 2, -1, -1):
        strides[d] = strides[d + 1] * max(sizes[d + 1], 1)
    return tuple(strides)


def broadcast_shapes(shapes: Sequence[Ints]) -> Ints:
    """The common shape. Raises ``ValueError`` where there is none."""
    result: list[int] = []
    for shape in shapes:
        if len(shape) > len(result):
            result = [1] * (len(shape) - len(result)) + result
        lead = len(result) - len(shape)
        for d, n in enumerate(shape):
            if n == 1 or n == result[lead + d]:
                continue
            if result[lead + d] != 1:
                raise ValueError(f"shapes {list(shape)} and {result} have no common shape")
            result[lead + d] = n
    return tuple(result)


def expanded(geometry: Geometry, sizes: Ints) -> Ints:
    """The strides of a tensor that is broadcast to ``sizes``: 0 along what it repeats."""
    own, strides = geometry
    if own == sizes:
        return strides
    lead = len(sizes) - len(own)
    pairs = zip(own, strides, sizes[lead:], strict=True)
    return (0,) * lead + tuple([0 if n == 1 != full else step for n, step, full in pairs])


def is_dense(sizes: Ints, strides: Ints) -> bool:
    """Whether the elements lie without gaps and overlaps, in some order of the dimensions."""
    running = 1
    for step, n in sorted([(step, n) for n, step in zip(sizes, strides, strict=True) if n != 1]):
        if step != running:
            return False
        running *= n
    return True


def elementwise_strides(sizes: Ints, operands: Sequence[Geometry]) -> Ints:
    """The strides of a result of ``sizes``, to which the operands are broadcast."""
    row_major = contiguous(sizes)
    same = [strides for own, strides in operands if own == sizes]
    if len(same) == len(operands) and same:
        if all(_matters(sizes, strides) == _matters(sizes, row_major) for strides in same):
            return row_major
        if all(strides == same[0] for strides in same) and is_dense(sizes, same[0]):
            return same[0]
    order = _ordered(sizes, [expanded(operand, sizes) for operand in operands])
    result = [1] * len(sizes)
    running = 1
    for d in order:
        result[d] = running
        running *= max(sizes[d], 1)
    return tuple(result)


def _matters(sizes: Ints, strides: Ints) -> list[int]:
    return [step for n, step in zip(sizes, strides, strict=True) if n != 1]


def _ordered(sizes: Ints, operands: Sequence[Ints]) -> list[int]:
    """The dimensions, innermost first: an insertion sort, since the comparison is no total order."""
    order = list(range(len(sizes) - 1, -1, -1))
    for i in range(1, len(order)):
        at = i
        for j in range(i - 1, -1, -1):
            wrong = _compare(sizes, operands, order[j], order[at])
            if wrong > 0:
                order[j], order[at] = order[at], order[j]
                at = j
            elif wrong < 0:
                break
    return order


def _compare(sizes: Ints, operands: Sequence[Ints], inner: int, outer: int) -> int:
    """1 where the two dimensions have to change places, -1 where they are in order, 0 where nothing says."""
    for strides in operands:
        a, b = strides[inner], strides[outer]
        if a == 0 or b == 0:
            continue
        if a != b:
            return 1 if a > b else -1
        if sizes[inner] > sizes[outer]:
            return 1
    return 0


def merged_loops(shape: Ints, operands: Sequence[Geometry], leader: Ints) -> tuple[Ints, tuple[Ints, ...]]:
    """The loops over ``shape``, to which each operand is broadcast, in the order in which ``leader`` (strides
    along ``shape``) lies in memory: their lengths, outermost first, and each operand's strides along them."""
    steps = [expanded(operand, shape) for operand in operands]
    order = range(len(shape))
    if any(leader[d] < leader[d + 1] for d in range(len(shape) - 1)):
        order = sorted(order, key=lambda d: -leader[d])  # type: ignore[assignment]
    sizes: list[int] = []
    merged: list[list[int]] = [[] for _ in steps]
    for d in order:
        n = shape[d]
        if n == 1:
            continue
        if sizes and all(m[-1] == s[d] * n for m, s in zip(merged, steps)):
            sizes[-1] *= n
            for m, s in zip(merged, steps):
                m[-1] = s[d]
        else:
            sizes.append(n)
            for m, s in zip(merged, steps):
                m.append(s[d])
    return tuple(sizes), tuple([tuple(m) for m in merged])


def pattern(strides: Ints, rank: int) -> str:
    """The pattern of an operand with these strides along the loops, which is a tensor of ``rank`` dimensions.
    One without dimensions has an empty pattern: it counts less in type promotion. One of a single element
    and some dimensions is ``b`` even where there is no loop."""
    if not rank:
        return ""
    return "".join(["u" if step == 1 else "s" if step else "b" for step in strides]) or "b"
