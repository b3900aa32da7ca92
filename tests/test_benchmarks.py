"""The benchmarks measure what they say: timing by a clock of our own, and short runs of each
command.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import common, first_call, kernels
from braze.artifact import container
from braze.cache.keys import Key
from braze.cache.store import CacheStore

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
    monkeypatch.setattr("benchmarks.common.time.perf_counter_ns", lambda: made.nanoseconds)
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
    speed = iter([1.0] * 15 + [50.0] * 4 + [1.0] * 1000)
    calls = {"a": lambda: clock.work(1e-2 * next(speed)), "b": lambda: clock.work(1e-2)}
    samples = common.interleaved(calls, rounds=31, seconds=1e-3)
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


def test_the_fuser_is_measured_on_all_its_parts(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    options = ["--quick", "--json", str(file), "--subject", "aot_eager", "--against", "eager"]
    command = [sys.executable, "-m", "benchmarks.fuser", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads(file.read_text())["rows"]
    shapes = {row["name"]: row for row in rows if row["part"] == "shapes"}
    assert all(row["fallbacks"] == 0 and row["kernels"] <= 1 for row in shapes.values())
    assert shapes["ranks 1 to 5, contiguous"]["kernels"] == 0  # those of rank 3 have made it
    (threads,) = [row for row in rows if row["part"] == "threads"]
    assert threads["wrong"] == 0
    assert len([row for row in rows if row["part"] == "chains"]) == 6


def test_first_calls_are_taken_apart(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    ways = ["--way", "eager", "--way", "aot_eager"]
    command = [sys.executable, "-m", "benchmarks.first_call", "--quick", "--only", "mlp-train", *ways]
    done = subprocess.run(
        [*command, "--json", str(file)], cwd=ROOT, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (row,) = json.loads(file.read_text())["rows"]
    traced = row["ways"]["aot_eager"]
    assert 0 < traced["dynamo"] + traced["backend"] < traced["seconds"] == traced["samples"][0]
    assert "dynamo" not in row["ways"]["eager"]


def test_first_calls_are_held_against_what_is_promised() -> None:
    ways: dict[str, dict[str, Any]] = {
        "aot_eager": {"seconds": 1.0},
        "inductor": {"seconds": 2.0},
        "cold": {"seconds": 3.0},
        "warm": {"seconds": 1.0, "backend": 0.25, "loaded": 1, "graphs": 2},
        "level 1": {"seconds": 1.25, "backend": 0.75, "loaded": 2, "graphs": 2},
        "async": {"seconds": 1.5, "to_code": 6.0},
        "package": {"problem": "no such file"},
    }
    row = {"name": "demo", "ways": ways, **first_call.figures(ways)}
    assert row["aot_saved"] == 0.5
    held = {
        words.split(",")[0]: (value, value <= limit) for words, value, limit in first_call.verdicts([row])
    }
    assert held == {
        "warm / TorchInductor's warm": (0.5, True),
        "level 1 beyond aot_eager": (0.25, False),
        "async / aot_eager": (1.5, False),
        "time to compiled code / cold": (2.0, False),
    }
    assert first_call.misses(row) == [
        "demo: warm: 1 of 2 graphs were in the cache",
        "demo: package: no such file",
    ]
    assert first_call.figures({"warm": {"seconds": 1.0}}) == {}


def test_the_sizes_of_artefacts_are_whole(tmp_path: Path) -> None:
    """What is told apart adds up to the file, less its header and table."""
    parts = {"metadata": b"m" * 5000, "v0/m0.o": bytes(range(256)) * 40, "v0/m0.src": b"define " * 900}
    payload = container.pack(parts, compress=["metadata", "v0/m0.src"])
    store = CacheStore(tmp_path)
    key = Key.of({"graph": "g"})
    assert store.put(key, payload, name="g", kind="inference", level=1)
    assert store.put(key, b"another level", name="g", kind="inference", level=2)
    found = first_call.sizes(tmp_path)
    assert (found["level 1"], found["level 2"], found["code"]) == (len(payload), 13, 256 * 40)
    assert 0 < found["ir"] < 6300 and 0 < found["metadata"] < 5000
    assert 0 <= len(payload) - found["code"] - found["ir"] - found["metadata"] < 700
    first_call.strip(tmp_path)
    assert [entry.level for entry in store.entries()] == [1]


def test_two_checkouts_take_turns(tmp_path: Path) -> None:
    """This checkout against itself."""
    file = tmp_path / "figures.json"
    command = [sys.executable, "-m", "benchmarks.ab", ".", ".", "--quick", "--only", "bf16 chain 4M"]
    done = subprocess.run(
        [*command, "--json", str(file)], cwd=ROOT, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (row,) = json.loads(file.read_text())["rows"]
    assert row["before"] > 0 and row["after"] > 0 and row["ratio"] > 0
    assert row["compile_before"] > row["before"] and row["compile_after"] > row["after"]
