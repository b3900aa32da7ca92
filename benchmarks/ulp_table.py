"""The accuracy of every float32 function of one argument over all 2**32 inputs, and its speed beside eager's.

    python -m benchmarks.ulp_table                 # every function, half a minute or more each
    python -m benchmarks.ulp_table exp tanh        # some
    python -m benchmarks.ulp_table --stride 97     # one input in 97
    python -m benchmarks.ulp_table --write         # put the table into docs/vector-math.md as well

The reference is torch's float64 function, right to about 1e-16.
"""

from __future__ import annotations

import argparse
import ctypes
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from braze.codegen.llvm.builder import F64, I32, I64, PTR, FunctionBuilder, ModuleBuilder, Type, constant
from braze.codegen.llvm.vecmath import emit
from tests.codegen.llvm.machine import VECTOR_BITS, array_function, compile_module, ulp_error, ulp_errors

DOCUMENT = Path(__file__).parents[1] / "docs" / "vector-math.md"
START, END = "<!-- table: benchmarks/ulp_table.py -->", "<!-- end of table -->"
CHUNK = 1 << 15

UNARY: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], tuple[float, float]]] = {
    "exp": (torch.exp, (-20, 20)),
    "exp2": (torch.exp2, (-20, 20)),
    "expm1": (torch.expm1, (-5, 5)),
    "log": (torch.log, (0, 100)),
    "log1p": (torch.log1p, (-1, 100)),
    "log2": (torch.log2, (0, 100)),
    "log10": (torch.log10, (0, 100)),
    "sqrt": (torch.sqrt, (0, 100)),
    "rsqrt": (torch.rsqrt, (0, 100)),
    "sin": (torch.sin, (-100, 100)),
    "cos": (torch.cos, (-100, 100)),
    "tan": (torch.tan, (-100, 100)),
    "asin": (torch.asin, (-1, 1)),
    "acos": (torch.acos, (-1, 1)),
    "atan": (torch.atan, (-5, 5)),
    "sinh": (torch.sinh, (-10, 10)),
    "cosh": (torch.cosh, (-10, 10)),
    "tanh": (torch.tanh, (-5, 5)),
    "asinh": (torch.asinh, (-10, 10)),
    "acosh": (torch.acosh, (1, 10)),
    "atanh": (torch.atanh, (-1, 1)),
    "sigmoid": (torch.sigmoid, (-10, 10)),
    "erf": (torch.erf, (-4, 4)),
    "erfc": (torch.erfc, (-4, 8)),
    "erfinv": (torch.erfinv, (-1, 1)),
    "lgamma": (torch.lgamma, (0, 20)),
}
"""Function -> eager's, and the interval that speed is measured on."""


@dataclass
class Row:
    """One line of the table."""

    name: str
    error: float
    where: float
    braze_ns: float
    eager_ns: float


def _sweep_module(name: str) -> str:
    """``inputs``: f(x), and x as double, for consecutive bit patterns; ``worst``: a chunk's largest error."""
    lanes = VECTOR_BITS // 32
    module = ModuleBuilder("sweep", vector_bits=VECTOR_BITS)
    fb = FunctionBuilder(
        module, "inputs", [("x", PTR), ("y", PTR), ("first", I32), ("stride", I32), ("n", I64)]
    )
    first = fb.splat(fb.params["first"], lanes)
    stride = fb.splat(fb.params["stride"], lanes)
    with fb.for_range(constant(I64, 0), fb.params["n"], lanes) as loop:
        index = fb.add(fb.splat(fb.trunc(loop.index, "i32"), lanes), fb.lane_ids(Type("i32", lanes)))
        x = fb.bitcast(fb.add(first, fb.mul(index, stride)), Type("float", lanes))
        fb.store(fb.fpext(x, "double"), fb.gep(fb.params["x"], loop.index, "double"))
        fb.store(emit(fb, name, x), fb.gep(fb.params["y"], loop.index, "float"))
    fb.ret()
    fb = FunctionBuilder(module, "worst", [("y", PTR), ("reference", PTR), ("n", I64)], F64)
    kind = Type("double", lanes)
    with fb.for_range(constant(I64, 0), fb.params["n"], lanes, [constant(kind, 0.0)]) as loop:
        got = fb.load(fb.gep(fb.params["y"], loop.index, "float"), Type("float", lanes))
        error = ulp_error(fb, got, fb.load(fb.gep(fb.params["reference"], loop.index, "double"), kind))
        loop.set_next(fb.select(fb.fcmp("ogt", error, loop.carried[0]), error, loop.carried[0]))
    fb.ret(fb.reduce("fmax", loop.results[0]))
    return module.text()


def accuracy(name: str, stride: int) -> tuple[float, float]:
    """Largest error in ULP and the input it belongs to, over every ``stride``-th bit pattern."""
    engine = compile_module(_sweep_module(name))
    pointer = ctypes.c_void_p
    inputs = ctypes.CFUNCTYPE(None, pointer, pointer, ctypes.c_int32, ctypes.c_int32, ctypes.c_int64)(
        engine.get_function_address("inputs")
    )
    largest = ctypes.CFUNCTYPE(ctypes.c_double, pointer, pointer, ctypes.c_int64)(
        engine.get_function_address("worst")
    )
    x = torch.empty(CHUNK, dtype=torch.float64)
    y = torch.empty(CHUNK, dtype=torch.float32)
    reference = torch.empty(CHUNK, dtype=torch.float64)
    worst, where = -1.0, 0.0
    for start in range(-(2**31), 2**31, CHUNK * stride):
        inputs(x.data_ptr(), y.data_ptr(), start, stride, CHUNK)
        UNARY[name][0](x, out=reference)  # type: ignore[call-arg]
        found = largest(y.data_ptr(), reference.data_ptr(), CHUNK)
        if found > worst:
            at = int(ulp_errors(y.numpy(), reference.numpy()).argmax())
            worst, where = found, float(x[at])
    return worst, where


def speed(name: str, size: int = 1 << 16) -> tuple[float, float]:
    """Nanoseconds an element on one core, ours and eager's, on an array of 256 KiB."""
    reference, (low, high) = UNARY[name]
    lanes = VECTOR_BITS // 32
    function = array_function(lambda fb, x: emit(fb, name, x), ["float"], ["float"], lanes)
    x = torch.empty(size).uniform_(low, high)
    out = torch.empty(size)
    native = function.native  # type: ignore[attr-defined]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        ours = best(lambda: native(x.data_ptr(), out.data_ptr(), size))
        eager = best(lambda: reference(x, out=out))  # type: ignore[call-arg]
    finally:
        torch.set_num_threads(threads)
    return ours / size * 1e9, eager / size * 1e9


def best(call: Callable[[], object]) -> float:
    """Seconds of the fastest of many calls."""
    shortest = float("inf")
    for _ in range(300):
        start = time.perf_counter()
        call()
        shortest = min(shortest, time.perf_counter() - start)
    return shortest


def write(rows: list[Row]) -> None:
    """Put the rows into the document's table, in place of older ones of the same functions."""
    text = DOCUMENT.read_text()
    before, rest = text.split(START)
    table, after = rest.split(END)
    lines = {line.split("`")[1]: line for line in table.splitlines() if line.startswith("| `")}
    for r in rows:
        cells = f"{r.error:.3f} | {r.where:.9g} | {r.braze_ns:.2f} | {r.eager_ns:.2f}"
        lines[r.name] = f"| `{r.name}` | {cells} |"
    header = "| function | max error (ULP) | at | Braze (ns/element) | eager (ns/element) |"
    body = "\n".join(
        [header, "| --- | ---: | ---: | ---: | ---: |", *[lines[n] for n in UNARY if n in lines]]
    )
    DOCUMENT.write_text(f"{before}{START}\n\n{body}\n\n{END}{after}")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("names", nargs="*", choices=[*UNARY, []], help="functions; all by default")
    parser.add_argument("--stride", type=int, default=1, help="take one bit pattern in so many")
    parser.add_argument("--write", action="store_true", help="put the table into docs/vector-math.md")
    options = parser.parse_args()
    console = Console()
    rows = []
    for name in options.names or UNARY:
        start = time.perf_counter()
        error, where = accuracy(name, options.stride)
        rows.append(Row(name, error, where, *speed(name)))
        console.print(
            f"{name:8} {error:8.3f} ULP at {where:.9g}  ({time.perf_counter() - start:.0f} s)",
            highlight=False,
        )
    table = Table(title=f"float32, {2**32 // options.stride:,} inputs, {VECTOR_BITS}-bit vectors, one core")
    table.add_column("function")
    for heading in ("max ULP", "at", "Braze ns", "eager ns", "faster by"):
        table.add_column(heading, justify="right")
    for r in rows:
        ratio = f"{r.eager_ns / r.braze_ns:.1f}x"
        table.add_row(
            r.name, f"{r.error:.3f}", f"{r.where:.6g}", f"{r.braze_ns:.2f}", f"{r.eager_ns:.2f}", ratio
        )
    console.print(table)
    if options.write:
        write(rows)


if __name__ == "__main__":
    main()
