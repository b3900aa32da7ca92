"""Kernels whose stages share outer loops: rows in cache, and columns on lanes."""

from __future__ import annotations

import pytest
import torch

from braze.codegen.llvm.generate import generate
from braze.ops.dag import Dag, Node
from braze.ops.kernel import BufferArg, Kernel, Stage, Store
from braze.runtime.expr import Expr, Symbol, as_expr
from tests.codegen.llvm.kernels import check, variable

F32 = torch.float32


def softmax(
    n: object, m: object, *, columns: bool, kept_row: bool, symbols: tuple[Symbol, ...] = ()
) -> Kernel:
    """Softmax of 2*x over m elements, n times; ``columns``: the n are contiguous, else the m."""
    dag = Dag()
    i, r, j = variable("i0", n), variable("r0", m), variable("i1", m)

    def at(v: Symbol) -> Expr:
        return v.expr * n + i.expr if columns else i.expr * m + v.expr

    def doubled(v: Symbol) -> Node:
        x = dag.load("x", at(v), F32)
        return dag.op("add", x, x)

    first = Stage((j,), (), (Store("row", j.expr, doubled(j)),))

    def value(v: Symbol) -> Node:
        return dag.load("row", v.expr, F32) if kept_row else doubled(v)

    top = Stage((), (r,), (Store("top", as_expr(0), dag.reduction("max", (value(r),), (r,))),))
    shifted = dag.op("exp", dag.op("sub", value(r), dag.load("top", 0, F32)))
    total = Stage((), (r,), (Store("total", as_expr(0), dag.reduction("sum", (shifted,), (r,))),))
    quotient = dag.op(
        "truediv", dag.op("exp", dag.op("sub", value(j), dag.load("top", 0, F32))), dag.load("total", 0, F32)
    )
    last = Stage((j,), (), (Store("o", at(j), quotient),))
    size = as_expr(n) * m
    buffers = [BufferArg("x", F32, "in", size), BufferArg("o", F32, "out", size)]
    buffers += [BufferArg(b, F32, "local", as_expr(1)) for b in ("top", "total")]
    if kept_row:
        buffers.append(BufferArg("row", F32, "local", as_expr(m)))
    stages = (first, top, total, last) if kept_row else (top, total, last)
    return Kernel("softmax", (i,), stages, tuple(buffers), symbols)


@pytest.mark.parametrize("columns", [False, True])
@pytest.mark.parametrize("kept_row", [False, True])
def test_softmax(columns: bool, kept_row: bool) -> None:
    for n, m in [(16, 5), (37, 17), (64, 33), (130, 8)]:
        kernel = softmax(n, m, columns=columns, kept_row=kept_row)
        if columns and n % 8 == 0:
            assert "i0 on 8 lanes" in str(generate(kernel, 8).plan)
        check(kernel, {b: torch.randn(n * m) for b in ("x", "o")}, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("columns", [False, True])
@pytest.mark.parametrize("kept_row", [False, True])
def test_symbolic_softmax(columns: bool, kept_row: bool) -> None:
    s0, s1 = Symbol("s0", 0), Symbol("s1", 1)
    kernel = softmax(s0.expr, s1.expr, columns=columns, kept_row=kept_row, symbols=(s0, s1))
    for n, m in [(0, 3), (1, 1), (16, 16), (37, 17), (3, 40)]:
        data = {b: torch.randn(n * m) for b in ("x", "o")}
        check(kernel, data, {"s0": n, "s1": m}, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("n", [5, 100, 300_000])
def test_stages_without_outer_loops_are_phases(n: int) -> None:
    """A mean over everything, then what uses it: the value passes through shared scratch memory."""
    dag = Dag()
    i, j, r = variable("i0", n), variable("i1", n), variable("r0", n)
    scale = dag.constant(1.0 / n, F32)
    mean = dag.op("mul", dag.reduction("sum", (dag.load("x", r.expr, F32),), (r,)), scale)
    stages = (
        Stage((), (r,), (Store("mean", as_expr(0), mean),)),
        Stage(
            (i,),
            (),
            (Store("row", i.expr, dag.op("sub", dag.load("x", i.expr, F32), dag.load("mean", 0, F32))),),
        ),
        Stage((j,), (), (Store("o", j.expr, dag.op("abs", dag.load("row", n - 1 - j.expr, F32))),)),
    )
    buffers = [BufferArg("x", F32, "in", as_expr(n)), BufferArg("o", F32, "out", as_expr(n))]
    buffers += [BufferArg("mean", F32, "local", as_expr(1)), BufferArg("row", F32, "local", as_expr(n))]
    kernel = Kernel("centre", (), stages, tuple(buffers))
    check(kernel, {b: torch.randn(n) for b in ("x", "o")}, rtol=1e-4, atol=1e-5)


def chosen(n: int, m: int) -> Kernel:
    """For each of n rows a row of m exponentials, of which an index tensor chooses one, less their sum."""
    dag = Dag()
    i, r, j = variable("i0", n), variable("r0", m), variable("i1", m)
    row = Stage((j,), (), (Store("row", j.expr, dag.op("exp", dag.load("x", i.expr * m + j.expr, F32))),))
    at = dag.check_index(dag.load("index", i.expr, torch.int64), m, wrap=False, error="IndexError|index|")
    total = dag.reduction("sum", (dag.load("row", r.expr, F32),), (r,))
    difference = dag.op("sub", dag.load("row", at, F32), total)
    last = Stage((), (r,), (Store("out", i.expr, difference),))
    buffers = (
        BufferArg("x", F32, "in", as_expr(n * m)),
        BufferArg("index", torch.int64, "in", as_expr(n)),
        BufferArg("row", F32, "local", as_expr(m)),
        BufferArg("out", F32, "out", as_expr(n)),
    )
    return Kernel("chosen", (i,), (row, last), buffers)


def guarded(n: int, m: int) -> Kernel:
    """For each of n rows its sum, which a longer row reads behind a mask of its own places."""
    dag = Dag()
    i, r, j = variable("i0", n), variable("r0", m), variable("i1", 2 * m)
    total = dag.reduction("sum", (dag.load("x", i.expr * m + r.expr, F32),), (r,))
    first = Stage((), (r,), (Store("total", as_expr(0), total),))
    place = dag.index_expr(j.expr, torch.int64)
    inside = dag.op("lt", place, dag.constant(m, torch.int64))
    value = dag.where(
        inside,
        dag.load("x", i.expr * m + j.expr, F32, inside),
        dag.load("total", 0, F32, dag.op("ge", place, dag.constant(m, torch.int64))),
    )
    second = Stage((j,), (), (Store("out", i.expr * (2 * m) + j.expr, value),))
    buffers = (
        BufferArg("x", F32, "in", as_expr(n * m)),
        BufferArg("total", F32, "local", as_expr(1)),
        BufferArg("out", F32, "out", as_expr(2 * n * m)),
    )
    return Kernel("guarded", (i,), (first, second), buffers)


@pytest.mark.parametrize(("n", "m"), [(64, 10), (33, 7), (128, 4), (3, 40)])
def test_a_row_read_where_a_tensor_says(n: int, m: int) -> None:
    kernel = chosen(n, m)
    data = {"x": torch.randn(n * m), "index": torch.randint(m, (n,)), "out": torch.zeros(n)}
    check(kernel, data, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("n", "m"), [(4, 5), (4, 40), (64, 33), (2, 200)])
def test_a_number_of_the_row_read_behind_a_mask(n: int, m: int) -> None:
    kernel = guarded(n, m)
    check(kernel, {"x": torch.randn(n * m), "out": torch.zeros(2 * n * m)}, rtol=1e-5, atol=1e-5)
