"""What `braze.fuse` costs and gives: kernels, the overhead of a call, chains of operators, threads.

python -m benchmarks.fuser                      everything
python -m benchmarks.fuser --only chains        one part: shapes, overhead, chains or threads
"""

from __future__ import annotations

import functools
import itertools
import random
import statistics
import sys
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch

import braze
from benchmarks.common import (
    CONSOLE,
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

Function = Callable[..., torch.Tensor]
Rows = list[dict[str, Any]]

STEPS = (
    ("t * y", lambda t, x, y: t * y),
    ("t + x", lambda t, x, y: t + x),
    ("tanh(t)", lambda t, x, y: torch.tanh(t)),
    ("t * 0.5", lambda t, x, y: t * 0.5),
    ("t - y", lambda t, x, y: t - y),
    ("exp(t)", lambda t, x, y: torch.exp(t)),
    ("t + 1.5", lambda t, x, y: t + 1.5),
    ("sqrt(t)", lambda t, x, y: torch.sqrt(t)),
    ("t * x", lambda t, x, y: t * x),
    ("where(t > y, t, y)", lambda t, x, y: torch.where(t > y, t, y)),
)
"""A chain goes through these again and again: as numexpr writes them, and as torch does."""
ELEMENTS = 1 << 20


def chain(length: int) -> Function:
    """A function of two tensors: so many operators, one after the other."""

    def run(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        t = x
        for _, step in itertools.islice(itertools.cycle(STEPS), length):
            t = step(t, x, y)
        return t

    return run


def chain_source(length: int) -> str:
    """The same chain as source, which TorchScript wants."""
    lines = ["def run(x: Tensor, y: Tensor) -> Tensor:", "    t = x"]
    for text, _ in itertools.islice(itertools.cycle(STEPS), length):
        for name in ("tanh", "exp", "sqrt", "where"):
            text = text.replace(f"{name}(", f"torch.{name}(")
        lines.append(f"    t = {text}")
    return "\n".join([*lines, "    return t"]) + "\n"


def chain_expression(length: int) -> str:
    """The same chain as one expression for numexpr."""
    expression = "x"
    for text, _ in itertools.islice(itertools.cycle(STEPS), length):
        expression = (
            text.replace("t > y, t", f"({expression}) > y, ({expression})")
            if "where" in text
            else ("".join(f"({expression})" if word == "t" else word for word in _words(text)))
        )
    return expression


def _words(text: str) -> list[str]:
    words, current = [], ""
    for c in text:
        if c.isalnum() or c == "_":
            current += c
            continue
        words += [current] if current else []
        words.append(c)
        current = ""
    return [*words, current]


# -- 1. one kernel for every shape ------------------------------------------------------------------------
def shapes(options: Any) -> Rows:
    """Kernels and time for a thousand random shapes, and for a sweep of ranks, broadcasts, types, strides."""
    count = 100 if options.quick else 1000

    @braze.fuse
    def swiglu(x: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.silu(gate) * x

    swiglu(torch.randn(2, 3).double(), torch.randn(3).double())  # what is loaded once is no shape's cost
    rng = random.Random(5)
    rows: Rows = []

    def measured(name: str, calls: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> None:
        before = braze.fuser.stats()
        start = time.perf_counter()
        for x, gate in calls:
            swiglu(x, gate)
        seconds = time.perf_counter() - start
        after = braze.fuser.stats()
        start = time.perf_counter()
        for x, gate in calls:
            swiglu(x, gate)
        again = time.perf_counter() - start
        kernels = after.compiled + after.loaded - before.compiled - before.loaded
        rows.append(
            {
                "name": name,
                "calls": len(calls),
                "traces": after.traces - before.traces,
                "kernels": kernels,
                "fallbacks": sum(after.fallbacks.values()) - sum(before.fallbacks.values()),
                "us a call": 1e6 * seconds / len(calls),
                "us again": 1e6 * again / len(calls),
            }
        )

    def sizes(rank: int) -> list[int]:
        return [rng.randint(2, 12) for _ in range(rank)]

    same = [sizes(3) for _ in range(count)]
    measured("rank 3, contiguous", [(torch.randn(s), torch.randn(s)) for s in same])
    ranks = [sizes(rng.randint(1, 5)) for _ in range(count)]
    measured("ranks 1 to 5, contiguous", [(torch.randn(s), torch.randn(s)) for s in ranks])
    rows_ = [sizes(2) for _ in range(count)]
    measured("a row to a matrix", [(torch.randn(s), torch.randn(s[1:])) for s in rows_])
    measured("a column to a matrix", [(torch.randn(s), torch.randn(s[0], 1)) for s in rows_])
    measured("transposed and not", [(torch.randn(s), torch.randn(s[::-1]).t()) for s in rows_])
    measured("both transposed", [(torch.randn(s).t(), torch.randn(s).t()) for s in rows_])
    measured("every second row", [(torch.randn(2 * s[0], s[1])[::2], torch.randn(s)) for s in rows_])
    for dtype in (torch.bfloat16, torch.float16, torch.float64):
        measured(f"{dtype}, contiguous", [(torch.randn(s).to(dtype), torch.randn(s).to(dtype)) for s in same])
    columns = ("arguments", "calls", "traces", "kernels", "fallbacks", "us, first seen", "us, again")
    made = table("One kernel for every shape", *columns)
    for r in rows:
        made.add_row(
            *[str(r[k]) for k in ("name", "calls", "traces", "kernels", "fallbacks")],
            figure(r["us a call"], 1),
            figure(r["us again"], 1),
        )
    CONSOLE.print(made)
    return rows


# -- 2. what a call costs ---------------------------------------------------------------------------------
def overhead(options: Any) -> Rows:
    """Eight elements: a fused call, the launch by hand, and compiled functions."""

    def function(x: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.silu(gate) * x

    fused = braze.fuse(function)
    x, gate = torch.randn(8), torch.randn(8)
    fused(x, gate)
    by_hand = _by_hand(fused, x, gate)
    contestants: dict[str, Any] = {"by hand": by_hand, "fused": fused, "eager": function}
    for backend in dict.fromkeys((options.subject, options.against)):
        contestants[f"compile {backend}"] = compiled(function, backend)
    alternating = [(torch.randn(8 + k), torch.randn(8 + k)) for k in range(7)]
    turn = itertools.cycle(alternating)
    calls = {name: (lambda call=call: call(x, gate)) for name, call in contestants.items()}
    calls["fused, 7 shapes in turn"] = lambda: fused(*next(turn))
    with torch.no_grad():
        samples = interleaved(calls, options.rounds, options.seconds)
    rows: Rows = []
    for name in calls:
        microseconds = 1e6 * statistics.median(samples[name])
        above = 1e6 * statistics.median(a - b for a, b in zip(samples[name], samples["by hand"]))
        rows.append(
            {
                "name": name,
                "us": microseconds,
                "above": above,
                "share": median_ratio(samples, name, f"compile {options.against}"),
            }
        )
    made = table("A call on 8 elements", "", "us", "us above by hand", f"of compile {options.against}'s")
    for r in rows:
        made.add_row(r["name"], figure(r["us"]), figure(r["above"]), figure(r["share"]))
    CONSOLE.print(made)
    return rows


def _by_hand(fused: Any, x: torch.Tensor, gate: torch.Tensor) -> Callable[..., torch.Tensor]:
    """The kernel as one would call it by hand: an output, four addresses and a size, the machine code."""
    from braze.fuser.launch import define, prepare  # the same launch, and nothing around it

    function = fused.fused
    traced = function.specializer.traced(function.described([x, gate], []), [x, gate])
    sizes = len(traced.sizes)
    prepared = prepare(traced.graph, [*[0] * sizes, x, gate])
    lines, names = prepared.body()
    lines = [f"in{sizes}, in{sizes + 1} = x, gate", *lines, f"return {prepared.results[0]}"]
    return define("by_hand", ["x", "gate"], lines, names)


# -- 3. chains of operators -------------------------------------------------------------------------------
def chains(options: Any) -> Rows:
    """4, 10 and 30 operators on a million elements, against everybody who fuses."""
    elements = ELEMENTS // 64 if options.quick else ELEMENTS
    rows: Rows = []
    for dtype, length in itertools.product((torch.float32, torch.bfloat16), (4, 10, 30)):
        torch._dynamo.reset()  # each chain is one more function with the same code
        torch.manual_seed(2)
        x, y = (torch.rand(elements).add_(0.5).to(dtype) for _ in range(2))
        function = chain(length)
        contestants: dict[str, Callable[..., Any]] = {
            "eager": function,
            "fused": braze.fuse(function),
            f"compile {options.against}": compiled(function, options.against),
            f"compile {options.subject}": compiled(function, options.subject),
        }
        script = torch.jit.CompilationUnit(chain_source(length)).run
        contestants["jit.script"] = script
        if dtype is torch.float32:
            evaluate = _numexpr(length, options.threads)
            if evaluate is not None:
                contestants["numexpr"] = lambda a, b, evaluate=evaluate: evaluate(a.numpy(), b.numpy())
        calls = {name: functools.partial(call, x, y) for name, call in contestants.items()}
        tolerance = (3e-2, 1e-2) if dtype is torch.bfloat16 else (1e-4, 1e-5)
        with torch.no_grad():
            expected = function(x, y)
            for call in calls.values():
                for _ in range(3):  # TorchScript profiles, and compiles at its third call
                    result = torch.as_tensor(call())
                torch.testing.assert_close(result, expected, rtol=tolerance[0], atol=tolerance[1])
            samples = interleaved(calls, options.rounds, options.seconds * 2)
        row: dict[str, Any] = {"dtype": str(dtype).removeprefix("torch."), "operators": length}
        row |= {name: 1e3 * statistics.median(times) for name, times in samples.items()}
        fastest = min(
            (n for n in samples if n not in ("fused", "eager", f"compile {options.subject}")),
            key=lambda n: row[n],
        )
        row["fastest"] = fastest
        row["against eager"] = median_ratio(samples, "eager", "fused")
        row["against fastest"] = median_ratio(samples, fastest, "fused")
        row["GB/s"] = 3 * x.numel() * x.element_size() / row["fused"] / 1e6
        rows.append(row)
    compilers = [f"compile {options.against}", f"compile {options.subject}"]
    names = ["eager", "jit.script", "numexpr", *compilers, "fused"]
    made = table(
        "Chains, milliseconds", "dtype", "operators", *names, "x eager", "x fastest other", "GB/s", left=1
    )
    for r in rows:
        made.add_row(
            r["dtype"],
            str(r["operators"]),
            *[figure(r.get(n), 3) for n in names],
            figure(r["against eager"]),
            f"{figure(r['against fastest'])} ({r['fastest']})",
            figure(r["GB/s"], 1),
        )
    CONSOLE.print(made)
    mean = geometric_mean([r["against fastest"] for r in rows])
    CONSOLE.print(f"geometric mean against the fastest other: {mean:.2f}")
    return rows


def _numexpr(length: int, threads: int) -> Callable[..., Any] | None:
    try:
        import numexpr
    except ImportError:
        CONSOLE.print("[dim]numexpr is not installed: pip install numexpr[/dim]")
        return None
    numexpr.set_num_threads(threads)
    expression = chain_expression(length)
    expression = expression.replace("0.5", "half").replace("1.5", "more")

    import numpy

    # a literal would make float64 of everything
    half, more = numpy.float32(0.5), numpy.float32(1.5)

    def evaluate(x: Any, y: Any) -> Any:
        return numexpr.evaluate(expression, local_dict={"x": x, "y": y, "half": half, "more": more})

    return evaluate


# -- 4. threads -------------------------------------------------------------------------------------------
def threads(options: Any) -> Rows:
    """Eight threads call one function with mixed shapes and types."""
    calls = 2000 if options.quick else 100_000

    def function(x: torch.Tensor, y: torch.Tensor, scale: float) -> torch.Tensor:
        return torch.sigmoid(x) * y + scale

    fused = braze.fuse(function)
    inputs = []
    for dtype, shape in itertools.product(
        (torch.float32, torch.float64, torch.bfloat16), ((5,), (3, 4), (2, 3, 5), (8, 1))
    ):
        x, y = (
            torch.randn(shape).to(dtype),
            torch.randn(*shape[:-1], 6 if shape[-1] == 1 else shape[-1]).to(dtype),
        )
        inputs.append((x, y, function(x, y, 0.25)))
    before = braze.fuser.stats()
    wrong: list[str] = []
    begin = threading.Barrier(8)

    def work(seed: int) -> None:
        rng = random.Random(seed)
        begin.wait()
        for _ in range(calls // 8):
            x, y, expected = rng.choice(inputs)
            got = fused(x, y, 0.25)
            if got.dtype is not expected.dtype or not torch.allclose(got, expected, rtol=1e-2, atol=1e-2):
                wrong.append(f"{x.dtype} {tuple(x.shape)}")

    workers = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    start = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    seconds = time.perf_counter() - start
    after = braze.fuser.stats()
    kernels = after.compiled + after.loaded - before.compiled - before.loaded
    row = {"calls": calls, "wrong": len(wrong), "kernels": kernels, "seconds": seconds}
    made = table("Eight threads, one function", "calls", "wrong", "kernels", "seconds", left=0)
    made.add_row(*[str(row[k]) for k in ("calls", "wrong", "kernels")], figure(seconds, 1))
    CONSOLE.print(made)
    return [row]


PARTS = {"shapes": shapes, "overhead": overhead, "chains": chains, "threads": threads}


def main() -> int:
    made = parser(__doc__ or "", "fuser")
    made.add_argument("--rounds", type=int, default=31, metavar="N", help="turns of all contestants")
    made.add_argument("--seconds", type=float, default=0.02, metavar="S", help="what a turn takes for each")
    given = made.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(given.threads)
    if given.quick:
        given.rounds, given.seconds = 5, 0.002
    headline("The fuser", f"medians of {given.rounds} interleaved turns")
    rows: Rows = []
    for name in chosen(list(PARTS), given.only):
        rows += [{"part": name, **row} for row in PARTS[name](given)]
    write_json(given.json, "fuser", rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
