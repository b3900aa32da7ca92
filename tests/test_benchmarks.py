"""The benchmarks measure what they say: timing by a clock of our own, and short runs of each
command.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from benchmarks import common, kernels

ROOT = Path(__file__).parents[1]


class Clock:
    """A clock that only moves when somebody works."""

    def __init__(self) -> None:
        self.nanoseconds = 0

    def work(self, seconds: float) -> None:
        self.nanoseconds += round(seconds * 1e9)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(common.time, "perf_counter_ns", lambda: made.nanoseconds)
    return made


def test_ratios_are_those_of_the_contestants(clock: Clock) -> None:
    order: list[str] = []

    def contestant(name: str, seconds: float) -> Callable[[], None]:
        def call() -> None:
            order.append(name)
            clock.work(seconds)

        return call

    calls = {"slow": contestant("slow", 2e-3), "fast": contestant("fast", 1e-3)}
    samples = common.interleaved(calls, rounds=8, seconds=4e-3)
    assert samples["slow"] == pytest.approx([2e-3] * 8)
    assert samples["fast"] == pytest.approx([1e-3] * 8)
    assert common.median_ratio(samples, "slow", "fast") == pytest.approx(2.0)
    assert common.median_ratio(samples, "slow", "absent") is None
    # Two calls of the slow one and four of the fast one make a turn, and each goes first as often as the
    # other.
    turns = [order[-6 * turn : len(order) - 6 * (turn - 1)] for turn in range(8, 0, -1)]
    assert [turn[0] for turn in turns].count("slow") == 4
    assert all(turn.count("slow") == 2 and turn.count("fast") == 4 for turn in turns)


def test_a_disturbed_turn_does_not_move_the_median(clock: Clock) -> None:
    speed = iter([1.0] * 100 + [50.0] * 4 + [1.0] * 1000)
    calls = {"a": lambda: clock.work(1e-2 * next(speed)), "b": lambda: clock.work(1e-2)}
    samples = common.interleaved(calls, rounds=201, seconds=1e-3)
    assert max(samples["a"]) == pytest.approx(0.5)
    assert common.median_ratio(samples, "a", "b") == pytest.approx(1.0)


def test_quick_calls_are_repeated(clock: Clock) -> None:
    assert common.loops_for(lambda: clock.work(1e-5), 5e-3) == 500
    assert common.loops_for(lambda: clock.work(1e-2), 1e-3) == 1


def test_geometric_mean() -> None:
    assert common.geometric_mean([2.0, 8.0]) == pytest.approx(4.0)


def test_an_unknown_name_is_refused_with_the_names_there_are() -> None:
    assert common.chosen(["a", "b"], ["b"]) == ["b"]
    with pytest.raises(SystemExit, match="there are a, b"):
        common.chosen(["a", "b"], ["c"])


@pytest.mark.parametrize("kernel", kernels.KERNELS, ids=lambda kernel: kernel.name)
def test_kernels_run_and_their_traffic_is_counted(kernel: kernels.Kernel) -> None:
    inputs = kernel.inputs(1 / 256)
    again = kernel.inputs(1 / 256)
    assert all(torch.equal(one, other) for one, other in zip(inputs, again))
    assert kernel.traffic(inputs) > sum(tensor.numel() * tensor.element_size() for tensor in inputs)


def test_the_chain_stays_finite() -> None:
    z, c = kernels.chain_inputs()
    assert torch.isfinite(kernels.chain(200)(z, c)).all()


@pytest.mark.parametrize(
    ("module", "name", "keys"),
    [
        ("overhead", "kernel of 8 elements", {"eager", "ratio", "limit"}),
        ("steady_state", "sum dim 1 4096x4096", {"seconds", "against", "eager", "bytes", "share"}),
        ("compile_time", "one kernel", {"aot_eager", "net", "times_floor"}),
        ("import_time", "a cache hit", {"own", "processor", "collector"}),
    ],
)
def test_commands_write_their_figures(module: str, name: str, keys: set[str], tmp_path: Path) -> None:
    """Against eager, with a backend that comes with torch, so that no compiler of any kind is measured."""
    file = tmp_path / "figures.json"
    options = ["--quick", "--only", name, "--json", str(file), "--subject", "aot_eager", "--against", "eager"]
    command = [sys.executable, "-m", f"benchmarks.{module}", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode in (0, 1), done.stdout + done.stderr  # 1: slower than promised, as it well may be
    (row,) = json.loads(file.read_text())["rows"]
    assert row["name"] == name
    assert keys <= set(row)
