"""Steady state: what a call costs once everything is compiled.

Eager, the other compiler and the subject run in one process, in turns; a ratio is the median over the turns
of one's time over the other's in the same turn. Ratios above 1 mean that the subject is faster.

    python -m benchmarks.steady_state                       kernels and models
    python -m benchmarks.steady_state --kernels             only kernels
    python -m benchmarks.steady_state --only bert --rounds 61
"""

from __future__ import annotations

import statistics
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch

from benchmarks import bandwidth
from benchmarks.common import (
    CONSOLE,
    Call,
    chosen,
    compiled,
    figure,
    geometric_mean,
    headline,
    interleaved,
    median_ratio,
    parser,
    table,
    write_json,
)
from benchmarks.kernels import KERNELS, Kernel
from tests.models import zoo

ENOUGH = 0.95  # no slower than this times the other, ...
AT_THE_LIMIT = 0.90  # ... unless this share of the bandwidth is reached


def kernel_row(kernel: Kernel, backends: list[str], options: Any) -> dict[str, Any]:
    """Times, ratios, traffic and share of the bandwidth of one kernel."""
    inputs = kernel.inputs(1 / 64 if options.quick else 1.0)
    traffic = kernel.traffic(inputs)
    calls: dict[str, Call] = {}
    torch.compiler.reset()
    for backend in backends:
        calls[backend] = _bound(compiled(kernel.function, backend, dynamic=False), inputs)
        calls[backend]()
    samples = interleaved(calls, options.rounds, options.seconds)
    row = _row(kernel.name, samples, options)
    row["bytes"] = traffic
    row["share"] = traffic / row["seconds"] / bandwidth.measured(traffic)
    ratios = [row[key] for key in ("against", "eager") if row[key] is not None]
    row["good"] = all(ratio >= ENOUGH for ratio in ratios) or row["share"] >= AT_THE_LIMIT
    return row


def _bound(call: Callable[..., Any], inputs: tuple[torch.Tensor, ...]) -> Call:
    return lambda: call(*inputs)


def model_row(model: zoo.Model, backends: list[str], options: Any) -> dict[str, Any]:
    """Times and ratios of one model, and its fixed cost: the time of the same graph with next to no work in
    it.
    """
    sizes: list[zoo.Size] = ["test" if options.quick else "bench", "tiny"]
    measured: list[Mapping[str, list[float]]] = []
    for size in sizes:
        module, inputs = model.make(size)
        calls: dict[str, Call] = {}
        # Once for all contestants: what a reset forgets would be compiled again while it is being timed.
        torch.compiler.reset()
        for backend in backends:
            calls[backend] = _model_call(model, module, compiled(module, backend, dynamic=False), inputs)
            start = time.perf_counter()
            with _around(model):
                calls[backend]()
            if size == sizes[0]:
                CONSOLE.log(f"{model.name}: {backend} first call {time.perf_counter() - start:.1f} s")
        with _around(model):
            measured.append(interleaved(calls, options.rounds, options.seconds))
    row = _row(model.name, measured[0], options)
    row["fixed"] = statistics.median(measured[1][options.subject])
    row["fixed_against"] = statistics.median(measured[1][options.against])
    row["fixed_eager"] = statistics.median(measured[1]["eager"])
    row["good"] = row["against"] >= ENOUGH
    return row


def _around(model: zoo.Model) -> Any:
    """For inference, the context is entered once and not with each call; training enters it in each step."""
    return model.context() if model.kind == "inference" else torch.enable_grad()


def _model_call(
    model: zoo.Model, module: torch.nn.Module, call: Callable[..., Any], inputs: zoo.Inputs
) -> Call:
    if model.kind == "inference":
        return lambda: call(**inputs)

    def step() -> None:
        module.zero_grad(set_to_none=True)
        zoo.run(model, call, inputs)

    return step


def _row(name: str, samples: Mapping[str, list[float]], options: Any) -> dict[str, Any]:
    return {
        "name": name,
        "seconds": statistics.median(samples[options.subject]),
        "seconds_against": statistics.median(samples[options.against]),
        "seconds_eager": statistics.median(samples["eager"]),
        "against": median_ratio(samples, options.against, options.subject),
        "eager": median_ratio(samples, "eager", options.subject),
    }


def mark(good: bool) -> str:
    return "[green]yes[/green]" if good else "[red]no[/red]"


def show_kernels(rows: list[dict[str, Any]], options: Any) -> None:
    columns = (
        "eager ms",
        f"{options.against} ms",
        f"{options.subject} ms",
        f"x {options.against}",
        "x eager",
    )
    made = table("Kernels", "", *columns, "MB", "GB/s", "of bandwidth", "enough")
    for r in rows:
        made.add_row(
            r["name"],
            *(figure(1e3 * r[key], 3) for key in ("seconds_eager", "seconds_against", "seconds")),
            figure(r["against"]),
            figure(r["eager"]),
            figure(r["bytes"] / 1e6, 1),
            figure(r["bytes"] / r["seconds"] / 1e9, 1),
            f"{r['share']:.0%}",
            mark(r["good"]),
        )
    CONSOLE.print(made)
    mean = geometric_mean([r["against"] for r in rows])
    CONSOLE.print(f"geometric mean against {options.against}: [bold]{mean:.2f}[/bold]")


def show_models(rows: list[dict[str, Any]], options: Any) -> None:
    columns = (
        "eager ms",
        f"{options.against} ms",
        f"{options.subject} ms",
        f"x {options.against}",
        "x eager",
    )
    fixed = ("fixed us", f"{options.against} fixed us", "eager fixed us")
    made = table("Models", "", *columns, *fixed, "enough")
    for r in rows:
        made.add_row(
            r["name"],
            *(figure(1e3 * r[key]) for key in ("seconds_eager", "seconds_against", "seconds")),
            figure(r["against"]),
            figure(r["eager"]),
            *(figure(1e6 * r[key], 0) for key in ("fixed", "fixed_against", "fixed_eager")),
            mark(r["good"]),
        )
    CONSOLE.print(made)


def main() -> int:
    options = parser(__doc__ or "", "steady_state")
    options.add_argument("--kernels", action="store_true", help="kernels only")
    options.add_argument("--models", action="store_true", help="models only")
    options.add_argument("--rounds", type=int, default=31, metavar="N", help="turns of all contestants")
    options.add_argument(
        "--seconds", type=float, default=0.03, metavar="S", help="what a turn takes for each"
    )
    given = options.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(given.threads)
    kernels = [k.name for k in KERNELS] if given.kernels or not given.models else []
    models = [m.name for m in zoo.MODELS] if given.models or not given.kernels else []
    if given.quick:
        given.rounds, given.seconds = min(given.rounds, 5), 0.005
        models = [name for name in models if name in zoo.QUICK]
    names = chosen([*kernels, *models], given.only)
    backends = list(dict.fromkeys(["eager", given.against, given.subject]))
    headline(
        "Steady state", f"{given.rounds} interleaved turns; ratios are medians of ratios; above 1: faster"
    )
    kernel_rows = []
    for kernel in KERNELS:
        if kernel.name in names:
            with CONSOLE.status(kernel.name):
                kernel_rows.append(kernel_row(kernel, backends, given))
    if kernel_rows:
        show_kernels(kernel_rows, given)
    model_rows = []
    for model in zoo.MODELS:
        if model.name in names:
            with CONSOLE.status(model.name):
                model_rows.append(model_row(model, backends, given))
    if model_rows:
        show_models(model_rows, given)
    write_json(
        given.json, "steady_state", [*kernel_rows, *model_rows], subject=given.subject, against=given.against
    )
    return 0 if all(row["good"] for row in (*kernel_rows, *model_rows)) else 1


if __name__ == "__main__":
    sys.exit(main())
