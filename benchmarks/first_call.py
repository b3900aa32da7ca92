"""First calls: cold, from a cache, in the background, from a package.

Each first call is made by a process of its own, and the ways take turns. The clock runs from `torch.compile`
to the end of the call (for training: of the backward pass); torch, transformers and llvmlite are imported and
the model is built before, the backend is imported while it runs.

    python -m benchmarks.first_call
    python -m benchmarks.first_call --only bert --only mlp-train --repeats 5
    python -m benchmarks.first_call --way aot_eager --way inductor --way warm
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

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
from benchmarks.first_call_child import DEMO
from braze.artifact import container
from braze.cache.store import CacheStore
from braze.errors import ArtifactError
from tests.models import zoo

# Way -> what it is. `inductor` and `warm` find what a process before them has left in their caches.
WAYS = {
    "eager": "no compiler",
    "aot_eager": "traced, run by eager operators",
    "inductor cold": "TorchInductor, its cache empty",
    "inductor": "TorchInductor, its cache filled",
    "cold": "Braze, its cache empty",
    "warm": "Braze, both levels of its cache filled",
    "level 1": "Braze, level 1 filled, level 2 empty",
    "async": "Braze, eager operators first; to code: until compiled code has taken over",
    "progressive": "Braze, quick code first; to code: until better code has taken over",
    "package": "Braze, aot_load and a call",
}
MODES = {"async": "async", "progressive": "progressive"}
WARM_LIMIT = 0.8
LEVEL_1_LIMIT = 0.1
ASYNC_LIMIT = 1.2
TO_CODE_LIMIT = 1.5
Answer = dict[str, Any]


@dataclass(frozen=True)
class Contest:
    """One model, the folder with its caches, and how its processes are started."""

    model: str
    size: str
    folder: Path
    subject: str
    against: str
    threads: int
    limit: float
    busy: bool

    def run(self, way: str) -> Answer | str:
        """What one process of a way answers, or what went wrong."""
        with tempfile.TemporaryDirectory(dir=self.folder) as fresh:
            empty = Path(fresh)
            backends = {"inductor cold": self.against, "inductor": self.against}
            backend = way if way in ("eager", "aot_eager") else backends.get(way, self.subject)
            if way == "package":
                return self._child(empty, empty, empty, "load", str(self._package))
            if way == "level 1":
                strip(self.folder / "level 1")
            braze = self.folder / way if way in ("warm", "level 1") else empty
            inductor = self.folder / way if way == "inductor" else empty
            # it keeps more than its cache where temporary files are
            temporary = self.folder / "temporary" if way == "inductor" else empty
            options = [json.dumps({"fx_compile_mode": MODES[way]})] if way in MODES else []
            return self._child(braze, inductor, temporary, "call", backend, *options)

    def fill(self, ways: Sequence[str]) -> dict[str, Answer | str]:
        """Fill the caches that these ways find full; what the processes answered that did it, by way."""
        done: dict[str, Answer | str] = {}
        with tempfile.TemporaryDirectory(dir=self.folder) as fresh:
            empty = Path(fresh)
            if {"warm", "level 1"} & set(ways):
                done["cold"] = self._child(self.folder / "warm", empty, empty, "call", self.subject)
                shutil.copytree(self.folder / "warm", self.folder / "level 1")
            if "inductor" in ways:
                done["inductor cold"] = self._child(
                    empty, self.folder / "inductor", self.folder / "temporary", "call", self.against
                )
            if "package" in ways:
                done["pack"] = self._child(empty, empty, empty, "pack", str(self._package))
        return done

    @property
    def _package(self) -> Path:
        return self.folder / "model.pt2"

    def _child(self, braze: Path, inductor: Path, temporary: Path, what: str, *rest: str) -> Answer | str:
        for folder in (braze, inductor, temporary):
            folder.mkdir(mode=0o700, exist_ok=True)
        environment = {
            **{name: value for name, value in os.environ.items() if name != "BRAZE_REMOTE_CACHE"},
            "BRAZE_CACHE": "1",
            "BRAZE_CACHE_DIR": str(braze),
            "TORCHINDUCTOR_CACHE_DIR": str(inductor),
            "TRITON_CACHE_DIR": str(temporary / "triton"),
            "XDG_CACHE_HOME": str(temporary / "cache"),
            "TMPDIR": str(temporary),
            "HF_HUB_OFFLINE": "1",
            "FIRST_CALL_THREADS": str(self.threads),
            **({"FIRST_CALL_BUSY": "1"} if self.busy else {}),
        }
        command = [sys.executable, "-m", "benchmarks.first_call_child", what, self.model, self.size, *rest]
        try:
            done = subprocess.run(
                command,
                cwd=ROOT,
                env=environment,
                capture_output=True,
                text=True,
                timeout=self.limit,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return f"more than {self.limit:.0f} s"
        if done.returncode != 0:
            lines = [line for line in done.stderr.splitlines() if line.strip()]
            return f"failed: {lines[-1] if lines else done.returncode}"[:200]
        answer: Answer = json.loads(done.stdout.splitlines()[-1])
        return answer


def strip(folder: Path) -> None:
    """Take the entries of level 2 out of a cache: a run that finds level 1 only puts them there again."""
    store = CacheStore(folder)
    store.remove([entry for entry in store.entries() if entry.level == 2])
    store.close()


def sizes(folder: Path) -> dict[str, int]:
    """Bytes of a model's artefacts: of each level whole, and of level 1 what is object code, LLVM IR,
    constants and metadata, as they are stored."""
    store = CacheStore(folder)
    found = dict.fromkeys(("level 1", "level 2", "code", "ir", "constants", "metadata"), 0)
    for info in store.entries():
        for entry in store.get(info.key):
            if entry.id != info.id:
                continue
            found[f"level {entry.level}"] += len(entry.payload)
            if entry.level == 1:
                for name, content in _sections(entry.payload).items():
                    found[_part(name)] += _stored(bytes(content), packed=_part(name) in ("ir", "metadata"))
    store.close()
    return found


def _sections(payload: bytes) -> Mapping[str, memoryview]:
    try:
        return container.unpack(payload)
    except ArtifactError as error:
        raise SystemExit(f"an entry of the cache cannot be read: {error}") from error


def _part(section: str) -> str:
    return {"o": "code", "src": "ir"}.get(section.rpartition(".")[2], section)


def _stored(content: bytes, *, packed: bool) -> int:
    """Bytes that a section of this content takes in a container."""
    if not packed:
        return len(content)
    return len(container.pack({"x": content}, compress=["x"])) - len(container.pack({"x": b""}))


# -- one model ----------------------------------------------------------------------------------------------
def measure(contest: Contest, ways: Sequence[str], repeats: int, again: bool) -> dict[str, Any]:
    """A row: for each way the medians of what its processes answered, or ``problem``."""
    samples: dict[str, list[Answer]] = {way: [] for way in ways}
    problems: dict[str, str] = {}

    def note(way: str, answer: Answer | str) -> None:
        if isinstance(answer, str):
            problems[way] = answer
        elif way in samples:
            samples[way].append(answer)

    row: dict[str, Any] = {"name": contest.model}
    with CONSOLE.status(f"{contest.model}: filling caches"):
        filled = contest.fill(ways)
    packed = filled.pop("pack", None)
    if isinstance(packed, str):
        problems["package"] = packed
    elif packed is not None:
        row["package_bytes"] = packed["bytes"]
    for way, answer in filled.items():
        note(way, answer)
    for turn in range(repeats):
        for way in ways if turn % 2 == 0 else reversed(ways):
            had = way in filled and (turn == 0 or (way == "inductor cold" and not again))
            if way not in problems and not had:
                with CONSOLE.status(f"{contest.model}, {way}, {turn + 1} of {repeats}"):
                    note(way, contest.run(way))
    row["ways"] = {way: _medians(found) for way, found in samples.items() if found}
    for way, problem in problems.items():
        if way in ways:
            row["ways"][way] = {"problem": problem}
    if "cold" in filled and "cold" not in problems:
        row["sizes"] = sizes(contest.folder / "warm")
    return row | figures(row["ways"])


def _medians(answers: Sequence[Answer]) -> dict[str, Any]:
    """The median of each number, and all samples of the seconds."""
    made: dict[str, Any] = {"samples": [answer["seconds"] for answer in answers]}
    for name in answers[0]:
        values = [answer[name] for answer in answers if answer.get(name) is not None]
        made[name] = statistics.median(values) if values else None
    return made


def figures(ways: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """What the promises are about, as far as the ways for it were measured. Seconds and ratios."""

    def of(way: str, what: str = "seconds") -> float | None:
        value = ways.get(way, {}).get(what)
        return None if value is None else float(value)

    made: dict[str, float] = {}
    pairs: tuple[tuple[str, float | None, float | None, Callable[[float, float], float]], ...] = (
        ("warm_ratio", of("warm"), of("inductor"), lambda ours, theirs: ours / theirs),
        ("level_1_extra", of("level 1"), of("aot_eager"), lambda ours, floor: ours - floor),
        ("warm_extra", of("warm"), of("aot_eager"), lambda ours, floor: ours - floor),
        ("async_ratio", of("async"), of("aot_eager"), lambda ours, floor: ours / floor),
        ("to_code_ratio", of("async", "to_code"), of("cold"), lambda ours, cold: ours / cold),
        ("aot_saved", of("level 1", "backend"), of("warm", "backend"), lambda one, two: one - two),
    )
    for name, first, second, formula in pairs:
        if first is not None and second:
            made[name] = formula(first, second)
    return made


def misses(row: Mapping[str, Any]) -> list[str]:
    """What did not find what it should have found, in words."""
    found = []
    for way, got in row["ways"].items():
        if way in ("warm", "level 1") and got.get("loaded") != got.get("graphs"):
            found.append(f"{way}: {got.get('loaded')} of {got.get('graphs')} graphs were in the cache")
        if way == "warm" and got.get("aot_graphs"):
            found.append(f"warm: {got['aot_graphs']:.0f} graphs were traced, for level 2 had them not")
        if way == "inductor" and got.get("inductor_misses"):
            found.append(f"inductor: {got['inductor_misses']:.0f} graphs were not in its cache")
        if "problem" in got:
            found.append(f"{way}: {got['problem']}")
        if got.get("to_code", 0.0) is None:
            found.append(f"{way}: not all code was replaced")
    return [f"{row['name']}: {line}" for line in found]


# -- what people see ----------------------------------------------------------------------------------------
def show(rows: Sequence[Mapping[str, Any]], ways: Sequence[str]) -> None:
    """Three tables: the first calls, where a warm start goes, and sizes."""
    columns = []
    for way in ways:
        columns += [way, "to code"] if way in MODES else [way]
    calls = table("seconds to the end of the first call", "", *columns)
    for row in rows:
        cells = []
        for way in ways:
            got = row["ways"].get(way, {})
            cells.append(figure(got.get("seconds")))
            if way in MODES:
                cells.append(figure(got.get("to_code", got.get("seconds"))))
        calls.add_row(row["name"], *cells)
    CONSOLE.print(calls)
    if {"warm", "level 1"} & set(ways):
        parts = table(
            "milliseconds of a warm start",
            "",
            "warm: Dynamo", "backend", "rest",
            "level 1: Dynamo", "backend", "rest", "AOTAutograd",
            "warm - aot_eager", "level 1 - aot_eager",
        )  # fmt: skip
        for row in rows:
            cells = [text for way in ("warm", "level 1") for text in _shares(row["ways"].get(way, {}))]
            extra = (row.get("aot_saved"), row.get("warm_extra"), row.get("level_1_extra"))
            parts.add_row(row["name"], *cells, *(_ms(value) for value in extra))
        CONSOLE.print(parts)
    made = table(
        "kilobytes, as stored",
        "",
        "level 1", "object code", "LLVM IR", "constants", "metadata", "level 2",
        "package", "load ms", "worker MB",
    )  # fmt: skip
    for row in rows:
        got = row.get("sizes", {})
        names = ("level 1", "code", "ir", "constants", "metadata", "level 2")
        load = row["ways"].get("package", {}).get("load")
        worker = row["ways"].get("async", {}).get("worker_bytes")
        made.add_row(
            row["name"],
            *(_kb(got.get(name)) for name in names),
            _kb(row.get("package_bytes")),
            _ms(load),
            figure(None if worker is None else worker / 1e6, 0),
        )
    CONSOLE.print(made)


def _shares(got: Mapping[str, Any]) -> list[str]:
    if got.get("dynamo") is None:
        return ["-"] * 3
    return [_ms(got[name]) for name in ("dynamo", "backend")] + [
        _ms(got["seconds"] - got["dynamo"] - got["backend"])
    ]


def _ms(seconds: float | None) -> str:
    return figure(None if seconds is None else 1e3 * seconds, 0)


def _kb(count: float | None) -> str:
    return figure(None if count is None else count / 1e3, 0)


def verdicts(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, float, float]]:
    """What is promised, as far as it was measured: words, the figure, its limit."""
    made = []
    ratios = [row["warm_ratio"] for row in rows if "warm_ratio" in row]
    if ratios:
        made.append(("warm / TorchInductor's warm, geometric mean", geometric_mean(ratios), WARM_LIMIT))
    extras = {row["name"]: row["level_1_extra"] for row in rows if "level_1_extra" in row}
    if extras:
        worst = max(extras, key=extras.__getitem__)
        made.append((f"level 1 beyond aot_eager, seconds, the worst: {worst}", extras[worst], LEVEL_1_LIMIT))
    for row in rows:
        if row["name"] == DEMO:
            for key, words, limit in (
                ("async_ratio", "async / aot_eager, BERT of the demo", ASYNC_LIMIT),
                ("to_code_ratio", "time to compiled code / cold, BERT of the demo", TO_CODE_LIMIT),
            ):
                if key in row:
                    made.append((words, row[key], limit))
    return made


def main() -> int:
    options = parser(__doc__ or "", "first_call")
    options.add_argument("--repeats", type=int, default=3, metavar="N", help="processes for each figure")
    options.add_argument("--way", action="append", metavar="WAY", help=f"one of: {', '.join(WAYS)}")
    options.add_argument(
        "--cold", action="store_true", help="TorchInductor's cold calls as often as the others, not once"
    )
    options.add_argument(
        "--busy", action="store_true", help="go on calling while code is compiled in the background"
    )
    options.add_argument("--limit", type=float, default=600.0, metavar="S", help="seconds for a process")
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    names, size = [DEMO, *(model.name for model in zoo.MODELS)], "bench"
    if given.quick:
        names, size, given.repeats = [DEMO, *zoo.QUICK], "test", 1
    ways = chosen(list(WAYS), given.way)
    trains = {model.name for model in zoo.TRAINING + zoo.REDUCED if model.kind == "training"}
    headline("First calls", f"median of {given.repeats} fresh processes for each figure, in turns")
    for way in ways:
        CONSOLE.print(f"  [bold]{way}[/bold]  [dim]{WAYS[way]}[/dim]")
    rows = []
    for name in chosen(names, given.only):
        with tempfile.TemporaryDirectory() as folder:
            contest = Contest(
                name, size, Path(folder), given.subject, given.against, given.threads, given.limit, given.busy
            )
            # a package has no backward pass
            own = [way for way in ways if way != "package" or name not in trains]
            rows.append(measure(contest, own, given.repeats, given.cold))
    show(rows, ways)
    for row in rows:
        for line in misses(row):
            CONSOLE.print(line, markup=False, highlight=False)
    good = True
    for words, value, limit in verdicts(rows):
        kept = value <= limit
        good = good and kept
        colour = "green" if kept else "red"
        CONSOLE.print(f"{words}: [{colour}]{value:.2f}[/{colour}] (at most {limit:g})", highlight=False)
    write_json(given.json, "first_call", rows, size=size, ways=ways, busy=given.busy)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
