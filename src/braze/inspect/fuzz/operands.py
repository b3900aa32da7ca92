"""How tensors are drawn: each operand of an operator is a small value that says what it may be.

An operand is drawn after those to its left, and may refer to them by their places. Tensors are variables that
the program has, or new inputs that are made to fit. What a tensor holds is looked at in every call of the
program, so that indices are in range and casts are defined wherever the program is called.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch

from braze.dtypes import dtype_named
from braze.inspect.fuzz.operators import CannotDraw
from braze.inspect.fuzz.program import Argument, DType, Group, Name
from braze.inspect.fuzz.values import DTYPES, FLOATING, INTEGRAL

if TYPE_CHECKING:
    from braze.inspect.fuzz.draft import Dim, Draft, Variable

__all__ = [
    "ANY",
    "BOOL",
    "FLOAT",
    "INT",
    "INTEGERS",
    "NUMERIC",
    "SIGNED",
    "Cast",
    "Index",
    "Like",
    "Matching",
    "Operand",
    "Several",
    "T",
    "dimension",
    "distinct",
    "finite",
    "moderate",
    "no_nan",
    "nonzero",
    "positive",
    "safe_for",
    "variable",
]

ANY = DTYPES
FLOAT = FLOATING
INT = INTEGRAL
BOOL = ("bool",)
INTEGERS = (*INTEGRAL, "bool")
NUMERIC = (*FLOATING, *INTEGRAL)
SIGNED = tuple(name for name in NUMERIC if name != "uint8")

Check = Callable[[torch.Tensor], bool]

REUSE = 0.85
"""How often a tensor is one that the program has already."""

SAME = 0.12
"""How often a tensor may be one that is an argument already."""

OUT_OF_RANGE = 0.3
"""How often an index is out of range where the program may raise."""


class Operand(Protocol):
    """Something that an operator takes."""

    def draw(self, draft: Draft, earlier: Sequence[Argument]) -> Argument:
        """An argument. ``earlier``: those to its left. Raises `CannotDraw`."""
        ...


# -- what a tensor's elements are ------------------------------------------------------------------------
def finite(value: torch.Tensor) -> bool:
    """No NaN, no infinity."""
    return bool(torch.isfinite(value).all())


def moderate(value: torch.Tensor) -> bool:
    """Finite, and between -64 and 64."""
    return finite(value) and bool((value.double().abs() <= 64).all())


def no_nan(value: torch.Tensor) -> bool:
    """No NaN, whose sign and bits differ between implementations."""
    return not bool(torch.isnan(value).any())


def positive(value: torch.Tensor) -> bool:
    """Above 0, and not so large that powers overflow."""
    return moderate(value) and bool((value > 0).all())


def nonzero(value: torch.Tensor) -> bool:
    """Integers by which one can divide; of floating-point numbers all."""
    return value.is_floating_point() or bool((value != 0).all())


def safe_for(dtype: str) -> Check:
    """Whether C++ defines what a cast to a type gives."""
    target = dtype_named(dtype)

    def check(value: torch.Tensor) -> bool:
        if not value.is_floating_point() or target.is_floating_point or target is torch.bool:
            return True
        low = 0 if target is torch.uint8 else -100
        return finite(value) and bool(((value >= low) & (value <= 100)).all())

    return check


def variable(draft: Draft, earlier: Sequence[Argument], place: int) -> Variable:
    """The variable that an earlier argument names."""
    argument = earlier[place]
    if not isinstance(argument, Name):
        raise CannotDraw("the argument is not a variable")
    return draft.variables[argument.name]


def dimension(argument: Argument, rank: int) -> int:
    """A dimension that was drawn, from 0."""
    if not isinstance(argument, int):
        raise CannotDraw("the argument is not a dimension")
    return argument % rank if rank else 0


# -- tensors ---------------------------------------------------------------------------------------------
def _usable(draft: Draft, found: Variable, dtypes: Sequence[str], check: Check | None) -> bool:
    if not found.is_tensor or found.dtype not in dtypes:
        return False
    if draft.sharp and found.floating and found.level > 1:
        return False
    if draft.numbers and not all(no_nan(value) for value in found.tensors):
        return False
    if check is None or (check is nonzero and draft.raising):
        return True
    return all(check(value) for value in found.tensors)


def distinct(value: torch.Tensor) -> bool:
    """No NaN, and no value twice, so that order says where each one is."""
    return no_nan(value) and int(torch.unique(value).numel()) == value.numel()


def _taken(draft: Draft, earlier: Sequence[Argument]) -> set[str]:
    """Variables that shall not be taken once more: mostly those that are arguments already."""
    if draft.rng.random() < SAME:
        return set()
    return {argument.name for argument in earlier if isinstance(argument, Name)}


def _domain_for(check: Check | None) -> str:
    """Of what a new input is drawn so that it may pass."""
    names: dict[Check, str] = {
        finite: "finite",
        no_nan: "finite",
        moderate: "moderate",
        positive: "positive",
        nonzero: "positive",
        distinct: "distinct",
    }
    return "any" if check is None else names.get(check, "unit")


def _new(draft: Draft, dtype: str, shape: Sequence[Dim], check: Check | None, domain: str | None) -> Argument:
    if draft.numbers:
        check, domain = check or no_nan, domain or "finite"
    made = draft.new_tensor(dtype, shape, domain=domain or _domain_for(check))
    if check is not None and not all(check(value) for value in made.tensors):
        raise CannotDraw("the input does not pass")
    return Name(made.name)


@dataclass(frozen=True)
class T:
    """A tensor. ``rank``: from, to. ``check``: what its elements have to be; ``domain``: of what a new input
    is drawn. ``nonempty``: it has elements in every call."""

    dtypes: Sequence[str] = ANY
    rank: tuple[int, int] = (0, 4)
    check: Check | None = None
    domain: str | None = None
    nonempty: bool = False

    def draw(self, draft: Draft, earlier: Sequence[Argument]) -> Argument:
        def fits(found: Variable) -> bool:
            return (
                _usable(draft, found, self.dtypes, self.check)
                and self.rank[0] <= found.rank <= self.rank[1]
                and not (self.nonempty and any(value.numel() == 0 for value in found.tensors))
            )

        if draft.rng.random() < REUSE:
            found = draft.choose(fits)
            if found is not None:
                return Name(found.name)
        shape = draft.shape(*self.rank)
        if self.nonempty and any(0 in dim for dim in shape):
            raise CannotDraw("it would be empty")
        return _new(draft, draft.dtype(self.dtypes), shape, self.check, self.domain)


@dataclass(frozen=True)
class Like:
    """A tensor that fits an earlier one: ``same`` its sizes, or such that ``broadcast`` works, or such that
    it can be expanded ``into`` the other. ``dtypes`` None: of the same type."""

    of: int = 0
    how: str = "broadcast"
    dtypes: Sequence[str] | None = ANY
    check: Check | None = None
    domain: str | None = None

    def draw(self, draft: Draft, earlier: Sequence[Argument]) -> Argument:
        other = variable(draft, earlier, self.of)
        dtypes = (other.dtype,) if self.dtypes is None else self.dtypes

        taken = _taken(draft, earlier)

        def fits(found: Variable) -> bool:
            usable = found.name not in taken and _usable(draft, found, dtypes, self.check)
            return usable and _fits(found.shape, other.shape, self.how)

        if draft.rng.random() < REUSE:
            found = draft.choose(fits)
            if found is not None:
                return Name(found.name)
        shape = other.shape if self.how == "same" else draft.broadcast_of(other.shape)
        return _new(draft, draft.dtype(dtypes), shape, self.check, self.domain)


def _fits(shape: Sequence[Dim], other: Sequence[Dim], how: str) -> bool:
    if how == "same":
        return tuple(shape) == tuple(other)
    if how == "into" and len(shape) > len(other):
        return False
    for mine, theirs in zip(reversed(shape), reversed(other)):
        ones = how == "broadcast" and all(size == 1 for size in theirs)
        if mine != theirs and not ones and not all(size == 1 for size in mine):
            return False
    return True


@dataclass(frozen=True)
class Matching:
    """A tensor whose sizes are given by those of earlier ones: ``shape`` has, for each dimension, an earlier
    argument and a dimension of it, a number, or None for any size."""

    shape: tuple[tuple[int, int] | int | None, ...]
    of: int = 0
    dtypes: Sequence[str] | None = None
    check: Check | None = None
    domain: str | None = None

    def draw(self, draft: Draft, earlier: Sequence[Argument]) -> Argument:
        other = variable(draft, earlier, self.of)
        dtypes = (other.dtype,) if self.dtypes is None else self.dtypes
        shape: list[Dim] = []
        for wanted in self.shape:
            if wanted is None:
                shape.append(draft.some_dim())
            elif isinstance(wanted, int):
                shape.append((wanted,) * draft.calls)
            else:
                shape.append(variable(draft, earlier, wanted[0]).shape[wanted[1]])
        free = [place for place, wanted in enumerate(self.shape) if wanted is None]
        taken = _taken(draft, earlier)

        def fits(found: Variable) -> bool:
            usable = found.name not in taken and _usable(draft, found, dtypes, self.check)
            if not usable or found.rank != len(shape):
                return False
            return all(found.shape[d] == shape[d] or d in free for d in range(len(shape)))

        if draft.rng.random() < REUSE:
            found = draft.choose(fits)
            if found is not None:
                return Name(found.name)
        return _new(draft, draft.dtype(dtypes), shape, self.check, self.domain)


@dataclass(frozen=True)
class Several:
    """Two to four tensors as a tuple, an earlier argument among them, of its sizes but for that of the
    dimension which the argument at the place ``vary`` is."""

    of: int = 0
    vary: int | None = None

    def draw(self, draft: Draft, earlier: Sequence[Argument]) -> Argument:
        first = variable(draft, earlier, self.of)
        along = dimension(earlier[self.vary], first.rank) if self.vary is not None else None
        items: list[Argument] = [earlier[self.of]]
        for _ in range(draft.rng.randint(1, 3)):
            shape = list(first.shape)
            if along is not None and draft.rng.random() < 0.5:
                shape[along] = draft.some_dim()
            dtypes = ANY if draft.rng.random() < 0.25 else (first.dtype,)

            def fits(found: Variable, shape: Sequence[Dim] = shape, dtypes: Sequence[str] = dtypes) -> bool:
                if not _usable(draft, found, dtypes, None) or found.rank != len(shape):
                    return False
                return all(found.shape[d] == shape[d] or d == along for d in range(len(shape)))

            found = draft.choose(fits) if draft.rng.random() < REUSE else None
            name = Name(found.name) if found else _new(draft, draft.dtype(dtypes), shape, None, None)
            items.append(name)
        draft.rng.shuffle(items)
        return Group(tuple(items))


@dataclass(frozen=True)
class Index:
    """A tensor of indices into a dimension of an earlier argument.

    dim: the place of the argument that says which, or None with ``axis``: this one. None and None: into all
    elements. shape: ``line`` of any length; ``any``; ``same`` as the tensor's; ``along``: the same but in
    that dimension. unique: no index twice. negative: from the end, too.
    """

    of: int = 0
    dim: int | None = None
    axis: int | None = None
    shape: str = "any"
    unique: bool = False
    negative: bool = False
    length: int | None = None

    def draw(self, draft: Draft, earlier: Sequence[Argument]) -> Argument:
        other = variable(draft, earlier, self.of)
        along = self.axis if self.dim is None else dimension(earlier[self.dim], other.rank)
        if along is not None and not -other.rank <= along < other.rank:
            raise CannotDraw("there is no such dimension")
        if along is None:
            least = min(value.numel() for value in other.tensors)
        else:
            least = min(other.shape[along])
        shape = self._shape(draft, other, along)
        if least == 0 and not all(any(dim[c] == 0 for dim in shape) for c in range(draft.calls)):
            raise CannotDraw("there is nothing to index")
        if draft.raising and not self.unique and draft.rng.random() < OUT_OF_RANGE:
            values = [0, least - 1, max(other.shape[along]) if along is not None else least * draft.calls]
        elif self.unique:
            values = list(range(max(least, 1)))
            draft.rng.shuffle(values)
            if any(n > least for call in zip(*shape) for n in call) and least:
                raise CannotDraw("there are not that many different indices")
        else:
            low = -least if self.negative and draft.rng.random() < 0.3 else 0
            values = [
                draft.rng.randint(low, max(least - 1, 0)) for _ in range(draft.rng.choice((1, 3, 5, 7, 11)))
            ]
        dtype = "int64" if self.unique or draft.rng.random() < 0.9 else "int32"
        made = draft.new_tensor("int64" if self.shape != "line" else dtype, shape, values=values)
        if self.unique and any(torch.unique(value).numel() != value.numel() for value in made.tensors):
            raise CannotDraw("an index is there twice")
        return Name(made.name)

    def _shape(self, draft: Draft, other: Variable, along: int | None) -> tuple[Dim, ...]:
        if self.length is not None:
            return (other.shape[self.length],)
        if self.shape == "line":
            return (draft.some_dim(),)
        if self.shape == "any":
            return draft.shape(0, 2)
        shape = list(other.shape)
        if self.shape == "along" and along is not None and draft.rng.random() < 0.7:
            shape[along] = draft.some_dim()
        return tuple(shape)


@dataclass(frozen=True)
class Cast:
    """An element type to which an earlier argument can be cast, in every call, so that C++ defines it."""

    of: int = 0
    dtypes: Sequence[str] = ANY

    def draw(self, draft: Draft, earlier: Sequence[Argument]) -> Argument:
        other = variable(draft, earlier, self.of)
        sharp = other.level <= 1
        possible = [
            name
            for name in self.dtypes
            if (sharp or name in FLOATING) and all(safe_for(name)(value) for value in other.tensors)
        ]
        if not possible:
            raise CannotDraw("no cast is defined")
        return DType(draft.dtype(possible))
