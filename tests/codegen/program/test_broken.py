"""Programs that a hand has broken: the verifier, or a run of the interpreter, says so, without LLVM."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from braze.codegen.program.grammar import (
    Assign,
    Barrier,
    Bind,
    Const,
    For,
    Load,
    Store,
    Tail,
    walk,
)
from braze.codegen.program.interpreter import run_program
from braze.codegen.program.program import Program
from braze.codegen.program.verifier import verify_program
from braze.errors import InternalError
from braze.ops.interpreter import interpret
from braze.ops.kernel import Kernel
from tests.codegen.llvm.kernels import guarded
from tests.codegen.llvm.test_reductions import data_for, reduce_kernel
from tests.codegen.program.test_programs import program_of

THREADS = 2
ROWS = reduce_kernel("sum", (3,), (37,))
LONG = reduce_kernel("sum", (2,), (9001,))
SPLIT = reduce_kernel("max", (), (200_001,))


def wrong_tail(program: Program) -> None:
    """A lane more than there is."""
    for s in walk(program.body):
        if isinstance(s, Tail):
            s.count = s.count + 1


def no_mask(program: Program) -> None:
    """Loads of lanes that are not there."""
    for s in walk(program.body):
        if isinstance(s, Load | Store):
            s.mask = None


def wrong_strip(program: Program) -> None:
    """Strips that overlap by one iteration."""
    for s in walk(program.body):
        if isinstance(s, For) and s.symbol.name.startswith("strip"):
            s.step -= 64


def short_strip(program: Program) -> None:
    """The end of a strip comes too early."""
    for s in walk(program.body):
        if isinstance(s, Bind) and s.symbol.name.startswith("end"):
            s.value = s.value - 64


def wrong_identity(program: Program) -> None:
    """Sums that begin with 1."""
    for s in walk(program.body):
        if isinstance(s, Assign) and isinstance(s.value, Const):
            s.value = Const(1.0, s.value.dtype, s.value.lanes)


def no_barrier(program: Program) -> None:
    """Partial results are read while others still write theirs."""
    program.body[:] = [s for s in program.body if not isinstance(s, Barrier)]


def used_early(program: Program) -> None:
    """A value is used before it is there."""
    for s in walk(program.body):
        if isinstance(s, For) and len(s.body) > 1 and isinstance(s.body[0], Load):
            s.body.append(s.body.pop(0))


def twice(program: Program) -> None:
    """A value is defined twice."""
    for s in walk(program.body):
        if isinstance(s, For) and isinstance(s.body[0], Load):
            s.body.insert(0, s.body[0])
            return


def half_inside(program: Program) -> None:
    """A barrier in a loop, which some threads may not enter."""
    loop = next(s for s in walk(program.body) if isinstance(s, For))
    loop.body.append(Barrier())


BREAKS: list[tuple[Callable[[Program], None], Kernel, str, str]] = [
    (wrong_tail, ROWS, "no mask says so", "elements"),
    (no_mask, ROWS, "no mask says so", "elements"),
    (wrong_strip, LONG, "", "wrong values"),
    (short_strip, LONG, "", "wrong values"),
    (wrong_identity, ROWS, "", "wrong values"),
    (no_barrier, SPLIT, "no barrier stands between", "wrong values"),
    (used_early, ROWS, "has no value here", "has no value"),
    (twice, ROWS, "is defined twice", ""),
    (half_inside, SPLIT, "not every thread is sure to reach it", "Barrier"),
]


def difference(kernel: Kernel, program: Program) -> str:
    """What a run of ``program`` shows against the reference interpreter; nothing where they agree."""
    torch.manual_seed(0)
    buffers = data_for(kernel)
    expected = {n: t.clone() for n, t in buffers.items()}
    interpret(kernel, expected)
    actual = {n: guarded(t) for n, t in buffers.items()}
    try:
        run_program(program, actual, {}, THREADS)
    except (InternalError, KeyError) as e:
        return str(e)
    same = all(torch.allclose(actual[n], expected[n], rtol=1e-4, atol=1e-4) for n in expected)
    return "" if same else "wrong values"


@pytest.mark.parametrize(("damage", "kernel", "verified", "ran"), BREAKS, ids=[b[0].__name__ for b in BREAKS])
def test_a_broken_program_is_found(
    damage: Callable[[Program], None], kernel: Kernel, verified: str, ran: str
) -> None:
    whole = program_of(kernel, 16, True)
    assert difference(kernel, whole) == ""
    program = replace(whole)
    damage(program)
    if verified:
        with pytest.raises(InternalError, match=verified):
            verify_program(program)
    else:
        verify_program(program)
    if ran:
        assert ran in difference(kernel, program)
