"""``braze minify``: from a script that goes wrong to the smallest graph that does, as a script."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import click
from rich.console import Console, RenderableType
from rich.syntax import Syntax
from rich.text import Text

from braze import __version__
from braze.cli.doctor import CHECKS, REPORTED
from braze.cli.tables import add_row, facts
from braze.errors import BrazeError
from braze.inspect.minify.minifying import Minified, nodes_of, sizes_of
from braze.inspect.minify.minifying import minify as minified
from braze.words import count, duration

__all__ = ["minify"]

_MEANS = {
    "raises": "compiled code raises, and eager PyTorch does not",
    "silent": "eager PyTorch raises, and compiled code does not",
    "value": "a result differs from eager PyTorch's",
    "memory": "an input is not afterwards what it is in eager PyTorch",
    "gradient": "a gradient differs from eager PyTorch's",
    "alias": "what shares memory is not what does in eager PyTorch",
    "kind": "a result is of another kind than in eager PyTorch",
    "defect": "an operator could not be compiled, by a defect of Braze",
    "fallback": "an operator runs as eager PyTorch",
    "crash": "the process ends",
    "hang": "there is no end to it",
}


@click.command(context_settings={"ignore_unknown_options": False, "allow_interspersed_args": False})
@click.argument("path", metavar="PATH", type=click.Path(path_type=Path))
@click.argument("arguments", metavar="[ARGUMENT]...", nargs=-1, type=click.UNPROCESSED)
@click.option("--fallback", is_flag=True, help="An operator that runs as eager PyTorch is a fault, too.")
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=120.0,
    show_default=True,
    help="What making it smaller may take.",
)
@click.option(
    "--limit",
    type=click.FloatRange(min=0, min_open=True),
    default=60.0,
    show_default=True,
    help="Seconds that one try may take; what takes longer hangs.",
)
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write the script there."
)
def minify(
    path: Path, arguments: tuple[str, ...], fallback: bool, seconds: float, limit: float, out: Path | None
) -> None:
    """Find what goes wrong in a program, and show the smallest graph in which it does.

    PATH is a script with torch.compile(..., backend="braze") in it, and ARGUMENTs are its own; or a
    request.txt that the mode debug-file wrote, or a folder that holds some:

        braze minify --out smaller.py train.py --steps 1

    The command ends with 0 where a fault was found, with 1 where nothing is wrong, and with 2 where there is
    nothing to look at.
    """
    console = Console(highlight=False)
    try:
        with console.status("begins") as status:
            found = minified(
                path,
                arguments,
                fallback=fallback,
                seconds=seconds,
                limit=limit,
                tell=lambda words: status.update(Text(words)),
            )
    except BrazeError as error:  # 1 would say that nothing is wrong
        _refuse(str(error))
    if found.fault is None:
        for part in _right(found, path):
            console.print(part, soft_wrap=True)
        sys.exit(1)
    script = found.script(_report(found, path))
    if out is not None:
        try:
            out.write_text(script, encoding="utf-8")
        except OSError as error:
            _refuse(f"the script cannot be written: {error}")
    for part in _wrong(found, path, script, out):
        console.print(part, soft_wrap=True)


def _refuse(words: str) -> NoReturn:
    Console(stderr=True, highlight=False).print(Text.assemble(("braze: ", "bold red"), words), soft_wrap=True)
    sys.exit(2)


def _right(found: Minified, path: Path) -> Iterator[RenderableType]:
    tried = found.graphs - len(found.unseen)
    if tried:
        words = f"{count(tried, 'graph')} of {path.name}, {count(found.calls, 'call')}"
        yield Text.assemble("\n  ", ("nothing wrong", "bold green"), f"  in {words}")
    else:
        yield Text.assemble("\n  ", ("nothing tried", "bold yellow"), f"  of {path.name}")
    yield from _unseen(found)
    yield Text()


def _unseen(found: Minified) -> Iterator[Text]:
    for graph, why in found.unseen:
        yield Text(f"  not tried: graph {graph}: {why}", "yellow")


def _wrong(found: Minified, path: Path, script: str, out: Path | None) -> Iterator[RenderableType]:
    assert found.fault is not None and found.original is not None and found.program is not None
    fault = found.fault
    yield Text.assemble("\n  ", (fault.kind, "bold red"), f"  {_MEANS.get(fault.kind, '')}")
    rows = facts()
    where = f"{found.original.origin} of {count(found.graphs, 'graph')} of {path.name}"
    add_row(rows, Text("found in", "dim"), where)
    what = fault.text if fault.text.startswith(fault.where) else f"{fault.where}: {fault.text}"
    add_row(rows, Text("what", "dim"), what)
    for line in found.sources:
        add_row(rows, Text("line", "dim"), line)
    add_row(rows, Text("nodes", "dim"), f"{len(found.original.statements)} → {len(found.program.statements)}")
    add_row(rows, Text("tensors", "dim"), f"{sizes_of(found.original)} → {sizes_of(found.program)}")
    tries = f"{count(found.trials, 'trial')} in {duration(1e6 * found.seconds)}"
    add_row(rows, Text("by", "dim"), tries)
    if out is not None:
        add_row(rows, Text("script", "dim"), str(out))
    yield rows
    yield from _unseen(found)
    yield Text()
    yield Syntax("", "python", background_color="default").highlight(script)


def _report(found: Minified, path: Path) -> str:
    """What an issue wants to know, in front of the script."""
    assert found.fault is not None and found.original is not None and found.program is not None
    checks = dict(CHECKS)
    shrunk = f"{nodes_of(found.original)} to {nodes_of(found.program)}"
    return "\n".join(
        [
            f"braze minify {path.name}",
            f"  fault      {found.fault}",
            *(f"  line       {line}" for line in found.sources),
            f"  graph      {found.original.origin}, from {shrunk}",
            f"  Braze      {__version__}",
            *(f"  {name:<10} {checks[name]().text}" for name in REPORTED),
        ]
    )
