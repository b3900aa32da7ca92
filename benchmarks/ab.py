"""Two checkouts against each other: what a change costs or gains.

Each checkout has a process of its own, with the same torch, the same seeds and the same workloads (those of
this checkout); they take turns, and only one of them runs at a time. A ratio is the median over the turns of
the first one's time over the second one's in the same turn: above 1, the second is faster.

    git worktree add /tmp/before HEAD~20
    python -m benchmarks.ab /tmp/before .                     kernels and models: steady state, first call
    python -m benchmarks.ab /tmp/before . --only bert --rounds 61
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.common import (
    CONSOLE,
    ROOT,
    chosen,
    figure,
    geometric_mean,
    headline,
    parser,
    table,
    write_json,
)
from benchmarks.kernels import KERNELS
from tests.models import zoo


class Side:
    """The process of one checkout. Raises ``RuntimeError`` with its last words where it ends early."""

    def __init__(self, checkout: Path, threads: int) -> None:
        self.checkout = checkout
        self._cache = tempfile.TemporaryDirectory()
        path = os.pathsep.join([str(checkout / "src"), str(ROOT)])
        env = {**os.environ, "PYTHONPATH": path, "BRAZE_CACHE_DIR": self._cache.name}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.ab_child", str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env=env,
            text=True,
        )

    def ask(self, **request: Any) -> Any:
        """The answer to one request."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the process of {self.checkout} ended with status {self._process.wait()}")
        return json.loads(line)

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        self._cache.cleanup()


def measure(name: str, sides: tuple[Side, Side], options: Any) -> dict[str, Any]:
    """First compiles, steady times and their ratios of one workload."""
    first = [side.ask(prepare=name, quick=options.quick) for side in sides]
    turns: list[list[float]] = [[], []]
    for turn in range(options.rounds):
        order = (0, 1) if turn % 2 == 0 else (1, 0)
        for k in order:
            turns[k].append(sides[k].ask(seconds=options.seconds))
    ratios = [a / b for a, b in zip(*turns)]
    return {
        "name": name,
        "compile_before": first[0],
        "compile_after": first[1],
        "before": statistics.median(turns[0]),
        "after": statistics.median(turns[1]),
        "ratio": statistics.median(ratios),
    }


def main() -> int:
    options = parser(__doc__ or "", "ab")
    options.add_argument("before", type=Path, help="a checkout")
    options.add_argument("after", type=Path, help="another one")
    options.add_argument("--rounds", type=int, default=21, metavar="N", help="turns of both")
    options.add_argument("--seconds", type=float, default=0.05, metavar="S", help="what a turn takes")
    given = options.parse_args()
    if given.quick:
        given.rounds, given.seconds = min(given.rounds, 3), 0.005
    workloads = [*[k.name for k in KERNELS], *[m.name for m in zoo.MODELS]]
    names = chosen(workloads, given.only)
    headline("Two checkouts", f"{given.before} and {given.after}; above 1: the second is faster")
    rows: list[dict[str, Any]] = []
    sides = (Side(given.before.resolve(), given.threads), Side(given.after.resolve(), given.threads))
    try:
        for name in names:
            with CONSOLE.status(name):
                rows.append(measure(name, sides, given))
    finally:
        for side in sides:
            side.close()
    made = table("Two checkouts", "", "before ms", "after ms", "ratio", "first call before s", "after s")
    for r in rows:
        made.add_row(
            r["name"],
            figure(1e3 * r["before"], 3),
            figure(1e3 * r["after"], 3),
            figure(r["ratio"]),
            figure(r["compile_before"]),
            figure(r["compile_after"]),
        )
    CONSOLE.print(made)
    steady = geometric_mean([r["ratio"] for r in rows])
    compiling = geometric_mean([r["compile_before"] / r["compile_after"] for r in rows])
    CONSOLE.print(f"geometric means: steady {steady:.3f}, first call {compiling:.3f}")
    write_json(given.json, "ab", rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
