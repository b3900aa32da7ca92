"""A program as data: inputs, statements, outputs. It prints itself as Python, and travels as bytes.

Each input has its sizes, and each number its value, for every call of the program: a static program is called
with one set of sizes, a dynamic one with several. The elements of an input are a few literal values, repeated
until its memory is full, so that a program is exact without a generator of random numbers, and short.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Literal, Union

import msgspec

__all__ = [
    "Argument",
    "DType",
    "Group",
    "Input",
    "Mode",
    "Name",
    "Number",
    "Product",
    "Program",
    "Size",
    "Statement",
    "Tensor",
    "literal",
    "names_in",
    "text_of",
]

Mode = Literal["static", "dynamic", "gradients", "package"]


class Name(msgspec.Struct, frozen=True, tag="name"):
    """A variable."""

    name: str


class Size(msgspec.Struct, frozen=True, tag="size"):
    """A size of a variable, used as a number: ``x.shape[dim]``."""

    name: str
    dim: int


class DType(msgspec.Struct, frozen=True, tag="dtype"):
    """An element type, by its name in torch."""

    name: str


class Product(msgspec.Struct, frozen=True, tag="product"):
    """A product of sizes and integers."""

    factors: tuple[Union[Size, int], ...]  # noqa: UP007  msgspec reads annotations on Python 3.10


class Group(msgspec.Struct, frozen=True, tag="group"):
    """Several arguments as a tuple."""

    items: tuple[Argument, ...]


Argument = Union[  # noqa: UP007
    Name, Size, DType, Product, Group, None, bool, int, float, str
]


class Tensor(msgspec.Struct, frozen=True, tag="tensor"):
    """A tensor that a program is called with.

    shapes: its sizes in each call. order: dimensions from the outermost in memory to the innermost. gaps:
    by how much more than for dense memory one goes from one element of a dimension to the next. offset: where
    in its memory it begins. expanded: dimensions of stride 0. values: repeated until the memory is full.
    shares: another input, in whose memory it lies. steps: its strides in each call, where order, gaps and
    expanded dimensions cannot say them.
    """

    name: str
    dtype: str
    shapes: tuple[tuple[int, ...], ...]
    order: tuple[int, ...]
    gaps: tuple[int, ...]
    offset: int
    expanded: tuple[int, ...]
    values: tuple[Union[bool, int, float], ...]  # noqa: UP007
    requires_grad: bool = False
    shares: str | None = None
    steps: tuple[tuple[int, ...], ...] | None = None

    def strides(self, call: int) -> tuple[int, ...]:
        """Strides in one call, in elements."""
        if self.steps is not None:
            return self.steps[call]
        shape = self.shapes[call]
        strides = [0] * len(shape)
        step = 1
        for dim in reversed(self.order):
            strides[dim] = 0 if dim in self.expanded else step * self.gaps[dim]
            step *= 1 if dim in self.expanded else max(shape[dim], 1) * self.gaps[dim]
        return tuple(strides)

    def reach(self, call: int) -> int:
        """Elements of memory from its beginning to the last element."""
        pairs = zip(self.shapes[call], self.strides(call))
        return self.offset + 1 + sum((n - 1) * stride for n, stride in pairs if n)

    @property
    def plain(self) -> bool:
        """Whether it is dense, in its own memory, and begins where that begins."""
        ordered = self.order == tuple(range(len(self.order))) and all(gap == 1 for gap in self.gaps)
        return ordered and not (self.offset or self.expanded or self.shares or self.steps)


class Number(msgspec.Struct, frozen=True, tag="number"):
    """A Python number that a program is called with; ``values``: one for each call."""

    name: str
    values: tuple[Union[bool, int, float], ...]  # noqa: UP007


Input = Union[Tensor, Number]  # noqa: UP007


class Statement(msgspec.Struct, frozen=True):
    """One line: an operator of the table, or of ATen, what it is given, and the variables that its results
    become. An operator that only writes to its first argument has none. ``source``: the line of somebody's
    program that it comes from."""

    operator: str
    form: str
    arguments: tuple[Argument, ...]
    results: tuple[str, ...]
    source: str = ""

    def text(self, float_dtype: str | None = None) -> str:
        """The line as Python. ``float_dtype``: stands for every floating type, as for a reference."""
        call = self.form.format(*(text_of(argument, float_dtype) for argument in self.arguments))
        return f"{', '.join(self.results)} = {call}" if self.results else call

    def reads(self) -> Iterator[str]:
        """The variables that it reads or writes to."""
        for argument in self.arguments:
            yield from names_in(argument)


class Program(msgspec.Struct, frozen=True):
    """A function of its inputs, and the calls to compare. ``origin``: SEED:INDEX, from which it was made."""

    origin: str
    mode: Mode
    inputs: tuple[Input, ...]
    statements: tuple[Statement, ...]
    outputs: tuple[str, ...]

    @property
    def calls(self) -> int:
        """How many sets of sizes it is called with."""
        for given in self.inputs:
            return len(given.shapes) if isinstance(given, Tensor) else len(given.values)
        return 1

    def source(self) -> str:
        """The function ``program``, as Python."""
        names = ", ".join(given.name for given in self.inputs)
        lines = [f"    {statement.text()}" for statement in self.statements]
        results = ", ".join(self.outputs) + ("," if len(self.outputs) == 1 else "")
        return "\n".join([f"def program({names}):", *lines, f"    return ({results})", ""])

    def operators(self) -> tuple[str, ...]:
        """The operators' names, in order."""
        return tuple(statement.operator for statement in self.statements)

    def to_bytes(self) -> bytes:
        """For `from_bytes`. NaN and infinity survive it."""
        return msgspec.msgpack.encode(self)

    @staticmethod
    def from_bytes(data: bytes) -> Program:
        """Raises `msgspec.DecodeError` for what `to_bytes` did not write."""
        return msgspec.msgpack.decode(data, type=Program)


def names_in(argument: Argument) -> Iterator[str]:
    """The variables in an argument."""
    if isinstance(argument, (Name, Size)):
        yield argument.name
    elif isinstance(argument, Product):
        for factor in argument.factors:
            yield from names_in(factor)
    elif isinstance(argument, Group):
        for item in argument.items:
            yield from names_in(item)


def text_of(argument: Argument, float_dtype: str | None = None) -> str:
    """An argument as Python."""
    if isinstance(argument, Name):
        return argument.name
    if isinstance(argument, Size):
        return f"{argument.name}.shape[{argument.dim}]"
    if isinstance(argument, DType):
        floating = argument.name.startswith(("float", "bfloat"))
        return f"torch.{float_dtype if floating and float_dtype else argument.name}"
    if isinstance(argument, Product):
        return " * ".join(text_of(factor) for factor in argument.factors)
    if isinstance(argument, Group):
        return _tuple([text_of(item, float_dtype) for item in argument.items])
    return literal(argument)


def literal(value: bool | int | float | str | None) -> str:
    """A constant as Python; NaN and infinities have no literals of their own."""
    if isinstance(value, float) and not math.isfinite(value):
        return f'float("{value}")'
    return repr(value)


def _tuple(items: Sequence[str]) -> str:
    return f"({', '.join(items)}{',' if len(items) == 1 else ''})"
