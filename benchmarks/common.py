"""What the benchmarks share: timing, options, tables and JSON."""

from __future__ import annotations

import argparse
import gc
import json
import math
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[1]
CONSOLE = Console()
if not CONSOLE.is_terminal:
    CONSOLE = Console(width=150)  # tables that go to a file or a log need not fit a window
Call = Callable[[], Any]


def parser(doc: str, module: str) -> argparse.ArgumentParser:
    """The options that all benchmarks have."""
    made = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{module}",
        description=doc,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--only", action="append", metavar="NAME", help="only this one; may be repeated")
    made.add_argument("--quick", action="store_true", help="few repetitions and small sizes: is it working?")
    made.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file as well")
    made.add_argument("--threads", type=int, default=os.cpu_count() or 1, metavar="N", help="torch threads")
    made.add_argument("--subject", default="braze", metavar="BACKEND", help="what is measured (%(default)s)")
    made.add_argument(
        "--against", default="inductor", metavar="BACKEND", help="what it is compared with (%(default)s)"
    )
    return made


def chosen(names: Sequence[str], only: Sequence[str] | None) -> list[str]:
    """The names that --only asks for, or all. Raises SystemExit with the names there are for an unknown
    one.
    """
    unknown = [name for name in only or () if name not in names]
    if unknown:
        raise SystemExit(f"unknown: {', '.join(unknown)}; there are {', '.join(names)}")
    return [name for name in names if not only or name in only]


def write_json(path: Path | None, benchmark: str, rows: Sequence[Mapping[str, Any]], **more: Any) -> None:
    """Rows of figures with what they were measured on. Not-a-number becomes null."""
    if path is None:
        return
    content = {"benchmark": benchmark, "machine": machine(), **more, "rows": [_plain(row) for row in rows]}
    path.write_text(json.dumps(content, indent=2) + "\n")
    CONSOLE.print(f"[dim]written to {path}[/dim]")


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}


def machine() -> dict[str, Any]:
    """The machine and the versions, for a file of figures."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = lines[0].split(":", 1)[1].strip() if lines else model
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def compiled(function: Callable[..., Any], backend: str, **options: Any) -> Callable[..., Any]:
    """`torch.compile` as people call it, with its defaults; "eager" is the function itself."""
    if backend == "eager":
        return function
    made: Callable[..., Any] = torch.compile(function, backend=backend, **options)
    return made


def headline(title: str, note: str = "") -> None:
    """What is measured, and on what."""
    m = machine()
    CONSOLE.print(f"[bold]{title}[/bold]  [dim]{m['cpu']}, {m['threads']} threads, torch {m['torch']}[/dim]")
    if note:
        CONSOLE.print(f"[dim]{note}[/dim]")


def table(title: str, *columns: str, left: int = 1) -> Table:
    """A table whose first `left` columns are text and whose others are figures."""
    made = Table(title=title or None, title_justify="left", header_style="bold")
    for position, column in enumerate(columns):
        made.add_column(column, justify="left" if position < left else "right", no_wrap=position < left)
    return made


def figure(value: float | None, digits: int = 2, unit: str = "") -> str:
    """A number for a table; a dash where there is none."""
    if value is None or not math.isfinite(value):
        return "-"
    return f"{value:.{digits}f}{unit}"


def loops_for(call: Call, seconds: float) -> int:
    """How many calls in a row take about `seconds`, at least 1. The call should be warm."""
    count = 1
    while True:
        elapsed = _time_once(call, count)
        if elapsed >= seconds / 2 or count >= 1 << 20:
            return max(1, round(count * seconds / max(elapsed, 1e-9)))
        count *= 2 if elapsed <= 0 else max(2, min(16, int(seconds / elapsed)))


def _time_once(call: Call, count: int) -> float:
    start = time.perf_counter_ns()
    for _ in range(count):
        call()
    return (time.perf_counter_ns() - start) * 1e-9


def interleaved(calls: Mapping[str, Call], rounds: int, seconds: float) -> dict[str, list[float]]:
    """Seconds per call of each contestant in each round.

    In a round every contestant runs for about `seconds`, one after the other, so that what disturbs the
    machine disturbs them all; the order turns by one place with each round, so that nobody always follows
    the same neighbour. Garbage is collected between rounds and not in them.
    """
    for call in calls.values():
        for _ in range(3):
            call()
    counts = {name: loops_for(call, seconds) for name, call in calls.items()}
    names = list(calls)
    samples: dict[str, list[float]] = {name: [] for name in names}
    enabled = gc.isenabled()
    try:
        for turn in range(rounds):
            gc.collect()
            gc.disable()
            # Forwards and backwards in turn as well: with two contestants, a rotation alone would do the
            # same.
            order = names[turn % len(names) :] + names[: turn % len(names)]
            for name in order if (turn // len(names)) % 2 == 0 else reversed(order):
                samples[name].append(_time_once(calls[name], counts[name]) / counts[name])
            if enabled:
                gc.enable()
    finally:
        if enabled:
            gc.enable()
    return samples


def median_ratio(samples: Mapping[str, Sequence[float]], slow: str, fast: str) -> float | None:
    """The median over rounds of `slow`'s time over `fast`'s: how many times as fast `fast` is."""
    if slow not in samples or fast not in samples:
        return None
    return statistics.median(s / f for s, f in zip(samples[slow], samples[fast], strict=True))


def geometric_mean(values: Sequence[float]) -> float:
    """The geometric mean; NaN of nothing."""
    return math.exp(statistics.fmean(map(math.log, values))) if values else math.nan
