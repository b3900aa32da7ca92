"""`braze fuzz` on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from braze.cli import fuzz as module
from braze.cli.fuzz import fuzz
from braze.errors import BrazeError
from braze.inspect.fuzz.campaign import Plan
from braze.inspect.fuzz.generate import generate

FAULTY = "tests.inspect.fuzz.faulty_jobs"


def invoke(*arguments: str) -> Result:
    return CliRunner(env={"COLUMNS": "150"}).invoke(fuzz, arguments)


def faulty(monkeypatch: pytest.MonkeyPatch) -> int:
    """Let workers have a defect; the index of a program that meets it."""
    monkeypatch.setattr(Plan, "table", FAULTY)
    monkeypatch.setattr(Plan.__init__, "__defaults__", (*Plan.__init__.__defaults__[:-1], FAULTY))  # type: ignore[index]
    for index in range(5000):
        found = generate(0, index)
        if found is not None and "erf" in found.operators() and not {"sinh", "cosh"} & set(found.operators()):
            return index
    raise AssertionError("there is no such program")


def test_a_summary() -> None:
    result = invoke("--programs", "3", "--seed", "5", "--mode", "static")
    assert result.exit_code == 0, result.output
    assert "no faults" in result.output and "agrees" in result.output and "static 3" in result.output


def test_one_program_again() -> None:
    found = generate(5, 3)
    assert found is not None
    result = invoke("--repeat", "5:3")
    assert result.exit_code == 0, result.output
    assert found.source() in result.output and "agrees" in result.output


def test_a_fault_ends_with_one_and_is_shown_and_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = faulty(monkeypatch)
    result = invoke("--repeat", f"0:{index}", "--out", str(tmp_path))
    assert result.exit_code == 1, result.output
    (file,) = tmp_path.iterdir()
    assert file.read_text() in result.output and "torch.erf" in file.read_text()
    assert "fault" in result.output


@pytest.mark.parametrize("name", ["5", "a:b", "5:", "-1:2"])
def test_what_names_no_program(name: str) -> None:
    result = invoke(f"--repeat={name}")
    assert isinstance(result.exception, BrazeError) and "SEED:INDEX" in str(result.exception)


def test_the_modes_of_the_command_are_those_of_programs() -> None:
    assert invoke("--mode", "eager").exit_code == 2
    assert module.MODES == ("static", "dynamic", "gradients", "package")
