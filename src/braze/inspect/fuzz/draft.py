"""A program that is being written: its inputs, and each variable with its values in every call so far."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import torch

from braze.dtypes import torch_name
from braze.inspect.fuzz.execute import make_inputs
from braze.inspect.fuzz.operators import CannotDraw
from braze.inspect.fuzz.program import Input, Mode, Number, Program, Tensor
from braze.inspect.fuzz.values import FLOATING, draw_values

__all__ = ["Dim", "Draft", "Variable"]

Dim = tuple[int, ...]
"""A size, in each call."""

Predicate = Callable[["Variable"], bool]

MOST_INPUTS = 7
MOST_ELEMENTS = 4096

_DTYPE_WEIGHTS = {
    "float32": 48, "bfloat16": 11, "float16": 11, "float64": 7,
    "int64": 9, "int32": 4, "uint8": 3, "int8": 2, "int16": 1, "bool": 4,
}  # fmt: skip
_SIZES = (1, 2, 2, 3, 3, 4, 5, 6, 7, 8, 16, 17, 33)


@dataclass
class Variable:
    """A variable: its value in each call. ``level``: how sure its floating-point values are. 0: every
    implementation has these bits. 1: the same once they are rounded to their half type. 2: they differ by
    rounding."""

    name: str
    values: list[Any]
    level: int = 0

    @property
    def is_tensor(self) -> bool:
        return isinstance(self.values[0], torch.Tensor)

    @property
    def tensors(self) -> list[torch.Tensor]:
        return self.values

    @property
    def dtype(self) -> str:
        return torch_name(self.values[0].dtype)

    @property
    def floating(self) -> bool:
        return self.is_tensor and self.values[0].is_floating_point()

    @property
    def rank(self) -> int:
        return int(self.values[0].dim())

    @property
    def shape(self) -> tuple[Dim, ...]:
        return tuple(zip(*(tuple(value.shape) for value in self.values)))


@dataclass
class Draft:
    """Everything that drawing an argument may look at. ``sharp``: the operator that is drawn for acts
    discontinuously. ``numbers``: it shall be given no NaN. ``raising``: an argument may be one that PyTorch
    refuses when it runs."""

    rng: random.Random
    mode: Mode
    calls: int
    dims: list[Dim] = field(default_factory=list)
    inputs: list[Input] = field(default_factory=list)
    variables: dict[str, Variable] = field(default_factory=dict)
    sharp: bool = False
    numbers: bool = False
    raising: bool = False

    def __post_init__(self) -> None:
        self.dims = [self.new_dim() for _ in range(self.rng.choice((2, 3, 3, 4)))]

    # -- sizes ------------------------------------------------------------------------------------------
    def new_dim(self) -> Dim:
        """A size for each call."""
        rng = self.rng
        if self.calls == 1 or rng.random() < 0.25:
            return (0 if rng.random() < 0.02 else rng.choice(_SIZES),) * self.calls
        first = rng.choice((2, 3, 4, 5, 6, 8, 9, 17))
        others = [rng.choice((0, 1, 1, 2, 3, 5, 7, 12, 16, 18, 33)) for _ in range(self.calls - 1)]
        return (first, *others)

    def some_dim(self) -> Dim:
        """Mostly one that the program has already."""
        if self.rng.random() < 0.85:
            return self.rng.choice(self.dims)
        self.dims.append(self.new_dim())
        return self.dims[-1]

    def shape(self, low: int, high: int) -> tuple[Dim, ...]:
        """A new shape of a rank between two."""
        rank = self.rng.choice([r for r in (0, 1, 1, 2, 2, 2, 3, 3, 4) if low <= r <= high] or [low])
        shape: list[Dim] = []
        for _ in range(rank):
            one: Dim = (1,) * self.calls
            shape.append(one if self.rng.random() < 0.08 else self.some_dim())
        return tuple(shape)

    def broadcast_of(self, shape: Sequence[Dim]) -> tuple[Dim, ...]:
        """A shape that broadcasts with another: some sizes 1, some of the first left out."""
        one: Dim = (1,) * self.calls
        if self.rng.random() < 0.5:
            return tuple(shape)
        start = self.rng.choice((0, 0, self.rng.randint(0, len(shape))))
        return tuple(one if self.rng.random() < 0.3 else dim for dim in shape[start:])

    # -- variables --------------------------------------------------------------------------------------
    def choose(self, fits: Predicate) -> Variable | None:
        """A variable that fits, later ones more often; None where there is none."""
        found = [v for v in self.variables.values() if fits(v)]
        if not found:
            return None
        return self.rng.choices(found, weights=[(k + 1) ** 2 for k in range(len(found))])[0]

    def dtype(self, among: Sequence[str]) -> str:
        """An element type."""
        weights = {name: float(_DTYPE_WEIGHTS[name]) for name in among}
        if self.mode == "gradients" and set(among) & set(FLOATING):
            weights = {name: w if name in FLOATING else 0.1 * w for name, w in weights.items()}
        return self.rng.choices(list(weights), weights=list(weights.values()))[0]

    def new_tensor(
        self,
        dtype: str,
        shape: Sequence[Dim],
        *,
        domain: str = "any",
        values: Sequence[bool | int | float] | None = None,
    ) -> Variable:
        """An input more. Raises `CannotDraw` where there are many, or it would be large."""
        if len(self.inputs) >= MOST_INPUTS:
            raise CannotDraw("there are many inputs")
        calls = tuple(zip(*shape)) if shape else ((),) * self.calls
        if any(_count(sizes) > MOST_ELEMENTS for sizes in calls):
            raise CannotDraw("it would be large")
        rank = len(shape)
        order = list(range(rank))
        gaps, expanded, offset = [1] * rank, [], 0
        layout = self.rng.random()
        if layout > 0.6 and rank > 1:
            self.rng.shuffle(order)
        if layout > 0.75 and rank:
            gaps[self.rng.randrange(rank)] = self.rng.choice((2, 3))
        if layout > 0.85:
            offset = self.rng.choice((1, 2, 3, 8, 16))
        if 0.5 < layout < 0.55 and rank:
            expanded = [self.rng.randrange(rank)]
        floating = dtype in FLOATING
        new = Tensor(
            name=f"x{len(self.inputs)}",
            dtype=dtype,
            shapes=calls,
            order=tuple(order),
            gaps=tuple(gaps),
            offset=offset,
            expanded=tuple(expanded),
            values=tuple(values) if values is not None else draw_values(self.rng, dtype, domain),
            requires_grad=self.mode == "gradients" and floating and self.rng.random() < 0.85,
        )
        sharing = not new.requires_grad and len(self.inputs) + 1 < MOST_INPUTS and self.rng.random() < 0.06
        if not sharing:
            return self._add(new)[0]
        shift = self.rng.choice((0, 0, 1, 2, 3))
        name = f"x{len(self.inputs) + 1}"
        other = msgspec.structs.replace(new, name=name, shares=new.name, offset=offset + shift)
        return self._add(new, other)[self.rng.randrange(2)]

    def new_number(self, values: tuple[bool | int | float, ...]) -> Variable:
        """A number as an input more. Raises `CannotDraw`."""
        if len(self.inputs) >= MOST_INPUTS:
            raise CannotDraw("there are many inputs")
        return self._add(Number(f"x{len(self.inputs)}", values))[0]

    def _add(self, *new: Input) -> list[Variable]:
        """Inputs more, and the memory of none but these is theirs."""
        alone = Program("", self.mode, new, (), ())
        calls = [make_inputs(alone, call).arguments for call in range(self.calls)]
        self.inputs += new
        added = [Variable(one.name, list(values)) for one, values in zip(new, zip(*calls))]
        self.variables.update((one.name, one) for one in added)
        return added


def _count(sizes: Sequence[int]) -> int:
    count = 1
    for size in sizes:
        count *= size
    return count
