"""Pointwise kernels: machine code against the reference interpreter."""

from __future__ import annotations

import pytest
import torch

from braze.ops.dag import Dag
from braze.ops.kernel import BufferArg, Kernel, Stage, Store
from braze.runtime.expr import Symbol, as_expr
from tests.codegen.llvm.kernels import check, variable

F32 = torch.float32
SIZES = (0, 1, 3, 15, 16, 17, 63, 64, 65, 200, 1031)


def pointwise(size: object, symbols: tuple[Symbol, ...] = ()) -> Kernel:
    dag = Dag()
    i = variable("i0", size)
    x, y = dag.load("x", i.expr, F32), dag.load("y", i.expr, F32)
    value = dag.op("add", dag.op("exp", x), dag.op("mul", x, y))
    store = Store("out", i.expr, value)
    n = as_expr(size)
    buffers = (BufferArg("x", F32, "in", n), BufferArg("y", F32, "in", n), BufferArg("out", F32, "out", n))
    return Kernel("exp_mul_add", (), (Stage((i,), (), (store,)),), buffers, symbols)


@pytest.mark.parametrize("n", SIZES)
def test_static_sizes(n: int) -> None:
    data = {k: torch.randn(n) for k in ("x", "y", "out")}
    check(pointwise(n), data, offset=n % 3)


def test_symbolic_size() -> None:
    s = Symbol("s0", 0)
    kernel = pointwise(s.expr, (s,))
    for n in SIZES:
        check(kernel, {k: torch.randn(n) for k in ("x", "y", "out")}, {"s0": n}, offset=n % 2)


@pytest.mark.parametrize("step", [-3, -1, 2, 3, 4, 5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.int8, torch.float64])
def test_strides(step: int, dtype: torch.dtype) -> None:
    """Nothing behind the last element may be touched, so the input ends there."""
    for n in (1, 16, 33, 64):
        dag = Dag()
        i = variable("i0", n)
        index = i.expr * step + (0 if step > 0 else -step * (n - 1))
        store = Store("out", i.expr, dag.load("x", index, dtype))
        room = abs(step) * (n - 1) + 1
        buffers = (BufferArg("x", dtype, "in", as_expr(room)), BufferArg("out", dtype, "out", as_expr(n)))
        kernel = Kernel("strided", (), (Stage((i,), (), (store,)),), buffers)
        check(kernel, {"x": torch.arange(room).to(dtype), "out": torch.zeros(n, dtype=dtype)}, offset=n % 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.int8, torch.float64, torch.bfloat16, torch.bool])
@pytest.mark.parametrize("masked", [False, True])
def test_two_results_in_turn(dtype: torch.dtype, masked: bool) -> None:
    """Two stores to every other place, one element apart, are one: both parts of complex numbers."""
    for n in (1, 3, 16, 33, 64):
        dag = Dag()
        i = variable("i0", n)
        first, second = dag.load("x", i.expr, dtype), dag.load("y", i.expr, dtype)
        mask = dag.index_expr(i.expr % 3).ne(0) if masked else None
        stores = (
            Store("out", i.expr * 2, second, mask=mask),
            Store("out", i.expr * 2 + 1, first, mask=mask, continues=True),
        )
        buffers = (
            BufferArg("x", dtype, "in", as_expr(n)),
            BufferArg("y", dtype, "in", as_expr(n)),
            BufferArg("out", dtype, "out", as_expr(2 * n)),
        )
        kernel = Kernel("in_turn", (), (Stage((i,), (), stores),), buffers)
        data = {name: (torch.arange(n) * k % 5).to(dtype) for k, name in enumerate(("x", "y"), 2)}
        check(kernel, {**data, "out": torch.zeros(2 * n, dtype=dtype)}, offset=n % 2)
