"""What the models are compiled to, and whether they compute what eager computes.

For training, the loss, all gradients and buffers are compared, and three compiled AdamW steps.

    python -m benchmarks.agreement
    python -m benchmarks.agreement --strategies     each model by every way of compiling it

With ``--strategies``, a cell is the greatest error of two calls, the code being another in the second one
where the strategy says so; ``=`` means that every bit is as in-process, and a cross that something did not go
the way that it should have gone, about which a line below the table says more.
"""

from __future__ import annotations

import dataclasses
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from benchmarks.common import CONSOLE, chosen, figure, headline, parser, table, write_json
from tests import support
from tests.models import strategies, zoo
from tests.models.compare import Outcome, optimizer_outcome, outcome
from tests.numerics import TOLERANCES, leaves, scaled_error

OPTIMIZER = "+AdamW"


def errors(found: Outcome) -> tuple[float, float]:
    """The largest errors against float64, in units of the tolerance, of the compiled and of the eager run."""
    references = dict(leaves(found.reference))
    worst = []
    for tree in (found.compiled, found.eager):
        scaled = [
            scaled_error(leaf, references[path], leaf.dtype)
            for path, leaf in leaves(tree)
            if isinstance(leaf, torch.Tensor) and leaf.dtype in TOLERANCES
        ]
        worst.append(max(scaled, default=0.0))
    return worst[0], worst[1]


def row(name: str, subject: str, size: zoo.Size) -> dict[str, Any]:
    """Counts, errors, and what is wrong if anything is."""
    support.reset()
    model = zoo.find(name.removesuffix(OPTIMIZER))
    made: dict[str, Any] = {"name": name, "problem": ""}
    try:
        if name.endswith(OPTIMIZER):
            found = optimizer_outcome(model, subject)
        else:
            found = outcome(model, size, subject)
        made["error"], made["eager_error"] = errors(found)
        stats = found.stats
        made |= {"graphs": stats.graphs, "kernels": stats.kernels, "externs": dict(stats.externs)}
        made |= {"fallbacks": [str(f) for f in stats.fallbacks], "eager_graphs": stats.eager_graphs}
        made["foreign"] = stats.foreign_externs
        found.check()
    except Exception as error:  # One model's failure is a row of the table.
        made["problem"] = f"{type(error).__name__}: {error}"
    return made


Row = dict[str, strategies.Cell]


def by_strategy(name: str, size: zoo.Size) -> Iterator[tuple[str, strategies.Cell]]:
    """The cells of one model, checked, as they come."""
    with tempfile.TemporaryDirectory() as folder:
        reference = strategies.Reference(strategies.find(name), size)
        here = [c for c in strategies.COLUMNS if c not in (*strategies.HITS, *strategies.ELSEWHERE)]
        like = None
        for column in here:
            found = strategies.cell(column, reference, Path(folder))
            found.check(column, like)
            like = like or found
            yield column, found
        filled = strategies.fill(reference, Path(folder))
        filled.check("in-process", like)
        if filled.problem:
            yield "fill", filled
        for column in reversed(strategies.HITS):
            found = strategies.cell(column, reference, Path(folder))
            found.check(column, like)
            yield column, found
        strategies.fill(reference, Path(folder))  # what the first level did without is there again
        (away,) = strategies.elsewhere([strategies.Asked(name, size, folder)])
        for column, found in away.items():
            found.check(column, like)
            yield column, found


def strategies_table(names: list[str], size: zoo.Size, json: Path | None) -> int:
    """Print the table of all models by all strategies; 1 where something is wrong."""
    headline(
        "Agreement by strategy",
        "errors against float64 in units of the tolerance of the dtype; = the bits are those of in-process",
    )
    made = table("", "", *(column.replace(" elsewhere", "\nelsewhere") for column in strategies.COLUMNS))
    rows: list[dict[str, Any]] = []
    notes: dict[str, str] = {}
    for name in names:
        cells: Row = {}
        with CONSOLE.status(name) as status:
            for column, found in by_strategy(name, size):
                cells[column] = found
                status.update(f"{name}: {column}")
                rows.append({"name": name, "column": column, **dataclasses.asdict(found)})
                if found.problem or found.impossible:
                    notes[f"{name}, {column}"] = found.problem or found.impossible
        base = cells["in-process"].results
        made.add_row(name, *(_shown(cells[column], base) for column in strategies.COLUMNS))
    CONSOLE.print(made)
    for place, note in notes.items():
        CONSOLE.print(f"{place}: {note}", markup=False, highlight=False)
    write_json(json, "strategies", rows)
    return 1 if any(r["problem"] for r in rows) else 0


def _shown(cell: strategies.Cell, base: str) -> str:
    if cell.problem:
        return "[red]✗[/red]"
    if cell.impossible:
        return "[dim]-[/dim]"
    return f"{figure(cell.error)} [dim]{'=' if cell.results == base else ' '}[/dim]"


def main() -> int:
    arguments = parser(__doc__ or "", "agreement")
    arguments.add_argument("--strategies", action="store_true", help="every way of compiling each model")
    given = arguments.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(given.threads)
    if given.strategies:
        names = list(zoo.QUICK) if given.quick else [model.name for model in zoo.MODELS]
        names = chosen([*names, strategies.NOISY.name], given.only)
        return strategies_table(names, "tiny" if given.quick else "test", given.json)
    headline("Agreement with eager", "errors against float64 in units of the tolerance of the dtype")
    names = [model.name for model in zoo.MODELS] + [model.name + OPTIMIZER for model in zoo.TRAINING]
    if given.quick:
        names = list(zoo.QUICK)
    rows = []
    for name in chosen(names, given.only):
        with CONSOLE.status(name):
            rows.append(row(name, given.subject, "test"))
    made = table(
        "", "", "graphs", "kernels", "externs", "fallbacks", "to eager", "error", "eager's", "agrees"
    )
    good = True
    for r in rows:
        whole = not (r["problem"] or r["fallbacks"] or r["eager_graphs"] or r["foreign"])
        good = good and whole
        made.add_row(
            r["name"],
            *(str(r.get(key, "-")) for key in ("graphs", "kernels")),
            str(sum(r.get("externs", {}).values())),
            str(len(r.get("fallbacks", ()))),
            str(r.get("eager_graphs", "-")),
            figure(r.get("error")),
            figure(r.get("eager_error")),
            "[red]no[/red]" if r["problem"] else "yes",
        )
    CONSOLE.print(made)
    for r in rows:
        for line in filter(None, [r["problem"], *r.get("fallbacks", ()), *r.get("foreign", ())]):
            CONSOLE.print(f"{r['name']}: {line}", markup=False, highlight=False)
    externs: dict[str, int] = {}
    for r in rows:
        for extern, count in r.get("externs", {}).items():
            externs[extern] = externs.get(extern, 0) + count
    if externs:
        CONSOLE.print("externs: " + ", ".join(f"{n} x {name}" for name, n in sorted(externs.items())))
    write_json(given.json, "agreement", rows, subject=given.subject)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
