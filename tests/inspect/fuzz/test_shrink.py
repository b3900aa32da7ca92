"""Shrinking: candidates are simpler, and the smallest one keeps what made the fault."""

from __future__ import annotations

import pytest

from braze.inspect.fuzz.execute import function_of, run
from braze.inspect.fuzz.generate import generate
from braze.inspect.fuzz.program import Program, Tensor
from braze.inspect.fuzz.shrink import candidates, shrink, well_formed


def never() -> bool:
    return False


def size(program: Program) -> tuple[int, int]:
    tensors = [given for given in program.inputs if isinstance(given, Tensor)]
    elements = sum(given.reach(call) for given in tensors for call in range(program.calls))
    return len(program.statements), elements


@pytest.mark.parametrize("operator", ["exp", "add", "cat", "layer_norm", "set_slice", "softmax", "mul"])
def test_what_made_the_fault_stays_and_the_rest_goes(operator: str) -> None:
    """A compiler that is wrong about one operator, wherever it is read from something."""
    found = (generate(11, index) for index in range(3000))
    program = next(p for p in found if p is not None and operator in p.operators() and len(p.statements) > 4)

    def same(candidate: Program) -> bool:
        runs = all(run(function_of(candidate), candidate, c).error is None for c in range(candidate.calls))
        return runs and operator in candidate.operators()

    small = shrink(program, same, enough=never)
    assert operator in small.operators() and well_formed(small) and same(small)
    assert len(small.statements) <= 2 and small.calls == 1 and small.mode == "static"
    assert size(small) < size(program)
    assert all(len(given.values) == 1 for given in small.inputs)


def test_candidates_are_other_programs_and_the_well_formed_ones_can_be_called() -> None:
    for index in range(12):
        program = generate(5, index)
        if program is None:
            continue
        proposed = [c for c in candidates(program) if well_formed(c)]
        assert program not in proposed and len(proposed) > 5
        for candidate in proposed[:: max(1, len(proposed) // 20)]:
            error = run(function_of(candidate), candidate, 0).error
            assert not isinstance(error, (NameError, UnboundLocalError, SyntaxError))


def test_shrinking_ends_when_time_is_up() -> None:
    program = next(p for p in (generate(11, index) for index in range(50)) if p is not None)
    assert shrink(program, lambda candidate: True, enough=lambda: True) == program
