"""Loops: tensors that are described by a body for each element and not yet stored anywhere.

The loop variables are canonical (``i0, i1, ...`` for the dimensions, ``r0, ...`` for reduced ones,
dimensions of size 1 having none), so that two loops over the same sizes share their body's nodes. Values are
of the compute type of ``dtype``: float32 for half types, the element type itself otherwise.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from braze._torch.devices import HOST, is_host
from braze.ops.dag import Dag, Node, topological
from braze.ops.dtypes import PARTS, short_name
from braze.ops.kernel import Stage, Store
from braze.ops.printer import print_values
from braze.runtime.expr import ONE, ZERO, Expr, ExprLike, Symbol, as_expr

Sizes = tuple[Expr, ...]


def loop_indices(size: Sequence[Expr], prefix: str = "i") -> tuple[Expr, ...]:
    """The index of each dimension: a loop variable, or 0 where the size is 1."""
    return _loop_indices(tuple(size), prefix)


@functools.lru_cache(maxsize=4096)  # most tensors of a graph share their sizes with others
def _loop_indices(size: Sizes, prefix: str) -> tuple[Expr, ...]:
    return tuple(ZERO if s == ONE else Symbol(f"{prefix}{d}", 0, s - 1).expr for d, s in enumerate(size))


def loop_vars(indices: Sequence[Expr]) -> tuple[Symbol, ...]:
    """The variables among ``indices``, in order."""
    return tuple(s for s in (i.symbol for i in indices) if s is not None)


@dataclass(frozen=True, eq=False)
class Loops:
    """A tensor of ``size`` on ``device`` whose element at ``indices`` is ``value``."""

    dtype: torch.dtype
    size: Sizes
    value: Node
    device: str = field(default=HOST, kw_only=True)

    @property
    def indices(self) -> tuple[Expr, ...]:
        return loop_indices(self.size)

    @property
    def vars(self) -> tuple[Symbol, ...]:
        return loop_vars(self.indices)

    @property
    def rvars(self) -> tuple[Symbol, ...]:
        return ()

    def stage(self, dag: Dag, buffer: str, index: Callable[[Sequence[Expr]], Expr]) -> Stage:
        """The loops as a stage that stores every element to ``buffer`` at ``index(indices)``; a complex one
        as two elements of its memory."""
        value = dag.to_dtype(self.value, self.dtype)
        if self.dtype in PARTS:
            at = index(self.indices) * 2
            real, imag = dag.parts(value)
            stores = (Store(buffer, at, real), Store(buffer, at + 1, imag, continues=True))
            return Stage(self.vars, self.rvars, stores)
        return Stage(self.vars, self.rvars, (Store(buffer, index(self.indices), value),))

    @property
    def kind(self) -> str:
        return type(self).__name__

    def __str__(self) -> str:
        size = ", ".join(map(str, self.size))
        on = "" if is_host(self.device) else f" on {self.device}"
        return f"{self.kind} {short_name(self.dtype)}[{size}]{on}\n{print_values([self.value])}"


@dataclass(frozen=True, eq=False)
class Pointwise(Loops):
    """Every element on its own. Views of it are other bodies: ``at`` substitutes indices."""

    __str__ = Loops.__str__

    def stage(self, dag: Dag, buffer: str, index: Callable[[Sequence[Expr]], Expr]) -> Stage:
        """As of all loops. Where the value depends on whether a variable is even, as that of pairs in a row
        does, its even and its odd points are two stores: neither computes what the other needs."""
        v = self._alternating()
        if v is None:
            return super().stage(dag, buffer, index)
        half = Symbol(f"{v.name}h", 0, v.size // 2 - 1)
        stores: list[Store] = []
        for k in range(2):
            now: dict[Symbol, ExprLike] = {v: half.expr * 2 + k}
            (value,) = dag.substitute([dag.to_dtype(self.value, self.dtype)], now)
            place = index([i.substitute(now) for i in self.indices])
            stores.append(Store(buffer, place, value, continues=k > 0))
        return Stage(tuple(half if u == v else u for u in self.vars), (), tuple(stores))

    def _alternating(self) -> Symbol | None:
        """The variable of which the value asks whether it is even, if there is one."""
        if self.dtype in PARTS:
            return None
        asked = [n.index for n in topological([self.value]) if n.op == "index_expr"]
        even = (v for v in self.vars if v.size // 2 * 2 == v.size)
        return next((v for v in even if v.expr % 2 in asked), None)

    def at(self, dag: Dag, indices: Sequence[ExprLike]) -> Node:
        """The value at ``indices``."""
        mapping = {
            own.symbol: as_expr(new)
            for own, new in zip(self.indices, indices, strict=True)
            if own.symbol is not None
        }
        return dag.substitute([self.value], mapping)[0]


@dataclass(frozen=True, eq=False)
class Reduction(Loops):
    """Every element reduced over ``ranges``; ``value`` is a ``reduction`` node (or made of some, all over
    the same variables)."""

    ranges: Sizes
    reduction_kind: str

    __str__ = Loops.__str__

    @property
    def rvars(self) -> tuple[Symbol, ...]:
        return loop_vars(loop_indices(self.ranges, "r"))

    @property
    def kind(self) -> str:
        return f"{type(self).__name__}({self.reduction_kind})"


@dataclass(frozen=True, eq=False)
class WelfordReduction(Reduction):
    """One component (mean, sum of squared deviations, count) of a variance in a single pass.

    Source: B. P. Welford, Technometrics 4 (1962); merged by T. F. Chan et al., COMPSTAT 1982."""

    __str__ = Loops.__str__


@dataclass(frozen=True, eq=False)
class Scan(Loops):
    """Every element from all those before it along one dimension; ``value`` is a ``scan`` node."""

    dim: int

    __str__ = Loops.__str__


@dataclass(frozen=True, eq=False)
class Scatter(Loops):
    """Every element written to a computed place of an existing buffer: flat index ``target`` of its storage.

    ``size`` is that of the loops, not of the buffer. Elements where ``mask`` is false are not written.
    """

    target: Expr
    mode: str = "set"
    mask: Node | None = None

    __str__ = Loops.__str__

    def stage(self, dag: Dag, buffer: str, index: Callable[[Sequence[Expr]], Expr]) -> Stage:
        values, places = [dag.to_dtype(self.value, self.dtype)], [self.target]
        if self.dtype in PARTS:
            values, places = [*dag.parts(values[0])], [self.target * 2, self.target * 2 + 1]
        stores = [
            Store(buffer, place, value, self.mode, self.mask, continues=part > 0)  # type: ignore[arg-type]
            for part, (place, value) in enumerate(zip(places, values, strict=True))
        ]
        return Stage(self.vars, (), tuple(stores))
