"""``braze replay``: compile a request from a file, and show what came of it."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.text import Text

import braze.inspect
from braze.cli.tables import table
from braze.words import count, phases

if TYPE_CHECKING:  # loading it loads torch, which `braze --help` does without
    from braze.artifact.schema import GraphInfo
    from braze.inspect.replaying import Replay

__all__ = ["replay"]

_SHOWN = 40
_WIDEST = 32
"""Cells that a column may have; the last has what is left."""


@click.command()
@click.argument("request", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--strict", is_flag=True, help="Fail where something would run as eager PyTorch.")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="Write every stage of the compilation there.",
)
@click.option("--seed", default=0, show_default=True, help="Of the random inputs.")
def replay(request: Path, strict: bool, out: Path | None, seed: int) -> None:
    """Compile the graph in a request.txt again, and compare its results with those of eager PyTorch.

    REQUEST is a file that the mode debug-file wrote, here or elsewhere:

        BRAZE_FX_COMPILE_MODE=debug-file BRAZE_DEBUG=folder python model.py

        braze replay folder/graph0_inference.request/request.txt

    The command ends with 1 where a result differs.
    """
    console = Console(highlight=False)
    with console.status("compiles"):
        found = braze.inspect.replay(request, strict=strict, out=out, seed=seed)
    for part in _parts(found, out):
        console.print(part)
    if not found.agrees:
        sys.exit(1)


def _parts(found: Replay, out: Path | None) -> Iterator[RenderableType]:
    yield Text()
    yield Text.assemble("  ", (found.name, "bold"), (f"  {found.kind} graph, from {found.path}", "dim"))
    yield from _outcome(found)
    if found.versions is not None:
        yield Text(f"  written by other versions: here is {found.versions}", "yellow")
    if found.info is not None:
        yield from _code(found.info)
    yield from _notes("said", found.said)
    yield from _comparison(found)
    if out is not None:
        yield Text.assemble("\n  every stage is in ", (str(out), "bold"))
    yield Text()


def _outcome(found: Replay) -> Iterator[Text]:
    seconds = f"{1e3 * found.seconds:.0f} ms"
    if found.info is None:
        yield Text(f"  runs as eager PyTorch: {found.reason}", "yellow")
        return
    kernels = sum(len(v.kernels) for v in found.info.variants)
    metrics = found.info.metrics
    counts = [(kernels, "kernel"), (len(metrics.externs), "extern"), (len(metrics.fallbacks), "fallback")]
    words = ", ".join(count(n, noun) for n, noun in counts)
    yield Text.assemble("  ", words, (f"  ·  compiled in {seconds} ({phases(metrics.seconds)})", "dim"))


def _code(info: GraphInfo) -> Iterator[RenderableType]:
    kernels = [(k.name, ", ".join(k.nodes), _place(k.sources[:1])) for k in info.variants[0].kernels]
    yield from _table(("kernel", "computes", "from"), kernels)
    sources: dict[str, list[str]] = {}
    for call in info.metrics.externs:
        sources.setdefault(call.op, []).append(call.source)
    externs = [(op, str(len(places)), _place(places[:1])) for op, places in sources.items()]
    yield from _table(("extern", "calls", "first from"), externs)
    fallbacks = [(f.op, f.reason, _place([f.source])) for f in info.metrics.fallbacks]
    yield from _table(("runs as eager PyTorch", "since", "from"), fallbacks)
    yield from _notes("right for sizes where", [str(guard) for guard in info.guards])


def _place(sources: Sequence[str]) -> str:
    """The user's line, without the folder of its file."""
    for source in sources:
        path, colon, rest = source.partition(":")
        return f"{Path(path).name}{colon}{rest}"
    return ""


def _comparison(found: Replay) -> Iterator[RenderableType]:
    if found.not_compared is not None:
        yield Text(f"\n  not compared with eager PyTorch: {found.not_compared}", "yellow")
        return
    rows = []
    for one in found.compared:
        difference = "" if one.difference is None else f"{one.difference:.2g}"
        rows.append((one.name, one.what, difference, "agrees" if one.agrees else "differs"))
    yield from _table(("on random inputs", "is", "largest difference", "from eager"), rows)


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[RenderableType]:
    if not rows:
        return
    shown = table()
    shown.expand = True
    for number, name in enumerate(columns):
        widest = max([len(name), *(len(row[number]) for row in rows)])
        if number == len(columns) - 1:
            shown.add_column(name, overflow="ellipsis", no_wrap=True, ratio=1)
        else:
            shown.add_column(name, overflow="ellipsis", no_wrap=True, width=min(widest, _WIDEST))
    for row in rows[:_SHOWN]:
        style = "red" if row[-1] == "differs" else None
        shown.add_row(*(Text(cell, style or "") for cell in row))
    yield Padding(shown, (0, 0, 0, 2))
    if len(rows) > _SHOWN:
        yield Text(f"  and {len(rows) - _SHOWN} more", "dim")


def _notes(title: str, lines: Sequence[str]) -> Iterator[Text]:
    if lines:
        yield Text(f"\n  {title}", "dim")
        for line in lines[:_SHOWN]:
            yield Text(f"    {line}")
