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
