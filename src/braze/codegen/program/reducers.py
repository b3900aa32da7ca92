"""The kinds of reduction as small algebras: the state of no values, and two states merged into one.

A state is a list of values of one number of lanes, scalars included; the same code runs on lanes, merges
lanes with each other, and merges the partial results of threads.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from braze.codegen.program.builder import Builder
from braze.codegen.program.grammar import Var
from braze.errors import CodegenError
from braze.ops.dtypes import integer_limits, is_float

__all__ = ["Last", "LogSum", "Moments", "Position", "Reducer", "State", "horizontal", "merged", "reducer_of"]

State = list[Var]


@dataclass(frozen=True)
class Reducer:
    """A reduction by one operation of the vocabulary, which starts from ``start``."""

    dtype: torch.dtype
    operation: str
    start: float

    @property
    def dtypes(self) -> tuple[torch.dtype, ...]:
        """The types of a state's values."""
        return (self.dtype,)

    def identity(self, b: Builder, lanes: int) -> State:
        """The state of no values."""
        return [b.constant(self.start, self.dtype, lanes)]

    def update(self, b: Builder, state: State, value: State) -> State:
        """The state with one more value in each lane."""
        return self.merge(b, state, value)

    def merge(self, b: Builder, left: State, right: State) -> State:
        """Both states' values together, those of the left one first."""
        return [b.op(self.operation, left[0], right[0])]


@dataclass(frozen=True)
class Position(Reducer):
    """The position of the least or greatest value, a NaN being both; states are (value, position).
    ``position``: the type of positions; ``ordered``: those of a lane come one after another."""

    position: torch.dtype = torch.int64
    ordered: bool = False

    @property
    def dtypes(self) -> tuple[torch.dtype, ...]:
        """The types of a state's values."""
        return (self.dtype, self.position)

    @property
    def nowhere(self) -> int:
        """The position in a state of no values: behind all others."""
        return int(torch.iinfo(self.position).max)

    def identity(self, b: Builder, lanes: int) -> State:
        """The state of no values."""
        return [
            b.constant(self.start, self.dtype, lanes),
            b.constant(self.nowhere, self.position, lanes),
        ]

    def update(self, b: Builder, state: State, value: State) -> State:
        """The state with one more value in each lane."""
        return self._later(b, state, value) if self.ordered else self.merge(b, state, value)

    def _later(self, b: Builder, left: State, right: State) -> State:
        """``right``, whose position is the greater one, where its value is better, or the first NaN."""
        if is_float(self.dtype):
            worse = b.op("ge" if self.operation == "lt" else "le", right[0], left[0])
            usual = b.op("logical_not", b.op("isnan", left[0]))
            take = b.op("logical_and", b.op("logical_not", worse), usual)
        else:
            take = b.op(self.operation, right[0], left[0])
        return [b.op("where", take, r, s) for r, s in zip(right, left, strict=True)]

    def merge(self, b: Builder, left: State, right: State) -> State:
        """The better value, NaN best of all; the lower position where neither is better."""
        earlier = b.op("lt", right[1], left[1])
        better = b.op(self.operation, right[0], left[0])
        same = b.op("eq", left[0], right[0])
        if is_float(self.dtype):
            left_nan, right_nan = b.op("isnan", left[0]), b.op("isnan", right[0])
            first = b.op("logical_and", right_nan, b.op("logical_not", left_nan))
            better = b.op("logical_or", better, first)
            same = b.op("logical_or", same, b.op("logical_and", left_nan, right_nan))
        take = b.op("logical_or", better, b.op("logical_and", same, earlier))
        return [b.op("where", take, r, s) for r, s in zip(right, left, strict=True)]


@dataclass(frozen=True)
class Last(Reducer):
    """The last position of the least or greatest value, a NaN being both; states are (value, position)."""

    @property
    def dtypes(self) -> tuple[torch.dtype, ...]:
        """The types of a state's values."""
        return (self.dtype, torch.int64)

    def identity(self, b: Builder, lanes: int) -> State:
        """The state of no values: whatever comes is as good."""
        return [b.constant(self.start, self.dtype, lanes), b.constant(0, torch.int64, lanes)]

    def merge(self, b: Builder, left: State, right: State) -> State:
        """The right value unless it is worse; a NaN is not, and after one only another one counts."""
        take = b.op(self.operation, right[0], left[0])
        if is_float(self.dtype):
            take = b.op("logical_or", take, b.op("isnan", right[0]))
        return [b.op("where", take, r, s) for r, s in zip(right, left, strict=True)]


class LogSum(Reducer):
    """log(exp(a) + exp(b)), of which none overflows before the result does."""

    def merge(self, b: Builder, left: State, right: State) -> State:
        """Both states' values together; two equal infinities are one."""
        low, high = b.op("minimum", left[0], right[0]), b.op("maximum", left[0], right[0])
        total = b.op("add", b.op("log1p", b.op("exp", b.op("sub", low, high))), high)
        infinite = b.op("logical_and", b.op("eq", low, high), b.op("isinf", low))
        return [b.op("where", infinite, high, total)]


class Moments(Reducer):
    """Mean, sum of squared deviations from it, and count. Chan, Golub, LeVeque: Algorithms for computing the
    sample variance (1983). A count of 0 on the left leaves the right state."""

    @property
    def dtypes(self) -> tuple[torch.dtype, ...]:
        """The types of a state's values."""
        return (self.dtype,) * 3

    def identity(self, b: Builder, lanes: int) -> State:
        """The state of no values."""
        return [b.constant(0.0, self.dtype, lanes)] * 3

    def merge(self, b: Builder, left: State, right: State) -> State:
        """Both states' values together."""
        count = b.op("add", left[2], right[2])
        none = b.op("eq", count, b.like(0.0, count))
        weight = b.op("truediv", right[2], b.op("where", none, b.like(1.0, count), count))
        delta = b.op("sub", right[0], left[0])
        mean = b.op("fma", delta, weight, left[0])
        squares = b.op("mul", delta, delta)
        m2 = b.op("fma", squares, b.op("mul", left[2], weight), b.op("add", left[1], right[1]))
        empty = b.op("eq", left[2], b.like(0.0, count))  # then inf - 0 must not make a NaN of the mean
        return [b.op("where", empty, right[0], mean), b.op("where", empty, right[1], m2), count]


def reducer_of(
    kind: str, dtype: torch.dtype, position: torch.dtype = torch.int64, ordered: bool = False
) -> Reducer:
    """The algebra of a kind of reduction of ``dtype``."""
    if kind in ("sum", "prod"):
        return Reducer(dtype, "add" if kind == "sum" else "mul", float(kind == "prod"))
    if kind in ("any", "all"):
        return Reducer(dtype, "logical_or" if kind == "any" else "logical_and", float(kind == "all"))
    if kind == "welford":
        return Moments(dtype, "add", 0.0)
    if kind == "logsumexp":
        return LogSum(dtype, "", -math.inf)
    least = kind in ("min", "argmin", "last_min")
    low, high = (-math.inf, math.inf) if is_float(dtype) else integer_limits(dtype)
    worst = high if least else low
    if kind in ("max", "min"):
        return Reducer(dtype, "minimum" if least else "maximum", worst)
    if kind in ("argmax", "argmin"):
        return Position(dtype, "lt" if least else "gt", worst, position, ordered)
    if kind in ("last_max", "last_min"):
        return Last(dtype, "le" if least else "ge", worst)
    raise CodegenError(f"no program for reduction {kind}", node=kind)


def horizontal(b: Builder, reducer: Reducer, state: State) -> State:
    """The lanes of a state merged into a scalar state: upper half onto lower half, again and again."""
    lanes = state[0].lanes
    while lanes > 1:
        lanes //= 2
        low = [b.slice(v, 0, lanes) for v in state]
        high = [b.slice(v, lanes, lanes) for v in state]
        state = reducer.merge(b, low, high)
    return state


def merged(b: Builder, reducer: Reducer, states: Sequence[State]) -> State:
    """Several states, in order, as one."""
    total = states[0]
    for state in states[1:]:
        total = reducer.merge(b, total, state)
    return total
