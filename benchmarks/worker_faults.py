"""Compiling while somebody kills the compile workers.

Small graphs, each another one, are compiled out of process and compared with eager, and workers are killed at
random moments of that. No call may hang, no result may be wrong: what two workers were lost with is compiled
in the process. Exits with 1 where a result is wrong.

    python -m benchmarks.worker_faults                    200 compiles, a kill in one of ten
    python -m benchmarks.worker_faults --compiles 50 --one-in 3
"""

from __future__ import annotations

import logging
import os
import random
import signal
import threading
import time
from collections.abc import Callable

import torch

from benchmarks.common import CONSOLE, figure, headline, parser, table, write_json
from braze import config
from braze.compile.out_of_process import OutOfProcessFxCompile
from braze.compile.workers import CompilePool
from braze.frontend.backend import make_backend


class InProcess(logging.Handler):
    """Counts the graphs that no worker compiled."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.count = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.count += "is compiled in this process" in record.getMessage()


class Killer:
    """Kills a worker of ``pool`` in the middle of one compile of ``one_in``."""

    def __init__(self, pool: CompilePool, one_in: int, seed: int) -> None:
        self.killed = 0
        self._pool, self._one_in, self._random = pool, one_in, random.Random(seed)

    def a_compile_begins(self) -> None:
        if self._random.randrange(self._one_in) == 0:
            timer = threading.Timer(self._random.uniform(0, 0.3), self._kill)
            timer.daemon = True
            timer.start()

    def _kill(self) -> None:
        pids = self._pool.worker_pids()
        if pids:
            os.kill(self._random.choice(pids), signal.SIGKILL)
            self.killed += 1


def function(number: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """Another graph for each number."""

    def compute(x: torch.Tensor) -> torch.Tensor:
        for i in range(1 + number % 4):
            x = torch.softmax(torch.tanh(x) * (1 + 0.01 * number), -1) + i
        return x.sum(0)

    return compute


def storm(compiles: int, one_in: int, workers: int, seed: int = 0) -> dict[str, float]:
    """What came of it: numbers of compiles, kills, graphs compiled here, wrong results; seconds of the median
    and the slowest first call."""
    handler = InProcess()
    logger = logging.getLogger("braze")
    logger.addHandler(handler)
    level, logger.level = logger.level, logging.INFO
    x = torch.randn(40, 50)
    wrong, seconds = 0, []
    with CompilePool(workers) as pool:
        backend = make_backend(OutOfProcessFxCompile(executor=pool))
        killer = Killer(pool, one_in, seed)
        for number in range(compiles):
            torch.compiler.reset()
            plain = function(number)
            killer.a_compile_begins()
            start = time.monotonic()
            with config.patch(cache=False):
                result = torch.compile(plain, backend=backend, dynamic=False)(x)
            seconds.append(time.monotonic() - start)
            wrong += not torch.allclose(result, plain(x), rtol=1.3e-6, atol=1e-5)
    logger.removeHandler(handler)
    logger.setLevel(level)
    seconds.sort()
    return {
        "compiles": compiles,
        "workers killed": killer.killed,
        "compiled in the process": handler.count,
        "wrong results": wrong,
        "median seconds": seconds[len(seconds) // 2],
        "slowest seconds": seconds[-1],
    }


def main() -> None:
    made = parser(__doc__ or "", "worker_faults")
    made.add_argument("--compiles", type=int, default=200)
    made.add_argument("--one-in", type=int, default=10, help="a worker is killed in one of so many compiles")
    made.add_argument("--workers", type=int, default=2)
    options = made.parse_args()
    compiles = 10 if options.quick else options.compiles
    headline(
        "Killed compile workers", f"{options.workers} workers, one killed in one of {options.one_in} compiles"
    )
    found = storm(compiles, options.one_in, options.workers)
    rows = table("", "", "found")
    for name, value in found.items():
        rows.add_row(name, figure(value, 2 if "seconds" in name else 0))
    CONSOLE.print(rows)
    write_json(options.json, "worker_faults", [found])
    raise SystemExit(found["wrong results"] > 0)


if __name__ == "__main__":
    main()
