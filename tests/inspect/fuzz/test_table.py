"""The table: every operator can be drawn, runs eagerly, and gives what its row says."""

from __future__ import annotations

import random
import string
from collections import Counter

import pytest
import torch

from braze.inspect.fuzz import table
from braze.inspect.fuzz.draft import Draft
from braze.inspect.fuzz.generate import MODES, draw_statement
from braze.inspect.fuzz.operands import Several
from braze.inspect.fuzz.operators import Operator
from braze.inspect.fuzz.program import DType, Name, Size, Statement
from braze.inspect.fuzz.table import OPERATORS

TRIES = 150
ROWS = list(OPERATORS.values())


def drawn(row: Operator, mode: str = "static") -> tuple[Draft, Statement]:
    """A program's first statement, by this operator."""
    for number in range(TRIES):
        draft = Draft(random.Random(f"{row.name} {number}"), mode, 3 if mode == "dynamic" else 1)  # type: ignore[arg-type]
        statement = draw_statement(draft, row)
        if statement is not None:
            return draft, statement
    raise AssertionError(f"{row.name} cannot be drawn")


def test_there_are_many_and_each_has_a_name_of_its_own() -> None:
    names = Counter(row.name for family in table._FAMILIES for row in family.ROWS)
    assert len(OPERATORS) >= 500 and not [name for name, count in names.items() if count > 1]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_row_is_well_formed(row: Operator) -> None:
    places = {int(name) for _, name, _, _ in string.Formatter().parse(row.form) if name}
    within = {operand.of for operand in row.operands if isinstance(operand, Several)}
    assert places | within == set(range(len(row.operands))), "the form uses each operand"
    assert row.writes == (row.results == 0) == (row.gives == "nothing")
    assert row.weight > 0
    assert not row.bits or row.sharp


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_an_operator_can_be_drawn_and_gives_what_its_row_says(row: Operator) -> None:
    torch.manual_seed(0)
    draft, statement = drawn(row)
    assert len(statement.results) == row.results
    operands = [draft.variables[a.name].values[0] for a in statement.arguments if isinstance(a, Name)]
    for name in statement.results:
        dtype = draft.variables[name].values[0].dtype
        if row.gives == "promoted":
            given = [
                draft.variables[a.name].values[0] if isinstance(a, Name) else a for a in statement.arguments
            ]
            given = [2 if isinstance(a, Size) else a for a in given]
            assert dtype == (torch.result_type(given[0], given[1]) if len(given) > 1 else operands[0].dtype)
        elif row.gives == "float":
            assert dtype.is_floating_point
        elif row.gives == "same":
            assert dtype == operands[0].dtype
        elif row.gives == "sum":
            assert dtype == (operands[0].dtype if operands[0].is_floating_point() else torch.int64)
        elif row.gives in ("bool", "int64"):
            assert dtype == getattr(torch, row.gives)
        elif row.gives == "argument":
            (wanted,) = (a.name for a in statement.arguments if isinstance(a, DType))
            assert dtype == getattr(torch, wanted)


@pytest.mark.parametrize("mode", MODES)
def test_most_operators_can_be_drawn_in_each_mode(mode: str) -> None:
    missing = []
    for row in ROWS:
        try:
            drawn(row, mode)
        except AssertionError:
            missing.append(row.name)
    # literal sizes do not fit three sets of sizes; integers have no gradients
    assert len(missing) < 12, missing
