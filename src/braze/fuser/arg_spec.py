"""What a kernel is specialised by: how the arguments lie in memory, and never how large they are.

The iteration space of an elementwise kernel is the common shape of its operands, less dimensions of size 1,
with neighbouring dimensions merged wherever every operand allows it. What is left of each operand is a
*pattern*, one letter for each dimension, outermost first::

    u   neighbours lie side by side (stride 1)
    s   some other stride, passed at run time
    b   repeated (stride 0)

So tensors of any rank that are contiguous make one kernel, ``cpu [n0] f32(u) -> f32(u)``; a row added
to a matrix another, ``cpu [n0, n1] f32(su), f32(bu) -> f32(su)``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from braze.fuser.strides import Geometry, Ints, expanded
from braze.ops.dtypes import short_name

__all__ = ["ArgSpec", "Iteration", "Operand", "iteration", "pattern"]

Number = Literal["float", "int"]


@dataclass(frozen=True)
class Operand:
    """A tensor that a kernel reads or writes: its element type and its pattern."""

    dtype: torch.dtype
    pattern: str

    def __str__(self) -> str:
        return f"{short_name(self.dtype)}({self.pattern})"


@dataclass(frozen=True)
class ArgSpec:
    """One kind of arguments. ``inputs`` are tensors and numbers in the order of the graph's inputs; numbers
    are passed at run time. ``index_bits``: whether positions are computed in 32 or 64 bits."""

    device: str
    rank: int
    inputs: tuple[Operand | Number, ...]
    outputs: tuple[Operand, ...]
    index_bits: int = 64

    def __str__(self) -> str:
        space = ", ".join(f"n{d}" for d in range(self.rank))
        inputs, outputs = ", ".join(map(str, self.inputs)), ", ".join(map(str, self.outputs))
        bits = "" if self.index_bits == 64 else f" in {self.index_bits} bits"
        return f"{self.device} [{space}] {inputs} -> {outputs}{bits}"


@dataclass(frozen=True)
class Iteration:
    """The loops of one call: ``sizes``, outermost first, and the strides of each operand along them."""

    sizes: Ints
    strides: tuple[Ints, ...]

    @property
    def work(self) -> int:
        """How many points there are."""
        total = 1
        for n in self.sizes:
            total *= n
        return total


def pattern(strides: Ints, rank: int) -> str:
    """The pattern of an operand with these strides along the loops, which is a tensor of ``rank`` dimensions.
    One without dimensions has an empty pattern: it counts less in type promotion. One of a single element
    and some dimensions is ``b`` even where there is no loop."""
    if not rank:
        return ""
    return "".join(["u" if step == 1 else "s" if step else "b" for step in strides]) or "b"


def iteration(shape: Ints, operands: Sequence[Geometry], leader: Ints) -> Iteration:
    """The loops over ``shape``, to which each operand is broadcast, in the order in which ``leader`` (strides
    along ``shape``) lies in memory."""
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
    return Iteration(tuple(sizes), tuple([tuple(m) for m in merged]))
