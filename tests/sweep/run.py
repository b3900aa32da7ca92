"""Compares every decomposition and every lowering, each alone, with the operator that it stands for: over the
arguments with which PyTorch's operator database calls it, and over the ways in which these can lie in memory.

python -m tests.sweep.run                          everything; prints what differs and is not accepted
python -m tests.sweep.run --shard 2/4              a quarter of it
python -m tests.sweep.run --op lerp                operators with "lerp" in their name
python -m tests.sweep.run --level decomposition    decompositions alone
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tests.opinfo.cases import Pair
from tests.opinfo.pool import Settings, all_pairs, judge_all, shard
from tests.sweep.judge import DTYPES, LEVELS, Swept
from tests.sweep.report import Known, Report, known

SETS = 3


def settings(calls: Path, levels: tuple[str, ...] = LEVELS, sets: int = SETS) -> Settings:
    """How workers are started. ``calls``: the file in which they keep what they record. ``sets``: argument
    sets of each operator, before their variants."""
    return Settings(
        ",".join(levels),
        sets,
        start=600.0,  # the first one records every call
        module="tests.sweep.worker",
        mode=str(calls),
        verdict=Swept,
    )


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.sweep.run", description=__doc__.split("\n\n")[0])
    parser.add_argument("--shard", default="1/1", metavar="K/N", help="part K (from 1) of N")
    parser.add_argument("--op", action="append", metavar="NAME", help="only operators with NAME in the name")
    parser.add_argument("--exact", action="store_true", help="--op gives whole names")
    parser.add_argument("--dtype", choices=list(DTYPES), action="append", help="only samples of this dtype")
    parser.add_argument("--level", choices=LEVELS, action="append", help="only decompositions, or lowerings")
    parser.add_argument("--sets", type=int, default=SETS, metavar="N", help="argument sets of an operator")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, metavar="N", help="worker processes")
    parser.add_argument("--all", action="store_true", help="print accepted differences as well")
    parser.add_argument("--declined", action="store_true", help="print what lowerings leave to eager")
    parser.add_argument("--calls", type=Path, metavar="FILE", help="keep recorded calls there for later runs")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write every result to a file of JSON lines")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    options = arguments(argv)
    with tempfile.TemporaryDirectory() as folder:
        calls = options.calls or Path(folder) / "calls.pt"
        return _main(options, settings(calls, tuple(options.level or LEVELS), options.sets))


def _main(options: argparse.Namespace, how: Settings) -> int:
    console = Console()
    number, of = (int(part) for part in options.shard.split("/"))
    everything = all_pairs(how)
    pairs = shard(everything, number, of)
    pairs = [pair for pair in pairs if not options.dtype or pair.dtype in options.dtype]
    pairs = [pair for pair in pairs if not options.op or _named(pair, options.op, options.exact)]
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("sweep", total=len(pairs))
        results = judge_all(pairs, how, options.jobs, lambda swept: progress.advance(task))
    report = Report.of(results)
    accepted: list[Known] = [] if options.all else known()
    if options.out:
        options.out.write_text("".join(json.dumps(dataclasses.asdict(r)) + "\n" for r in results))
    for line in report.lines(accepted):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    if options.declined:
        for op, reasons in sorted(report.declined.items()):
            console.print(f"{op}: {'; '.join(dict.fromkeys(reasons))}", highlight=False, markup=False)
    console.print(report.table(known()))
    whole = len(pairs) == len(everything)
    gone = report.gone(known()) if whole and not options.level else set()
    for place in sorted(gone):
        console.print(f"accepted, and no longer there: {place}", highlight=False, markup=False)
    if report.unreached and whole:
        console.print(f"without arguments: {', '.join(report.unreached)}", highlight=False, markup=False)
    return 1 if gone or report.failures or report.new(known()) else 0


def _named(pair: Pair, names: list[str], exact: bool) -> bool:
    return any(name == pair.op if exact else name in pair.op for name in names)


if __name__ == "__main__":
    sys.exit(main())
