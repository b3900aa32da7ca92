"""The memory that a launch plan lends its kernels while they run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from braze.runtime.expr import ZERO, Expr
from braze.schedule.memory import aligned

__all__ = ["Area", "max_size", "sum_sizes"]


@dataclass(frozen=True)
class Area:
    """A workspace that the plan is to have, of so many bytes."""

    name: str
    device: str
    nbytes: Expr


def max_size(sizes: Sequence[Expr]) -> Expr:
    """The greatest of some sizes in bytes; their sum where they cannot be compared."""
    constants = [s.constant for s in sizes if s.constant is not None]
    total = Expr(()) + (max(constants) if constants else 0)
    for s in dict.fromkeys(s for s in sizes if s.constant is None):
        total = total + s
    return total


def sum_sizes(sizes: Sequence[Expr], alignment: int) -> Expr:
    """The bytes that areas of these sizes take one after another."""
    total = ZERO
    for s in sizes:
        total = total + aligned(s, alignment)
    return total
