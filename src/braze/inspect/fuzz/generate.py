"""A program from a seed: statements are drawn one after the other, and tried eagerly on every call at once.

What PyTorch refuses is dropped and another statement drawn, so almost every program runs. The same seed and
index give the same program.
"""

from __future__ import annotations

import copy
import itertools
import random
from collections.abc import Sequence
from typing import Any

import torch

from braze.inspect.fuzz.draft import MOST_ELEMENTS, Draft, Variable
from braze.inspect.fuzz.execute import HALF, apply, function_of, run
from braze.inspect.fuzz.operators import CannotDraw, Operator
from braze.inspect.fuzz.program import Argument, Mode, Name, Program, Statement, Tensor
from braze.inspect.fuzz.table import OPERATORS

__all__ = ["MODES", "draw_statement", "generate", "mode_of"]

MODES: tuple[Mode, ...] = ("static", "dynamic", "gradients", "package")

DYNAMIC_CALLS = 3
_LENGTHS = (1, 2, 3, 3, 4, 4, 5, 6, 7, 9)
_ATTEMPTS = 5
_TRIES = 30
_RAISING = 0.03
_WRITING = 1.6
_REFUSED = (RuntimeError, IndexError, ValueError, TypeError, ZeroDivisionError, OverflowError)
_BY_DATA = ("out of range", "out of bounds", "ZeroDivisionError")
"""What PyTorch says of elements that it refuses; of sizes and types it speaks before it runs."""
_ROWS = tuple(OPERATORS.values())


def mode_of(index: int) -> Mode:
    """The mode of a program: the modes take turns."""
    return MODES[index % len(MODES)]


def generate(seed: int, index: int) -> Program | None:
    """The program of a seed and an index. None where nothing came of it in several attempts: in the
    gradients' mode, say, no result has any."""
    for attempt in range(_ATTEMPTS):
        program = _attempt(random.Random(f"{seed}:{index}:{attempt}"), mode_of(index), f"{seed}:{index}")
        if program is not None:
            return program
    return None


def _attempt(rng: random.Random, mode: Mode, origin: str) -> Program | None:
    draft = Draft(rng, mode, DYNAMIC_CALLS if mode in ("dynamic", "package") else 1)
    raising = rng.random() < _RAISING
    statements: list[Statement] = []
    weights = [_weight(row, mode) for row in _ROWS]
    length = rng.choice(_LENGTHS)
    while len(statements) < length:
        draft.raising = raising and len(statements) == length - 1
        statement = _next(draft, weights, raises=draft.raising)
        if statement is None:
            break
        statements.append(statement)
    if not statements:
        return None
    program = _finish(draft, origin, statements)
    return program if program is not None and _runs(program, raising) else None


def _weight(row: Operator, mode: Mode) -> float:
    weight = row.weight * (_WRITING if row.writes else 1.0)
    integral = row.gives in ("bool", "int64") or row.bits
    return weight * 0.15 if mode == "gradients" and integral else weight


def _next(draft: Draft, weights: Sequence[float], raises: bool) -> Statement | None:
    for _ in range(_TRIES):
        (row,) = draft.rng.choices(_ROWS, weights=weights)
        statement = draw_statement(draft, row, raises=raises)
        if statement is not None:
            return statement
    return None


def draw_statement(draft: Draft, row: Operator, *, raises: bool = False) -> Statement | None:
    """A statement of one operator, tried and entered into the draft; None where none could be drawn. With
    ``raises`` one that PyTorch refuses when it runs, and not before, will do; the program ends with it."""
    inputs, known = list(draft.inputs), dict(draft.variables)
    draft.sharp, draft.numbers = row.sharp, row.torn and draft.mode == "gradients"
    arguments: list[Argument] = []
    worlds = None
    try:
        for operand in row.operands:
            arguments.append(operand.draw(draft, arguments))
        results = tuple(f"v{len(known)}{letter}" for letter in ("", "b")[: row.results])
        statement = Statement(row.name, row.form, tuple(arguments), results)
        worlds = _try(draft, statement)
    except CannotDraw:
        worlds = None
    except _REFUSED as error:
        if raises and any(words in str(error) for words in _BY_DATA):
            return statement
    if worlds is None:
        draft.inputs, draft.variables = inputs, known
        return None
    _enter(draft, row, statement, worlds)
    return statement


def _try(draft: Draft, statement: Statement) -> list[dict[str, Any]] | None:
    """The variables after the statement, in each call. A write that one call refuses is undone in none: it
    is tried on copies first."""
    operator = OPERATORS[statement.operator]
    if operator.writes and draft.calls > 1:
        _dry_run(draft, statement)
    worlds = []
    for call in range(draft.calls):
        world = {name: found.values[call] for name, found in draft.variables.items()}
        with torch.set_grad_enabled(draft.mode == "gradients"):
            apply(statement, world)
        for name in statement.results:
            if not isinstance(world[name], torch.Tensor) or not _acceptable(world[name], draft):
                return None
        worlds.append(world)
    return worlds


def _dry_run(draft: Draft, statement: Statement) -> None:
    for call in range(draft.calls):
        read = set(statement.reads())
        world = copy.deepcopy({name: draft.variables[name].values[call] for name in sorted(read)})
        with torch.no_grad():
            apply(statement, world)


def _acceptable(result: torch.Tensor, draft: Draft) -> bool:
    if result.numel() > MOST_ELEMENTS or result.dim() > 6 or result.is_complex():
        return False
    if not result.is_floating_point() or not result.numel() or not bool(torch.isnan(result).all()):
        return True
    return draft.rng.random() < 0.2


def _enter(draft: Draft, row: Operator, statement: Statement, worlds: list[dict[str, Any]]) -> None:
    read = [draft.variables[name].level for name in sorted(set(statement.reads()))]
    for name in statement.results:
        values = [world[name] for world in worlds]
        draft.variables[name] = Variable(name, values, _level(row, read, values[0]))
    if row.writes and isinstance(statement.arguments[0], Name):
        written = draft.variables[statement.arguments[0].name]
        level = _level(row, read, written.values[0])
        where = written.values[0].untyped_storage().data_ptr()
        for other in draft.variables.values():
            if other.is_tensor and other.values[0].untyped_storage().data_ptr() == where:
                other.level = max(other.level, level)


def _level(row: Operator, read: Sequence[int], result: torch.Tensor) -> int:
    """How sure the values of a result are; see `Variable`."""
    worst = max(read, default=0)
    if not result.is_floating_point():
        return 0
    if row.rounding == "exact":
        return worst
    if row.rounding == "loose" or worst > 1:
        return 2
    if row.rounding == "cast":
        return 0
    return worst + 1 if result.dtype in HALF else 2 * worst


def _finish(draft: Draft, origin: str, statements: Sequence[Statement]) -> Program | None:
    rng = draft.rng
    made = [name for statement in statements for name in statement.results]
    written = [
        a.name
        for s in statements
        if OPERATORS[s.operator].writes
        for a in s.arguments[:1]
        if isinstance(a, Name)
    ]
    read = set(itertools.chain.from_iterable(s.reads() for s in statements))
    unread = [name for name in made if name not in read]
    outputs = unread[-4:]
    others = [name for name in [*made, *written] if name not in outputs]
    rng.shuffle(others)
    outputs += list(dict.fromkeys(others))[: rng.choice((0, 0, 1, 1, 2))]
    if rng.random() < 0.05:
        outputs.append(
            rng.choice([given.name for given in draft.inputs if isinstance(given, Tensor)] or made)
        )
    if not outputs:
        outputs = written[-1:]
    if rng.random() < 0.05 and outputs:
        outputs.append(rng.choice(outputs))
    rng.shuffle(outputs)
    used = read | set(outputs)
    owners = {given.shares for given in draft.inputs if isinstance(given, Tensor) and given.name in used}
    inputs = tuple(given for given in draft.inputs if given.name in used or given.name in owners)
    if not outputs or not inputs:
        return None
    return Program(origin, draft.mode, inputs, tuple(statements), tuple(outputs))


def _runs(program: Program, raising: bool) -> bool:
    """Whether it is worth comparing: it runs eagerly in every call, or it is meant to raise, and with
    gradients it has some."""
    outcomes = [run(function_of(program), program, call) for call in range(program.calls)]
    if any(outcome.error is not None for outcome in outcomes):
        return raising
    return program.mode != "gradients" or any(g is not None for g in outcomes[0].gradients.values())
