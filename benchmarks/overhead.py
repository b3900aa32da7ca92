"""What a call costs where there is next to nothing to compute.

One kernel over 8 elements, against the other compiler's call; and a graph of 50 matrix products of 4x4,
each a call into ATen, against the same calls written by hand.

    python -m benchmarks.overhead
"""

from __future__ import annotations

import statistics
import sys
import warnings
from typing import Any

import torch

from benchmarks.common import (
    CONSOLE,
    chosen,
    compiled,
    figure,
    headline,
    interleaved,
    median_ratio,
    parser,
    table,
    write_json,
)
from benchmarks.kernels import one_kernel

PRODUCTS = 50
KERNEL, EXTERNS = "kernel of 8 elements", f"{PRODUCTS} products of 4x4"


def products(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """Nothing but calls into ATen, each of which needs the one before."""
    for _ in range(PRODUCTS):
        x = torch.mm(x, w)
    return x


def row(name: str, backends: list[str], options: Any) -> dict[str, Any]:
    """Seconds of a call for each contestant, and the ratio to the one that sets the standard."""
    torch.manual_seed(3)
    function: Any = one_kernel if name == KERNEL else products
    inputs = (torch.randn(8),) if name == KERNEL else (torch.randn(4, 4), torch.randn(4, 4) / 2)
    calls = {}
    for backend in backends:
        call = compiled(function, backend)
        calls[backend] = lambda call=call: call(*inputs)
    with torch.no_grad():
        samples = interleaved(calls, options.rounds, options.seconds)
    standard = options.against if name == KERNEL else "eager"
    made: dict[str, Any] = {backend: statistics.median(times) for backend, times in samples.items()}
    ratio = median_ratio(samples, options.subject, standard)
    limit = 1.0 if name == KERNEL else 1.3
    good = ratio is not None and ratio <= limit
    return {"name": name, **made, "standard": standard, "ratio": ratio, "limit": limit, "good": good}


def main() -> int:
    options = parser(__doc__ or "", "overhead")
    options.add_argument("--rounds", type=int, default=51, metavar="N", help="turns of all contestants")
    options.add_argument(
        "--seconds", type=float, default=0.02, metavar="S", help="what a turn takes for each"
    )
    given = options.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(given.threads)
    if given.quick:
        given.rounds, given.seconds = 7, 0.005
    backends = list(dict.fromkeys(["eager", given.against, given.subject]))
    headline("Overhead of a call", f"microseconds, medians of {given.rounds} interleaved turns")
    rows = []
    for name in chosen([KERNEL, EXTERNS], given.only):
        with CONSOLE.status(name):
            rows.append(row(name, backends, given))
    made = table("", "", *(f"{backend} us" for backend in backends), "ratio", "of", "at most", "enough")
    for r in rows:
        times = [figure(1e6 * r[backend], 1) for backend in backends]
        mark = "[green]yes[/green]" if r["good"] else "[red]no[/red]"
        made.add_row(r["name"], *times, figure(r["ratio"]), r["standard"], figure(r["limit"], 1), mark)
    CONSOLE.print(made)
    write_json(given.json, "overhead", rows, subject=given.subject, against=given.against)
    return 0 if all(r["good"] for r in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
