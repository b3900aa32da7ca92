"""What the models are compiled to, and whether they compute what eager computes.

For training, the loss, all gradients and buffers are compared, and three compiled AdamW steps.

    python -m benchmarks.agreement
"""

from __future__ import annotations

import sys
import warnings
from typing import Any

import torch

from benchmarks.common import CONSOLE, chosen, figure, headline, parser, table, write_json
from tests import support
from tests.models import zoo
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


def main() -> int:
    given = parser(__doc__ or "", "agreement").parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(given.threads)
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
