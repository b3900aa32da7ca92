"""Programs that no lowering makes yet, beside what bounds them: how much of the machine a template can reach.

    python -m benchmarks.programs

The product of packed panels is measured against independent multiply-adds, the softmax in one pass against
the exponentials alone that it needs; all on one thread, in processor time, the best of several interleaved
runs.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable

import llvmlite.binding as llvm
import torch

from braze.codegen.program.program import Program
from braze.runtime.target import host_target
from tests.codegen.llvm.machine import compile_module
from tests.codegen.program.examples import (
    exponentials,
    multiply_add,
    online_softmax,
    packed_product,
    relu_of_bias,
)
from tests.codegen.program.running import code_of

ROUNDS = 15


def prepared(program: Program, buffers: dict[str, torch.Tensor], sizes: dict[str, int]) -> Callable[[], None]:
    """One call of a program on one thread."""
    code = code_of(program)
    engine: llvm.ExecutionEngine = compile_module(code.text)
    errors = (ctypes.c_int64 * 4)()
    (name,) = code.functions
    types = [ctypes.c_void_p] * (1 + len(code.buffers)) + [ctypes.c_int64] * len(code.program.sizes)
    function = ctypes.CFUNCTYPE(None, *types, ctypes.c_void_p, *[ctypes.c_int64] * 3)(
        engine.get_function_address(name)
    )
    given = [buffers[b].data_ptr() for b in code.buffers] + [sizes[s.name] for s in code.program.sizes]

    def call() -> None:
        function(ctypes.addressof(errors), *given, None, 0, 0, 1)

    call.kept = (engine, buffers, errors)  # type: ignore[attr-defined]
    return call


def seconds(calls: dict[str, Callable[[], None]]) -> dict[str, float]:
    """The best processor time of each call."""
    best = dict.fromkeys(calls, float("inf"))
    for _ in range(ROUNDS):
        for name, call in calls.items():
            start = time.process_time_ns()
            call()
            best[name] = min(best[name], (time.process_time_ns() - start) / 1e9)
    return best


def products(lanes: int, rows: int, columns: int) -> None:
    """The register-blocked product and its limit."""
    panels, depth, count, chains = 64, 256, 2_000_000, 24 if lanes == 16 else 12
    a, b = torch.randn(panels * depth * rows), torch.randn(depth * columns)
    buffers = {"a": a, "b": b, "c": torch.empty(panels * rows * columns), "bias": torch.randn(columns)}
    small = {"x": torch.full((lanes,), 0.5), "y": torch.empty(chains * lanes)}
    sizes = {"panels": panels, "depth": depth}
    again = 20
    product = prepared(packed_product(lanes, rows, columns), buffers, sizes)
    fused = prepared(packed_product(lanes, rows, columns, relu_of_bias), buffers, sizes)
    peak = prepared(multiply_add(lanes, chains), small, {"count": count})
    times = seconds(
        {
            "peak": peak,
            "product": lambda: [product() for _ in range(again)] and None,
            "fused": lambda: [fused() for _ in range(again)] and None,
        }
    )
    limit = 2 * count * chains * lanes / times["peak"] / 1e9
    flops = 2 * panels * depth * rows * columns * again
    for name in ("product", "fused"):
        reached = flops / times[name] / 1e9
        what = "with bias and relu" if name == "fused" else ""
        share = f"{reached:7.1f} of {limit:6.1f} Gflop/s  {reached / limit:.2f}"
        print(f"{rows:>3} x {columns} {lanes:>3} lanes  {share}  {what}")


def softmaxes(lanes: int) -> None:
    """The softmax in one pass and its limit."""
    rows, columns = 64, 16384
    x = torch.randn(rows * columns)
    softmax = prepared(
        online_softmax(lanes), {"x": x, "y": torch.empty_like(x)}, {"rows": rows, "columns": columns}
    )
    exps = prepared(exponentials(lanes), {"x": x, "y": torch.empty_like(x)}, {"count": rows * columns})
    times = seconds({"softmax": softmax, "exponentials": exps})
    needed = times["exponentials"] * (1 + 5 / 4)  # five for four elements, then one for each
    taken, share = times["softmax"] * 1e3, needed / times["softmax"]
    alone = f"its exponentials alone {needed * 1e3:.2f} ms"
    print(f"softmax {lanes:>3} lanes  {taken:.2f} ms, {alone}  {share:.2f}")


def main() -> None:
    lanes = host_target().lanes
    print("one thread; the last figure is the share of the limit that is reached")
    if lanes >= 16:
        products(16, 14, 32)
    products(8, 6, 16)
    softmaxes(lanes)


if __name__ == "__main__":
    main()
