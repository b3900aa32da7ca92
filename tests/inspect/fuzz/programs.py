"""Programs by hand, from their lines."""

from __future__ import annotations

from collections.abc import Sequence

from braze.inspect.fuzz.program import Argument, Input, Mode, Name, Number, Program, Statement, Tensor
from braze.inspect.fuzz.table import OPERATORS

__all__ = ["number", "program", "statement", "tensor"]

VALUES = (0.5, -1.25, 2.0, 0.75, -0.5)


def tensor(
    name: str,
    *shapes: tuple[int, ...],
    dtype: str = "float32",
    values: Sequence[bool | int | float] = VALUES,
    grad: bool = False,
    shares: str | None = None,
    offset: int = 0,
) -> Tensor:
    rank = len(shapes[0])
    order, gaps = tuple(range(rank)), (1,) * rank
    return Tensor(name, dtype, shapes, order, gaps, offset, (), tuple(values), grad, shares)


def number(name: str, *values: bool | int | float) -> Number:
    return Number(name, values)


def statement(result: str, operator: str, *arguments: Argument) -> Statement:
    """A line with an operator of the table; texts that are no words of it are variables."""
    named = tuple(Name(a) if isinstance(a, str) else a for a in arguments)
    return Statement(operator, OPERATORS[operator].form, named, tuple(result.split()))


def program(
    inputs: Sequence[Input], statements: Sequence[Statement], *outputs: str, mode: Mode = "static"
) -> Program:
    return Program("0:0", mode, tuple(inputs), tuple(statements), outputs)
