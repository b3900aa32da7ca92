"""Checked indices and divisors: what is reported, and that nothing is touched out of bounds."""

from __future__ import annotations

import pytest
import torch

from braze.codegen.llvm.generate import generate
from braze.ops.dag import Dag
from braze.ops.kernel import BufferArg, Kernel, Stage, Store
from braze.runtime.checks import Check
from braze.runtime.expr import as_expr
from tests.codegen.llvm.kernels import WIDTHS, check, check_guards, execute, guarded, variable

F32, I64 = torch.float32, torch.int64
ERROR = Check("IndexError", "aten.index.Tensor", "model.py:3").encode()
OUT_OF_RANGE = Check("RuntimeError", "aten.normal.Tensor_Tensor", "model.py:5", "it is negative").encode()
ZERO = Check("ZeroDivisionError", "aten.div.Tensor", "model.py:4").encode()


def lookup(n: int, rows: int, *, wrap: bool, masked: bool = False) -> Kernel:
    """o[i] = table[index[i]], only where keep[i] if ``masked``."""
    dag = Dag()
    i = variable("i0", n)
    keep = dag.load("keep", i.expr, torch.bool) if masked else None
    at = dag.check_index(dag.load("index", i.expr, I64), rows, wrap=wrap, error=ERROR, mask=keep)
    value = dag.load("table", at, F32, keep)
    buffers = [BufferArg("index", I64, "in", as_expr(n)), BufferArg("table", F32, "in", as_expr(rows))]
    buffers += [BufferArg("keep", torch.bool, "in", as_expr(n)), BufferArg("o", F32, "out", as_expr(n))]
    return Kernel("lookup", (), (Stage((i,), (), (Store("o", i.expr, value),)),), tuple(buffers))


def data(n: int, rows: int) -> dict[str, torch.Tensor]:
    index = torch.randint(0, rows, (n,))
    keep = torch.rand(n) < 0.5
    return {"index": index, "table": torch.randn(rows), "keep": keep, "o": torch.zeros(n)}


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("bad", [7, -8, 1 << 40, -(1 << 62)])
@pytest.mark.parametrize("at", [0, 5, 36])
def test_index_out_of_range_is_reported(width: int, bad: int, at: int) -> None:
    code = generate(lookup(37, 7, wrap=True), width)
    assert code.checks == (ERROR,)
    buffers = {k: guarded(v) for k, v in data(37, 7).items()}
    buffers["index"][at] = bad
    assert execute(code, buffers, {})[:3] == [101, bad, 7]
    check_guards(buffers["o"])


def test_negative_indices_wrap_where_asked() -> None:
    buffers = data(37, 7)
    buffers["index"] -= 7
    check(lookup(37, 7, wrap=True), buffers)
    errors = execute(generate(lookup(37, 7, wrap=False), 8), buffers, {})
    assert errors[0] == 101
    assert errors[1] < 0


@pytest.mark.parametrize("width", WIDTHS)
def test_masked_lanes_are_not_checked(width: int) -> None:
    buffers = data(37, 7)
    buffers["index"][~buffers["keep"]] = 1 << 50
    assert execute(generate(lookup(37, 7, wrap=True, masked=True), width), buffers, {})[0] == 0
    kept = buffers["keep"]
    assert torch.equal(buffers["o"][kept], buffers["table"][buffers["index"][kept]])
    assert not buffers["o"][~kept].any()


@pytest.mark.parametrize("width", WIDTHS)
def test_division_by_zero_is_reported(width: int) -> None:
    for dtype in (torch.int64, torch.int32, torch.uint8):
        dag = Dag()
        i = variable("i0", 19)
        divisor = dag.check_nonzero(dag.load("y", i.expr, dtype), ZERO)
        value = dag.op("floordiv", dag.load("x", i.expr, dtype), divisor)
        buffers = tuple(BufferArg(b, dtype, "out" if b == "o" else "in", as_expr(19)) for b in "xyo")
        kernel = Kernel("divide", (), (Stage((i,), (), (Store("o", i.expr, value),)),), buffers)
        values = {b: torch.arange(1, 20).to(dtype) for b in "xyo"}
        assert execute(generate(kernel, width), values, {})[0] == 0
        values["y"][17] = 0
        assert execute(generate(kernel, width), values, {})[0] == 101


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("place", [0, 7, 16, 18])
def test_a_broken_condition_is_reported_and_lanes_that_do_not_exist_are_not_asked(
    width: int, place: int
) -> None:
    dag = Dag()
    i = variable("i0", 19)
    x = dag.load("x", i.expr, torch.float32)
    value = dag.check(x, dag.op("gt", x, dag.constant(0, torch.float32)), OUT_OF_RANGE)
    buffers = tuple(BufferArg(b, torch.float32, "out" if b == "o" else "in", as_expr(19)) for b in "xo")
    kernel = Kernel("positive", (), (Stage((i,), (), (Store("o", i.expr, value),)),), buffers)
    values = {"x": torch.arange(1, 20, dtype=torch.float32), "o": torch.zeros(19)}
    assert execute(generate(kernel, width), values, {})[0] == 0
    assert torch.equal(values["o"], values["x"])
    values["x"][place] = -1
    assert execute(generate(kernel, width), values, {})[0] == 101


def test_least_integer_by_minus_one_does_not_trap() -> None:
    for dtype in (torch.int64, torch.int32, torch.int16, torch.int8):
        dag = Dag()
        i = variable("i0", 5)
        x, y = dag.load("x", i.expr, dtype), dag.load("y", i.expr, dtype)
        stores = tuple(Store(n, i.expr, dag.op(n, x, y)) for n in ("floordiv", "truncdiv", "mod", "fmod"))
        out = [BufferArg(s.buffer, dtype, "out", as_expr(5)) for s in stores]
        buffers = (BufferArg("x", dtype, "in", as_expr(5)), BufferArg("y", dtype, "in", as_expr(5)), *out)
        kernel = Kernel("least", (), (Stage((i,), (), stores),), buffers)
        least = torch.iinfo(dtype).min
        values = {b.name: torch.zeros(5, dtype=dtype) for b in buffers}
        values["x"] = torch.tensor([least, 7, -7, least, least + 1], dtype=dtype)
        values["y"] = torch.tensor([-1, -2, 2, 3, -1], dtype=dtype)
        for width in WIDTHS:
            execute(generate(kernel, width), values, {})
            assert values["floordiv"].tolist()[:3] == [least, -4, -4]
            assert values["truncdiv"].tolist()[1:3] == [-3, -3]
            assert values["mod"].tolist()[:3] == [0, -1, 1]
            assert values["fmod"].tolist()[:3] == [0, 1, -1]
