"""Compiles every operator of PyTorch's operator database and compares the results with eager's.

python -m tests.opinfo.run                          everything; prints a summary
python -m tests.opinfo.run --shard 2/4              a quarter of it
python -m tests.opinfo.run --op softmax -v          operators with "softmax" in their name, verdicts printed
python -m tests.opinfo.run --kind all           half types and gradients, too
python -m tests.opinfo.run --mode serialized        by way of bytes; lists what cannot be stored
python -m tests.opinfo.run --write                  everything, and the lists under expected/ made anew
"""

from __future__ import annotations

import argparse
import collections
import os
import sys
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from tests import support
from tests.opinfo.cases import KINDS, RECORDED, Verdict
from tests.opinfo.pool import Settings, all_pairs, judge_all, shard
from tests.opinfo.report import EXPECTED, RIGHT_FLOOR, STRICT_FLOOR, Lists


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.opinfo.run", description=__doc__.split("\n\n")[0])
    parser.add_argument("--shard", default="1/1", metavar="I/N", help="part I (from 1) of N")
    parser.add_argument("--backend", default=support.BACKEND, help="a Dynamo backend (default: %(default)s)")
    parser.add_argument("--mode", default="", help="an fx_compile_mode; tells what went in-process")
    parser.add_argument(
        "--kind",
        choices=[*KINDS, "all"],
        action="append",
        help=f"only this kind (default: {', '.join(RECORDED)})",
    )
    parser.add_argument("--op", action="append", metavar="TEXT", help="only operators with TEXT in the name")
    parser.add_argument("--exact", action="store_true", help="--op gives whole names")
    parser.add_argument("--samples", type=int, default=2, metavar="N", help="samples for each pair")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, metavar="N", help="worker processes")
    parser.add_argument("--limit", type=float, default=90.0, metavar="S", help="seconds that a pair may take")
    parser.add_argument("--write", action="store_true", help=f"write the lists to {EXPECTED.name}/")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write the lists to this folder")
    parser.add_argument("-v", "--verbose", action="store_true", help="print each verdict")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    options = arguments(argv)
    console = Console()
    settings = Settings(options.backend, options.samples, limit=options.limit, mode=options.mode)
    number, of = (int(part) for part in options.shard.split("/"))
    pairs = shard(all_pairs(settings), number, of)
    kinds = options.kind or RECORDED
    pairs = [pair for pair in pairs if "all" in kinds or pair.dtype in kinds]
    if options.op:
        exact = options.exact
        pairs = [p for p in pairs if any(text == p.op if exact else text in p.op for text in options.op)]
    whole = not (options.kind or options.op or of > 1)
    if options.write and not whole:
        console.print("[red]--write makes the lists of everything; leave out --shard, --kind and --op[/red]")
        return 2
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(options.backend, total=len(pairs))

        def show(verdict: Verdict) -> None:
            progress.advance(task)
            if options.verbose or verdict.status in ("wrong", "crashed", "timeout"):
                progress.console.print(line_of(verdict), highlight=False, markup=False, soft_wrap=True)

        verdicts = judge_all(pairs, settings, options.jobs, show)
    lists = Lists.of(verdicts)
    if options.write or options.out:
        lists.write(options.out or EXPECTED)
    console.print(summary(lists, verdicts))
    if options.mode:
        console.print(compiled_here(verdicts, options.mode))
    if not whole:
        return 0
    return 0 if lists.right() >= RIGHT_FLOOR and lists.strict("float32") >= STRICT_FLOOR else 1


def line_of(verdict: Verdict) -> str:
    """A verdict in one line."""
    notes = verdict.reason or "; ".join(verdict.fallbacks)
    strict = "" if verdict.strict or not verdict.has_graph else " (fallback)"
    return f"{verdict.op:44} {verdict.dtype:8} {verdict.seconds:6.2f} s  {verdict.status}{strict}  {notes}"


def compiled_here(verdicts: list[Verdict], mode: str) -> Table:
    """Graphs that were compiled in-process instead, by reason, with the operators."""
    graphs, here = sum(v.graphs for v in verdicts), sum(len(v.here) for v in verdicts)
    table = Table(title=f"{here} of {graphs} graphs compiled in-process and not {mode}", title_justify="left")
    table.add_column("reason")
    table.add_column("graphs", justify="right")
    table.add_column("operators")
    reasons = collections.Counter(reason for v in verdicts for reason in v.here)
    for reason, count in reasons.most_common():
        table.add_row(reason, str(count), ", ".join(sorted({v.op for v in verdicts if reason in v.here})))
    return table


def summary(lists: Lists, verdicts: list[Verdict]) -> Table:
    """Counts by dtype, and the operators that cause most fallbacks."""
    table = Table(title="Operators against eager", title_justify="left")
    table.add_column("")
    names = [name for name in KINDS if name in lists.total]
    for name in [*names, "all"]:
        table.add_column(name, justify="right")
    columns: list[str | None] = [*names, None]

    def count(what: str, dtype: str | None) -> str:
        return str(sum(1 for pair in getattr(lists, what) if dtype in (None, pair.dtype)))

    table.add_row("pairs", *(str(sum(n for d, n in lists.total.items() if c in (None, d))) for c in columns))
    table.add_row("eager has no result", *(count("no_sample", c) for c in columns))
    table.add_row("no graph", *(count("no_graph", c) for c in columns))
    table.add_row("with a graph", *(str(lists.with_graph(c)) for c in columns))
    table.add_row("wrong", *(count("wrong", c) for c in columns))
    table.add_row("right", *(f"{lists.right(c):.1%}" for c in columns), style="bold")
    table.add_row("with fallbacks", *(count("fallback", c) for c in columns))
    table.add_row("strict", *(f"{lists.strict(c):.1%}" for c in columns), style="bold")
    table.add_section()
    table.add_row("falls back most often:", style="dim")
    causes = collections.Counter(f.split(":")[0] for v in verdicts for f in set(v.fallbacks))
    for cause, times in causes.most_common(8):
        table.add_row(cause, *[""] * len(names), str(times))
    seconds = sum(v.seconds for v in verdicts)
    table.add_row("seconds in workers", *[""] * len(names), f"{seconds:.0f}")
    return table


if __name__ == "__main__":
    sys.exit(main())
