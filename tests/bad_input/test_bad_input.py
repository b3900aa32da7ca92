"""Wrong, empty and odd inputs: eager's behaviour, or a clear error; no crash."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import support
from tests.bad_input.cases import CASES, GRAPHS, Case, check, check_graph

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", autouse=True)
def nothing_crashes() -> None:
    """All cases in a process of their own, first: a crash fails these tests here instead of ending the
    session.
    """
    command = [sys.executable, "-X", "faulthandler", "-m", "tests.bad_input.cases"]
    environment = {**os.environ, "BRAZE_TEST_BACKEND": support.BACKEND}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    last = done.stdout.splitlines()[-1:]
    assert done.returncode >= 0, f"crashed with signal {-done.returncode} at {last}\n{done.stderr[-2000:]}"
    assert last, done.stderr[-2000:]
    assert last[0].startswith(f"{len(CASES) + len(GRAPHS)} cases"), (last, done.stderr[-2000:])


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_compiled_functions_do_what_eager_does(case: Case) -> None:
    check(case)


@pytest.mark.parametrize("case", GRAPHS, ids=lambda case: case.name)
def test_compiled_graphs_check_their_inputs(case: Case) -> None:
    check_graph(case)
