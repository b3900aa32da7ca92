"""Packages: how long they take to make and to load, and how large they are.

Compiled for the two default targets, or those that are given. Loading is measured in fresh processes, from
a warm file system: "load" is `aot_load` alone with torch, llvmlite and Braze imported, "mapped" the same
without reading all weights to check them, "first call" what follows.

    python -m benchmarks.packages
    python -m benchmarks.packages --only bert --only resnet18 --size test
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import torch

import braze
from benchmarks.common import CONSOLE, ROOT, chosen, figure, headline, parser, table, write_json
from braze.artifact.package import WEIGHTS, open_package
from tests.models import zoo

LIMIT_MS = 50.0
CHILD = """
import json, sys, time
import torch, llvmlite.binding
import braze
path, verify = sys.argv[1], sys.argv[2] == "verified"
load = braze.aot_load
inputs = torch.load(path + ".inputs", weights_only=True)
start = time.perf_counter()
model = load(path, verify_weights=verify)
loaded = time.perf_counter()
model(**inputs)
print(json.dumps([loaded - start, time.perf_counter() - loaded]))
"""


def once(path: Path, how: str) -> tuple[float, float]:
    """Seconds of loading and of the first call, in a process of their own."""
    command = [sys.executable, "-c", CHILD, str(path), how]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, timeout=300)
    load, call = json.loads(done.stdout)
    return load, call


def row(name: str, size: zoo.Size, targets: tuple[str, ...], rounds: int, folder: Path) -> dict[str, Any]:
    """The figures of one model: seconds, and bytes."""
    model = zoo.find(name)
    module, inputs = model.make(size)
    path = folder / f"{name}.pt2"
    with model.context():
        start = time.perf_counter()
        program = torch.export.export(module, (), inputs, strict=False)
        exported = time.perf_counter()
        braze.aot_compile(program, path, targets)
        compiled = time.perf_counter()
    torch.save(inputs, f"{path}.inputs")
    verified = [once(path, "verified") for _ in range(rounds)]
    mapped = [once(path, "mapped") for _ in range(rounds)]
    members = open_package(path).members
    weights = members[WEIGHTS].size if WEIGHTS in members else 0
    return {
        "name": name,
        "export": exported - start,
        "compile": compiled - exported,
        "bytes": path.stat().st_size,
        "weights": weights,
        "load": statistics.median(load for load, _ in verified),
        "mapped": statistics.median(load for load, _ in mapped),
        "first_call": statistics.median(call for _, call in mapped),
    }


def main() -> int:
    options = parser(__doc__ or "", "packages")
    options.add_argument("--size", choices=("tiny", "test", "bench"), default="bench")
    options.add_argument("--targets", nargs="+", default=["x86-64-v3", "x86-64-v4"], metavar="CPU")
    options.add_argument("--rounds", type=int, default=5, metavar="N", help="processes for each figure")
    given = options.parse_args()
    names = [model.name for model in zoo.MODELS if model.kind == "inference"]
    rounds = 1 if given.quick else given.rounds
    headline("Packages", f"for {' and '.join(given.targets)}; medians of {rounds} processes")
    columns = ["export s", "compile s", "weights MB", "the rest MB", "load ms", "mapped ms", "first call ms"]
    made = table("", "", *columns)
    rows = []
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in chosen(names, given.only):
            with CONSOLE.status(name):
                r = row(name, given.size, tuple(given.targets), rounds, Path(folder))
            rows.append(r)
            made.add_row(
                name,
                *[figure(r[key]) for key in ("export", "compile")],
                *[figure(n / 1e6, 1) for n in (r["weights"], r["bytes"] - r["weights"])],
                *[figure(1e3 * r[key], 1) for key in ("load", "mapped", "first_call")],
            )
    CONSOLE.print(made)
    write_json(given.json, "packages", rows)
    return 0 if all(1e3 * r["mapped"] <= LIMIT_MS for r in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
