"""Cold compile: the first call in a fresh process with empty caches.

Measured from before `torch.compile` to the end of the first call, one-time initialisation included; torch
is imported and the model built before. For training, a call is the forward and the backward pass. Each run
is a process of its own; backends take turns.

    python -m benchmarks.compile_time                       models, the one-kernel function, the chain
    python -m benchmarks.compile_time --only bert --repeats 5
"""

from __future__ import annotations

import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

import torch

from benchmarks import kernels
from benchmarks.common import CONSOLE, ROOT, chosen, compiled, figure, headline, parser, table, write_json
from tests.models import zoo

FLOOR = "aot_eager"
ONE_KERNEL = "one kernel"
CHAIN_STEPS = (10, 25, 50, 100, 200)


def chain_name(steps: int) -> str:
    return f"chain {steps}"


def child(name: str, backend: str, size: zoo.Size, threads: int) -> None:
    """Runs in a process of its own: one first call, whose seconds are printed as the last line."""
    torch.set_num_threads(threads)
    if name == ONE_KERNEL or name.startswith("chain "):
        function = kernels.one_kernel if name == ONE_KERNEL else kernels.chain(int(name.split()[1]))
        z, c = kernels.chain_inputs()
        arguments = (z,) if name == ONE_KERNEL else (z, c)
        start = time.perf_counter_ns()
        compiled(function, backend)(*arguments)
    else:
        model = zoo.find(name)
        module, inputs = model.make(size)
        start = time.perf_counter_ns()
        zoo.run(model, compiled(module, backend), inputs)
    print(json.dumps((time.perf_counter_ns() - start) * 1e-9), flush=True)


def first_call(name: str, backend: str, size: str, threads: int, limit: float) -> float | str:
    """Seconds of a first call in a fresh process with empty caches, or what went wrong."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {
            **os.environ,
            "TORCHINDUCTOR_CACHE_DIR": f"{folder}/inductor",
            "BRAZE_CACHE_DIR": f"{folder}/braze",
            "TRITON_CACHE_DIR": f"{folder}/triton",
            "XDG_CACHE_HOME": f"{folder}/cache",
            "TMPDIR": folder,
            "HF_HUB_OFFLINE": "1",
        }
        arguments = [sys.executable, "-m", "benchmarks.compile_time", "--child", name, backend, size]
        try:
            done = subprocess.run(
                [*arguments, "--threads", str(threads)],
                cwd=ROOT,
                env=environment,
                capture_output=True,
                text=True,
                timeout=limit,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return f"more than {limit:.0f} s"
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        return f"failed: {lines[-1] if lines else done.returncode}"[:200]
    return float(json.loads(done.stdout.splitlines()[-1]))


def measure(name: str, backends: list[str], options: Any, size: str) -> dict[str, Any]:
    """Median seconds for each backend, or what went wrong."""
    times: dict[str, list[float]] = {backend: [] for backend in backends}
    row: dict[str, Any] = {"name": name}
    for turn in range(options.repeats):
        for backend in backends if turn % 2 == 0 else reversed(backends):
            if backend in row:
                continue
            with CONSOLE.status(f"{name}, {backend}, {turn + 1} of {options.repeats}"):
                seconds = first_call(name, backend, size, options.threads, options.limit)
            if isinstance(seconds, str):
                row[backend] = seconds
            else:
                times[backend].append(seconds)
    for backend, samples in times.items():
        row.setdefault(backend, statistics.median(samples) if samples else None)
    return row


def add_ratios(row: dict[str, Any], subject: str, against: str) -> None:
    """Adds the net times (minus the floor's), the ratio of the net ones, and the ratio to the floor."""
    floor, ours, theirs = (row.get(name) for name in (FLOOR, subject, against))
    numbers = {
        n: v for n, v in (("floor", floor), ("ours", ours), ("theirs", theirs)) if isinstance(v, float)
    }
    if "floor" in numbers and "ours" in numbers:
        row["net"] = numbers["ours"] - numbers["floor"]
        row["times_floor"] = numbers["ours"] / numbers["floor"]
        if "theirs" in numbers and numbers["theirs"] > numbers["floor"]:
            row["net_ratio"] = row["net"] / (numbers["theirs"] - numbers["floor"])


def shown(value: Any) -> str:
    return figure(value) if value is None or isinstance(value, float) else str(value)[:40]


def main() -> int:
    options = parser(__doc__ or "", "compile_time")
    options.add_argument("--repeats", type=int, default=3, metavar="N", help="processes for each figure")
    options.add_argument(
        "--limit", type=float, default=600.0, metavar="S", help="seconds that a process may take"
    )
    options.add_argument(
        "--child", nargs=3, metavar=("NAME", "BACKEND", "SIZE"), help="(for the benchmark itself)"
    )
    given = options.parse_args()
    if given.child:
        child(*given.child, threads=given.threads)
        return 0
    torch.set_num_threads(given.threads)
    size = "bench"
    chains = [chain_name(steps) for steps in CHAIN_STEPS]
    names = [ONE_KERNEL, *(model.name for model in zoo.MODELS), *chains]
    if given.quick:
        given.repeats, size = 1, "test"
        names = [ONE_KERNEL, *zoo.QUICK, *chains[:3]]
    names = chosen(names, given.only)
    headline(
        "Cold compile",
        f"seconds, median of {given.repeats} fresh processes with empty caches; net: minus {FLOOR}",
    )
    rows = []
    for name in names:
        backends = [FLOOR, given.subject]
        if not name.startswith("chain "):  # the chain takes others minutes, or for ever
            backends.append(given.against)
        row = measure(name, list(dict.fromkeys(backends)), given, size)
        add_ratios(row, given.subject, given.against)
        rows.append(row)
    columns = (FLOOR, given.subject, given.against)
    made = table("", "", *columns, "net", f"x {FLOOR}", f"net / {given.against}'s")
    for row in rows:
        figures = [shown(row.get(column)) for column in columns]
        ratio = row.get("net_ratio")
        made.add_row(
            row["name"],
            *figures,
            shown(row.get("net")),
            shown(row.get("times_floor")),
            f"1/{1 / ratio:.1f}" if ratio is not None and ratio > 0 else "-",
        )
    CONSOLE.print(made)
    steps = [
        (int(r["name"].split()[1]), r["net"]) for r in rows if r["name"].startswith("chain ") and "net" in r
    ]
    growth = [
        f"{1e3 * (slow - fast) / (high - low):.1f} ({low} to {high})"
        for (low, fast), (high, slow) in itertools.pairwise(steps)
    ]
    if growth:
        CONSOLE.print(f"chain, net milliseconds for each further step: {', '.join(growth)}")
    write_json(given.json, "compile_time", rows, subject=given.subject, against=given.against, size=size)
    return 0


if __name__ == "__main__":
    sys.exit(main())
