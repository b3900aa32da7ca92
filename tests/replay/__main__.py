"""Compare what the recorded graphs are compiled to with what is expected: see the package."""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from braze import config
from braze.artifact.constants import CompiledFxGraphConstants
from braze.compile import pipeline
from braze.compile.debug_file import CONSTANTS
from braze.compile.fx_compile import CompileRequest
from braze.compile.text.printer import RequestText, print_request
from tests.replay import subjects
from tests.replay.printing import EXPECTED, GRAPHS, names, printed

_FOLDERS = re.compile(rf"{Path(__file__).parents[2]}/|/[^ ]*/site-packages/")
"""Where the files of a traceback are on this machine."""


def record(name: str) -> None:
    """Write the requests that a subject makes: one file for each graph."""
    made: list[RequestText] = []
    compile_graph = pipeline.compile_graph

    def noted(request: CompileRequest, **options: Any) -> Any:
        made.append(print_request(replace(request, graph_id=0)))
        return compile_graph(request, **options)

    with pytest.MonkeyPatch.context() as patch, config.patch(cache=False):
        patch.setattr(pipeline, "compile_graph", noted)
        subjects.run(name)
    for old in [*GRAPHS.glob(f"{name}.*"), *GRAPHS.glob(f"{name}_[0-9].*")]:
        old.unlink()
    for number, request in enumerate(made):
        path = GRAPHS / (f"{name}_{number}.txt" if len(made) > 1 else f"{name}.txt")
        path.write_text(_FOLDERS.sub("", request.text), encoding="utf-8")
        if request.constants:
            stored = CompiledFxGraphConstants(request.constants).to_bytes()
            path.with_name(f"{path.stem}.{CONSTANTS}").write_bytes(stored)


def main(arguments: list[str]) -> int:
    """0: everything is as expected; 1: something differs."""
    parser = argparse.ArgumentParser(prog="python dev.py replay", description=__doc__)
    parser.add_argument("only", nargs="*", metavar="NAME", help="graphs, by the beginnings of their names")
    parser.add_argument("--update", action="store_true", help="take what comes of them as expected")
    parser.add_argument("--record", action="store_true", help="compile the subjects, and write the graphs")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="processes (default: 2)")
    chosen = parser.parse_args(arguments)
    only = tuple(chosen.only) or ("",)
    for folder in (GRAPHS, EXPECTED):
        folder.mkdir(exist_ok=True)
    if chosen.record:
        for name in subjects.SUBJECTS:
            if name.startswith(only):
                record(name)
    wanted = [name for name in names() if name.startswith(only)]
    if not wanted:
        parser.error(f"no graph's name begins with {' or '.join(only)}; there are: {', '.join(names())}")
    with ProcessPoolExecutor(chosen.jobs) as pool:
        found = dict(zip(wanted, pool.map(printed, wanted), strict=True))
    changed = [name for name, text in found.items() if text != _expected(name)]
    for name in changed:
        _show(name, found[name])
        if chosen.update:
            (EXPECTED / f"{name}.txt").write_text(found[name], encoding="utf-8")
    stale = [path for path in EXPECTED.glob("*.txt") if path.stem not in names()]
    if chosen.update:
        for path in stale:
            path.unlink()
    verb = "updated" if chosen.update else "differ"
    print(f"{len(found)} graphs: {len(changed)} {verb}" + (f", {len(stale)} have no graph" if stale else ""))
    return 0 if chosen.update or not (changed or stale) else 1


def _expected(name: str) -> str:
    path: Path = EXPECTED / f"{name}.txt"
    return path.read_text(encoding="utf-8") if path.exists() else ""


def _show(name: str, text: str) -> None:
    lines = difflib.unified_diff(
        _expected(name).splitlines(), text.splitlines(), f"{name} expected", f"{name} now", lineterm="", n=1
    )
    for number, line in enumerate(lines):
        if number == 40:
            print("  ...")
            break
        print(f"  {line[:160]}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
