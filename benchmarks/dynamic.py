"""Dynamic shapes: graphs made over twelve pairs of sizes, with `dynamic=True`.

python -m benchmarks.dynamic
"""

from __future__ import annotations

import sys
import time
import warnings
from typing import Any

import torch

from benchmarks.common import CONSOLE, chosen, figure, headline, parser, table, write_json
from tests import support
from tests.models.test_dynamic import SIZES, cases
from tests.numerics import Disagreement, assert_agrees, in_float64


def rows_of(name: str, subject: str, sizes: tuple[tuple[int, int], ...]) -> list[dict[str, Any]]:
    """For each pair of sizes: new graphs, seconds of the call, and whether the result agrees with eager's."""
    module, inputs_of = cases()[name]
    wide = in_float64(module)
    support.reset()
    call = support.compile_with(module, subject, dynamic=True)
    rows = []
    for number, (a, b) in enumerate(sizes):
        torch.manual_seed(number)
        inputs = inputs_of(a, b)
        with torch.no_grad():
            start = time.perf_counter()
            with support.watch(subject) as stats:
                result = call(**inputs)
            seconds = time.perf_counter() - start
            problem = ""
            try:
                assert_agrees(result, module(**inputs), wide(**in_float64(inputs)))
            except Disagreement as error:
                problem = str(error)
        rows.append(
            {"name": name, "sizes": [a, b], "graphs": stats.graphs, "seconds": seconds, "problem": problem}
        )
    return rows


def main() -> int:
    given = parser(__doc__ or "", "dynamic").parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(given.threads)
    headline("Dynamic shapes", "new graphs should be 1, and then 0")
    rows: list[dict[str, Any]] = []
    for name in chosen(["mlp", "gpt2"], given.only):
        with CONSOLE.status(name):
            rows += rows_of(name, given.subject, SIZES[:4] if given.quick else SIZES)
    made = table("", "", "sizes", "new graphs", "ms", "agrees")
    good = True
    for r in rows:
        first = r["sizes"] == list(SIZES[0])
        good = good and not r["problem"] and r["graphs"] == (1 if first else 0)
        agrees = "[red]no[/red]" if r["problem"] else "yes"
        sizes = "x".join(map(str, r["sizes"]))
        made.add_row(r["name"], sizes, str(r["graphs"]), figure(1e3 * r["seconds"]), agrees)
    CONSOLE.print(made)
    for r in rows:
        if r["problem"]:
            CONSOLE.print(f"{r['name']} {r['sizes']}: {r['problem']}", markup=False)
    write_json(given.json, "dynamic", rows, subject=given.subject)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
