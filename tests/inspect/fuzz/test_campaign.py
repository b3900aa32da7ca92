"""Campaigns: workers that find a defect, die and hang; and a fixed one that finds nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from braze.inspect.fuzz.campaign import Account, Plan, Session, run_plan
from braze.inspect.fuzz.generate import generate
from braze.inspect.fuzz.program import Program
from tests.inspect.fuzz.programs import program, statement, tensor

COMPILED = ("static", "dynamic", "gradients")
FAULTY = Plan(modes=COMPILED, table="tests.inspect.fuzz.faulty_jobs", limit=8.0, shrink_seconds=60.0)


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    one = Session(FAULTY)
    yield one
    one.close()


def index_of(operator: str, *, without: tuple[str, ...] = ()) -> tuple[int, Program]:
    """The first program of seed 0 that returns what an operator gives, and in which others are not."""
    for index in range(5000):
        found = generate(0, index)
        if found is None or set(without) & set(found.operators()):
            continue
        if any(s.operator == operator and set(s.results) & set(found.outputs) for s in found.statements):
            return index, found
    raise AssertionError(f"there is no program with {operator}")


def test_a_defect_of_a_lowering_is_found_and_shrunk(session: Session) -> None:
    one = program(
        [tensor("x", (5, 7)), tensor("y", (7,))],
        [statement("a", "add", "x", "y"), statement("b", "erf", "a"), statement("c", "mul", "b", 2.0),
         statement("d", "sum", "c", 1, False), statement("e", "cos", "y")],
        "d", "e", "b",
    )  # fmt: skip
    verdict = session.check(one)
    assert verdict.fault is not None and verdict.fault.kind == "value"
    small, fault = session.shrunk(one, verdict.fault)
    assert small.operators() == ("erf",) and len(small.inputs) == 1
    assert fault.kind == "value"


@pytest.mark.parametrize(
    ("operator", "kind", "said"), [("sinh", "crash", "sinh is cursed"), ("cosh", "hang", "did not answer")]
)
def test_a_worker_that_is_lost_is_a_fault_of_its_program(
    session: Session, operator: str, kind: str, said: str
) -> None:
    index, one = index_of(operator, without=("cosh", "sinh", "erf") if operator == "none" else ())
    explored = session.explore(index)
    assert explored.program is not None and explored.program.to_bytes() == one.to_bytes()
    assert explored.verdict is not None
    fault = explored.verdict.fault
    assert fault is not None and fault.kind == kind and said in fault.text
    calm = session.check(program([tensor("x", (3,))], [statement("a", "sin", "x")], "a"))
    assert calm.status == "agrees", "another worker goes on"


def test_faults_are_written_as_scripts_and_counted(tmp_path: Path) -> None:
    index, one = index_of("erf", without=("sinh", "cosh"))
    told: list[str] = []
    plan = dataclasses.replace(FAULTY, first=index, programs=1, out=tmp_path)
    account = run_plan(plan, lambda _, words: told.append(words))
    (finding,) = account.findings
    assert account.statuses["fault"] == 1 and finding.original.to_bytes() == one.to_bytes()
    assert "erf" in finding.program.operators()
    assert finding.path is not None and finding.path.read_text() == finding.script()
    assert f"braze fuzz --repeat 0:{index}" in finding.script()
    assert any(words.startswith(f"0:{index}") for words in told)
    assert len(account.kinds()) == 1


def test_modes_and_numbers_of_programs_are_kept() -> None:
    account = run_plan(Plan(seed=3, modes=("gradients",), programs=4), lambda *_: None)
    assert set(account.modes) == {"gradients"}
    assert account.programs + account.statuses["nothing drawn"] == 4


def test_time_ends_it() -> None:
    account = run_plan(Plan(minutes=1e-6), lambda *_: None)
    assert isinstance(account, Account) and account.programs <= 1


def test_a_fixed_campaign_finds_nothing() -> None:
    account = run_plan(Plan(seed=3, modes=COMPILED, first=380, programs=40), lambda *_: None)
    assert not account.findings, "\n".join(finding.script() for finding in account.findings)
    assert account.programs >= 36 and account.statuses["undecidable"] <= 1
