"""What importing Braze costs where code is loaded and not compiled: beyond torch and llvmlite.

Each figure is the median over fresh processes. "own" is what the imports take by themselves, "processor" that
in processor time, which does not grow when others keep the machine busy and which is what counts. The garbage
collector may decide in the middle of the imports to go through everything that torch has made, which takes
longer than they do and would have come with the next few thousand objects of anybody: it stands beside them.

    python -m benchmarks.import_time
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from typing import Any

from benchmarks.common import CONSOLE, chosen, figure, headline, parser, table, write_json

LIMIT_MS = 30.0
WHAT = {
    "a cache hit": ["braze.runtime.callgen", "braze.artifact.compiled_graph", "braze.cache.store"],
    "aot_load": ["braze.artifact.aot_load"],
    "all of runtime, artifact and cache": ["*"],
}

CHILD = """
import gc, importlib, json, pkgutil, sys, time

def timed(names):
    spent = {"wall": 0.0, "cpu": 0.0, "full": 0}
    def watch(phase, info):
        sign = -1 if phase == "start" else 1
        spent["wall"] += sign * time.perf_counter()
        spent["cpu"] += sign * time.thread_time()
        spent["full"] += phase == "stop" and info["generation"] == 2
    before = len(sys.modules)
    gc.callbacks.append(watch)
    cpu, wall = time.thread_time(), time.perf_counter()
    for name in names:
        importlib.import_module(name)
    wall, cpu = time.perf_counter() - wall, time.thread_time() - cpu
    gc.callbacks.remove(watch)
    return {"total": wall, "own": wall - spent["wall"], "cpu": cpu - spent["cpu"],
            "collector": spent["wall"], "full": spent["full"], "modules": len(sys.modules) - before}

names = json.loads(sys.argv[1])
result = {"torch": timed(["torch"]), "llvmlite": timed(["llvmlite.binding"])}
if names == ["*"]:
    import braze  # its rooms are looked through before the clock starts
    names = [m.name for room in ("runtime", "artifact", "cache")
             for m in pkgutil.iter_modules([f"{braze.__path__[0]}/{room}"], f"braze.{room}.")]
result["braze"] = timed(names)
print(json.dumps(result))
"""


def once(names: list[str], pycache: str) -> dict[str, dict[str, float]]:
    """The figures of one fresh process, in seconds."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPYCACHEPREFIX"] = pycache
    done = subprocess.run(
        [sys.executable, "-c", CHILD, json.dumps(names)],
        env=environment, capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    made: dict[str, dict[str, float]] = json.loads(done.stdout)
    return made


def row(name: str, rounds: int, pycache: str) -> dict[str, Any]:
    """Medians in milliseconds. ``own``: less garbage collection."""
    once(WHAT[name], pycache)  # writes the byte code
    runs = [once(WHAT[name], pycache) for _ in range(rounds)]

    def median(part: str, key: str) -> float:
        return 1e3 * statistics.median(r[part][key] for r in runs)

    return {
        "name": name,
        "own": median("braze", "own"),
        "processor": median("braze", "cpu"),
        "collector": median("braze", "collector"),
        "full_collections": statistics.median(r["braze"]["full"] for r in runs),
        "modules": runs[0]["braze"]["modules"],
        "torch": median("torch", "total"),
        "llvmlite": median("llvmlite", "own"),
        "limit": LIMIT_MS,
        "good": median("braze", "cpu") <= LIMIT_MS,
    }


def main() -> int:
    options = parser(__doc__ or "", "import_time")
    options.add_argument("--rounds", type=int, default=9, metavar="N", help="fresh processes for each row")
    given = options.parse_args()
    rounds = 3 if given.quick else given.rounds
    headline("Import", f"milliseconds, medians of {rounds} fresh processes; torch and llvmlite come first")
    with tempfile.TemporaryDirectory() as pycache:
        rows = []
        for name in chosen(list(WHAT), given.only):
            with CONSOLE.status(name):
                rows.append(row(name, rounds, pycache))
    columns = [
        "own ms",
        "processor ms",
        "collector ms",
        "modules",
        "torch ms",
        "llvmlite ms",
        "at most",
        "enough",
    ]
    made = table("", "", *columns)
    for r in rows:
        times = [figure(r[key], 1) for key in ("own", "processor", "collector")]
        beside = [figure(r[key], 0) for key in ("torch", "llvmlite", "limit")]
        mark = "[green]yes[/green]" if r["good"] else "[red]no[/red]"
        made.add_row(r["name"], *times, str(r["modules"]), *beside, mark)
    CONSOLE.print(made)
    write_json(given.json, "import_time", rows)
    return 0 if all(r["good"] for r in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
