"""The demo: how it measures, what it shows, and what it does when one of its processes fails."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from rich.console import Console, RenderableType

from braze.cli import demo as command
from braze.cli import demo_measure, demo_view
from braze.cli.demo_measure import Measured, measure
from braze.errors import BrazeError

# Speaks the protocol of `demo_child` without torch: sys.argv is the way of running and the folder.
STAND_IN = """
import json, sys
import numpy as np
way, folder = sys.argv[1:]
def answer(**fields):
    print(json.dumps(fields), flush=True)
if way == "dies":
    sys.exit("it was not to be")
answer(event="ready")
np.save(f"{folder}/{way}.npy", np.full(3, 1.0 if way == "eager" else 1.25))
answer(event="first", seconds=0.5)
for line in sys.stdin:
    if line.startswith("round"):
        answer(event="round", ms=[2.0, 4.0, 3.0])
    else:
        answer(event="kernels", kernels=[], externs=[], fallbacks=[], graph_breaks=0)
"""


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    script = tmp_path / "child.py"
    script.write_text(STAND_IN)
    monkeypatch.setattr(demo_measure, "CHILD", (str(script),))
    return tmp_path


def shown(*parts: RenderableType) -> str:
    console = Console(file=io.StringIO(), width=110)
    for part in parts:
        console.print(part)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_it_measures_in_turns(stand_in: Path) -> None:
    rows = [Measured("eager", "eager PyTorch"), Measured("braze", "braze")]
    said: list[str] = []
    report = measure(rows, stand_in, said.append)
    assert report is not None and report["kernels"] == []
    for row in rows:
        assert (row.failed, row.first_seconds, row.per_call_ms) == (None, 0.5, 3.0)
        assert len(row.call_ms) == 3 * demo_measure.ROUNDS
    assert (rows[0].difference, rows[1].difference) == (0.0, 0.25)
    assert said[0] == "eager PyTorch: imports and builds the model" and len(said) == 6


def test_a_process_that_dies_is_reported(stand_in: Path) -> None:
    rows = [Measured("eager", "eager PyTorch"), Measured("dies", "the unlucky one")]
    assert measure(rows, stand_in, lambda _: None) is None
    assert rows[0].failed is None and rows[0].per_call_ms == 3.0
    assert rows[1].failed is not None and "it was not to be" in rows[1].failed
    assert rows[1].first_seconds is None and rows[1].difference is None


def test_the_whole_command(stand_in: Path) -> None:
    result = CliRunner().invoke(command.demo, ["--no-inductor"])
    assert result.exit_code == 0, result.output
    assert "eager PyTorch" in result.output and "2.5e-01" in result.output and "0.50 s" in result.output


def test_without_transformers_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command.importlib.util, "find_spec", lambda _: None)
    result = CliRunner().invoke(command.demo)
    assert isinstance(result.exception, BrazeError)
    assert 'pip install "braze[demo]"' in str(result.exception)


def test_the_kernel_table() -> None:
    def row(name: str, share: float, *operators: str) -> dict[str, Any]:
        cost = {"launches": 2, "microseconds": share * 1e3, "share": share}
        return {"name": name, "operators": operators, "source": "", **cost}

    report = {
        "kernels": [row(f"k{i}", 0.01, "add") for i in range(20)]
        + [row("softmax_add", 0.3, "softmax", "add")],
        "externs": [row("aten.addmm", 0.5)],
        "fallbacks": ["aten.odd: no [lowering]"],
        "graph_breaks": 1,
    }
    text = shown(demo_view.kernels(report))
    first_kernel = next(line for line in text.splitlines() if "%" in line)
    assert "softmax_add" in first_kernel and "30.0%" in first_kernel and "300 us" in first_kernel
    assert "9 smaller kernels" in text and "aten.addmm" in text
    assert "aten.odd: no [lowering]" in text and "graph breaks: 1" in text


def test_the_table_before_and_after() -> None:
    rows = [
        Measured("eager", "eager PyTorch"),
        Measured("braze", "braze"),
        Measured("inductor", "TorchInductor"),
    ]
    rows[1].now("calls it for the first time")
    assert "calls it for the first time, 0 s" in shown(demo_view.comparison(rows))
    for row, first, call in zip(rows, (0.1, 1.5, 12.0), (20.0, 10.0, 16.0)):
        row.first_seconds, row.call_ms, row.difference, row.doing = first, [call], 1e-6, "done"
    text = shown(demo_view.comparison(rows), demo_view.closing(rows, 42.0))
    assert "2.00x" in text and "10.00 ms" in text and "1.0e-06" in text
    assert "10.5 s" in text and "42 s" in text


@pytest.mark.serial
def test_a_real_process_measures_eager(tmp_path: Path) -> None:
    child = subprocess.run(
        [sys.executable, "-m", "braze.cli.demo_child", "eager", str(tmp_path)],
        input="round 0.01\n", capture_output=True, text=True, check=True,
    )  # fmt: skip
    events = [json.loads(line) for line in child.stdout.splitlines()]
    assert [event["event"] for event in events] == ["ready", "first", "round"]
    assert events[1]["seconds"] > 0 and len(events[2]["ms"]) >= 2
    assert np.isfinite(np.load(tmp_path / "eager.npy")).all()
