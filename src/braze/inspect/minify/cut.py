"""Parts of a program by themselves: what is computed in front of them becomes an input, with the values that
eager PyTorch computes there. It is how a long program gets short in a few trials."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from typing import Any

import torch
from msgspec.structs import replace

from braze.errors import Refused
from braze.inspect.fuzz.execute import apply, make_inputs
from braze.inspect.fuzz.program import (
    Argument,
    Group,
    Input,
    Name,
    Program,
    Statement,
)
from braze.inspect.minify.translate import tensor_of

__all__ = ["given_instead", "parts"]


def parts(program: Program) -> Iterator[Program]:
    """Smaller programs, each a part of this one: what comes after a place, and what comes before it, then the
    program without one of its statements, whose results are given."""
    count = len(program.statements)
    if program.calls != 1 or count < 2:
        return
    for place in dict.fromkeys((count // 2, count * 3 // 4, count // 4, count - 1, 1)):
        if 0 < place < count:
            with contextlib.suppress(Refused):
                yield given_instead(program, range(place))
            yield _before(program, place)
    for place in range(count):
        with contextlib.suppress(Refused):
            yield given_instead(program, [place])


def _before(program: Program, place: int) -> Program:
    """The first statements, and what is read of their results."""
    kept, later = program.statements[:place], program.statements[place:]
    read = {name for statement in later for name in statement.reads()} | set(program.outputs)
    made = [name for statement in kept for name in statement.results if name in read]
    ours = {given.name for given in program.inputs}
    outputs = tuple(dict.fromkeys([*made, *(name for name in program.outputs if name in ours)]))
    return replace(program, statements=kept, outputs=outputs)


def given_instead(program: Program, places: Collection[int]) -> Program:
    """The program without some statements, whose results it is given. Raises `Refused` where eager PyTorch
    raises, or a result is nothing that can be given."""
    variables = dict(zip((i.name for i in program.inputs), make_inputs(program, 0).arguments))
    left = [s for place, s in enumerate(program.statements) if place not in places]
    read = {name for statement in left for name in statement.reads()} | set(program.outputs)
    inputs: list[Input] = list(program.inputs)
    numbers: dict[str, Any] = {}
    grad = program.mode == "gradients"
    for place, statement in enumerate(program.statements):
        try:
            with torch.set_grad_enabled(grad):
                apply(statement, variables)
        except Exception as error:
            raise Refused(f"eager PyTorch raises {type(error).__name__}") from None
        for name in statement.results if place in places else ():
            value = variables[name]
            if name not in read:
                continue
            if isinstance(value, torch.Tensor):
                given = tensor_of(name, value)
                inputs.append(given if grad else replace(given, requires_grad=False))
            elif value is None or type(value) in (bool, int, float):
                numbers[name] = value
            else:
                raise Refused(f"{name} is a {type(value).__name__}")
    if numbers.keys() & set(program.outputs):
        raise Refused("a number is returned")
    statements = tuple(_with_numbers(s, numbers) for s in left)
    used = set(program.outputs).union(*(s.reads() for s in statements))
    shared = {getattr(given, "shares", None) for given in inputs if given.name in used}
    kept = tuple(given for given in inputs if given.name in used or given.name in shared)
    return replace(program, inputs=kept, statements=statements)


def _with_numbers(statement: Statement, numbers: dict[str, Any]) -> Statement:
    def of(argument: Argument) -> Argument:
        if isinstance(argument, Name) and argument.name in numbers:
            return numbers[argument.name]  # type: ignore[no-any-return]
        if isinstance(argument, Group):
            return Group(tuple(map(of, argument.items)))
        return argument

    return replace(statement, arguments=tuple(map(of, statement.arguments)))
