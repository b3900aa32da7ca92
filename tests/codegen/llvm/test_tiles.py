"""Transposing kernels: square tiles against the reference interpreter."""

from __future__ import annotations

import pytest
import torch

from braze.codegen.llvm.generate import generate
from braze.ops.dag import Dag
from braze.ops.dtypes import compute_dtype
from braze.ops.kernel import BufferArg, Kernel, Stage, Store
from braze.runtime.expr import Symbol, as_expr
from tests.codegen.llvm.kernels import check, variable


def transposing(
    n: object, m: object, dtype: torch.dtype, stored: bool, symbols: tuple[Symbol, ...] = ()
) -> Kernel:
    """out = x + y.t(), and with ``stored`` a second output that is written transposed."""
    dag = Dag()
    i, j = variable("i0", n), variable("i1", m)
    row, column = i.expr * m + j.expr, j.expr * n + i.expr
    x, y = (dag.to_dtype(dag.load(b, e, dtype), compute_dtype(dtype)) for b, e in (("x", row), ("y", column)))
    value = dag.op("minimum", x, y)
    stores = [Store("o", row, value)]
    total = as_expr(n) * m
    buffers = [
        BufferArg("x", dtype, "in", total),
        BufferArg("y", dtype, "in", total),
        BufferArg("o", dtype, "out", total),
    ]
    if stored:
        stores.append(Store("q", column, dag.op("maximum", x, y)))
        buffers.append(BufferArg("q", dtype, "out", total))
    return Kernel("transposing", (), (Stage((i, j), (), tuple(stores)),), tuple(buffers), symbols)


def data(kernel: Kernel, sizes: dict[str, int] | None = None) -> dict[str, torch.Tensor]:
    return {
        b.name: torch.randint(-9, 9, (b.numel.evaluate(sizes or {}),)).to(b.dtype) for b in kernel.buffers
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.bool, torch.int64])
@pytest.mark.parametrize("stored", [False, True])
def test_tiles(dtype: torch.dtype, stored: bool) -> None:
    for n, m in [(16, 16), (17, 33), (48, 20), (64, 31)]:
        kernel = transposing(n, m, dtype, stored)
        assert "transposed" in str(generate(kernel, 8).plan)
        check(kernel, data(kernel), widths=(4, 8, 16), offset=1)


def test_symbolic() -> None:
    s0, s1 = Symbol("s0", 0), Symbol("s1", 0)
    kernel = transposing(s0.expr, s1.expr, torch.float32, True, (s0, s1))
    for n, m in [(0, 4), (1, 1), (5, 40), (16, 16), (33, 50)]:
        sizes = {"s0": n, "s1": m}
        check(kernel, data(kernel, sizes), sizes)
