"""How arguments that are no tensors are drawn: numbers, dimensions, sizes, and choices between operands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from braze.inspect.fuzz.operands import Operand, dimension, variable
from braze.inspect.fuzz.operators import CannotDraw
from braze.inspect.fuzz.program import Argument, Group, Name, Product, Size

if TYPE_CHECKING:
    from braze.inspect.fuzz.draft import Draft, Variable

__all__ = [
    "At",
    "ByGradients",
    "Dims",
    "Either",
    "Fixed",
    "Int",
    "OneOf",
    "Order",
    "Scalar",
    "Shape",
    "Splits",
]


@dataclass(frozen=True)
class Scalar:
    """A Python number: a literal, a size of a tensor, or an input. ``kinds``: ``i``, ``f``, ``b``."""

    kinds: str = "ifb"
    low: float = -4
    high: float = 4

    def draw(self, draft: Draft, earlier: Sequence[Argument]) -> Argument:
        rng = draft.rng
        kind = rng.choices(self.kinds, weights=[{"i": 4, "f": 5, "b": 1}[k] for k in self.kinds])[0]
        if kind == "i" and self.low <= 1 and self.high >= 4 and rng.random() < 0.3:
            found = draft.choose(lambda v: v.is_tensor and v.rank > 0)
            if found is not None:
                return Size(found.name, rng.randrange(found.rank))
        if rng.random() < 0.12:
            return Name(draft.new_number(tuple(self._number(draft, kind) for _ in range(draft.calls))).name)
        return self._number(draft, kind)

    def _number(self, draft: Draft, kind: str) -> bool | int | float:
        rng = draft.rng
        if kind == "b":
            return rng.random() < 0.5
        if kind == "i":
            return rng.randint(int(self.low), int(self.high))
        choice = rng.random()
        if choice < 0.6:
            return rng.randint(int(self.low * 4), int(self.high * 4)) / 4
        if choice < 0.95:
            return round(rng.uniform(self.low, self.high), 2)
        return rng.choice((0.1, 1e-3, 1 / 3)) if self.low <= 0 else self.high


@dataclass(frozen=True)
class OneOf:
    """A literal from a few, all drawn alike."""

    choices: tuple[bool | int | float | str | None, ...]

    def draw(self, draft: Draft, earlier: Sequence[Argument]) -> Argument:
        return draft.rng.choice(self.choices)


@dataclass(frozen=True)
class Fixed:
    """Always the same."""

    value: Any

    def draw(self, draft: Draft, earlier: Sequence[Argument]) -> Argument:
        argument: Argument = self.value
        return argument


@dataclass(frozen=True)
class Either:
    """One of several operands; the first one as often as all others."""

    operands: tuple[Operand, ...]

    def draw(self, draft: Draft, earlier: Sequence[Argument]) -> Argument:
        first, *others = self.operands
        chosen = first if not others or draft.rng.random() < 0.5 else draft.rng.choice(others)
        return chosen.draw(draft, earlier)


@dataclass(frozen=True)
class ByGradients:
    """One operand where gradients are taken, and another one elsewhere."""

    gradients: Operand
    elsewhere: Operand

    def draw(self, draft: Draft, earlier: Sequence[Argument]) -> Argument:
        chosen = self.gradients if draft.mode == "gradients" else self.elsewhere
        return chosen.draw(draft, earlier)


@dataclass(frozen=True)
class Int:
    """An integer literal."""

    low: int
    high: int

    def draw(self, draft: Draft, earlier: Sequence[Argument]) -> Argument:
        return draft.rng.randint(self.low, self.high)


# -- dimensions and sizes --------------------------------------------------------------------------------
@dataclass(frozen=True)
class Dims:
    """A dimension of an earlier argument, counted from either end; several, where ``most`` is more than one;
    ``extra``: one may be named that is not there yet; ``whole``: all, as None."""

    of: int = 0
    least: int = 1
    most: int = 1
    extra: int = 0
    whole: bool = False

    def draw(self, draft: Draft, earlier: Sequence[Argument]) -> Argument:
        rng = draft.rng
        rank = variable(draft, earlier, self.of).rank + self.extra
        if self.whole and rng.random() < 0.2:
            return None
        if rank < self.least or (rank == 0 and self.most > 1):
            raise CannotDraw("there are not that many dimensions")
        if rank == 0:
            return rng.choice((0, -1))
        if self.most == 1:
            return rng.randrange(-rank, rank)
        places = rng.sample(range(rank), min(rank, rng.randint(self.least, self.most)))
        return Group(tuple(place - rank if rng.random() < 0.4 else place for place in places))


@dataclass(frozen=True)
class Order:
    """All dimensions of an earlier argument in some order."""

    of: int = 0

    def draw(self, draft: Draft, earlier: Sequence[Argument]) -> Argument:
        places: list[Argument] = list(range(variable(draft, earlier, self.of).rank))
        draft.rng.shuffle(places)
        return Group(tuple(places))


@dataclass(frozen=True)
class At:
    """A place in a dimension of an earlier argument: an index, or with ``bound`` one that a slice may begin
    or end with. ``dim``: the place of the argument that says which dimension."""

    of: int = 0
    dim: int | None = None
    axis: int = 0
    bound: bool = False

    def draw(self, draft: Draft, earlier: Sequence[Argument]) -> Argument:
        other = variable(draft, earlier, self.of)
        along = self.axis if self.dim is None else dimension(earlier[self.dim], other.rank)
        if not -other.rank <= along < other.rank:
            raise CannotDraw("there is no such dimension")
        least = min(other.shape[along])
        if self.bound:
            if draft.rng.random() < 0.25:
                return None
            return draft.rng.randint(-least - 1, least + 1)
        if least == 0:
            raise CannotDraw("there is nothing to index")
        return draft.rng.randrange(-least, least)


@dataclass(frozen=True)
class Shape:
    """Sizes for as many elements as an earlier argument has: its own in another order, some joined, one left
    to be found out. ``into``: sizes that it can be expanded to instead."""

    of: int = 0
    into: bool = False

    def draw(self, draft: Draft, earlier: Sequence[Argument]) -> Argument:
        other = variable(draft, earlier, self.of)
        return self._expanded(draft, other) if self.into else self._reshaped(draft, other)

    def _expanded(self, draft: Draft, other: Variable) -> Argument:
        rng = draft.rng
        sizes: list[Argument] = []
        for place, dim in enumerate(other.shape):
            if all(size == 1 for size in dim):
                sizes.append(rng.randint(1, 5))
            else:
                sizes.append(rng.choice((-1, Size(other.name, place))))
        return Group((*(rng.randint(1, 3) for _ in range(rng.choice((0, 0, 1, 2)))), *sizes))

    def _reshaped(self, draft: Draft, other: Variable) -> Argument:
        rng = draft.rng
        factors: list[Size | int] = []
        for place, dim in enumerate(other.shape):
            size = dim[0]
            fixed = all(n == size for n in dim)
            divisors = [n for n in range(2, size) if size % n == 0] if fixed else []
            if divisors and rng.random() < 0.4:
                divisor = rng.choice(divisors)
                factors += [divisor, size // divisor]
            else:
                factors.append(size if fixed and rng.random() < 0.5 else Size(other.name, place))
        if rng.random() < 0.4:
            rng.shuffle(factors)
        sizes: list[Argument] = []
        while factors:
            taken = [factors.pop(0) for _ in range(min(len(factors), rng.choice((1, 1, 1, 2, 2, 3))))]
            sizes.append(taken[0] if len(taken) == 1 else Product(tuple(taken)))
        if rng.random() < 0.2:
            sizes.insert(rng.randint(0, len(sizes)), 1)
        if sizes and rng.random() < 0.5:
            sizes[rng.randrange(len(sizes))] = -1
        return Group(tuple(sizes))


@dataclass(frozen=True)
class Splits:
    """Into how many parts a dimension can be divided: 1 to 4."""

    of: int = 0

    def draw(self, draft: Draft, earlier: Sequence[Argument]) -> Argument:
        if variable(draft, earlier, self.of).rank == 0:
            raise CannotDraw("there is no dimension")
        return draft.rng.randint(1, 4)
