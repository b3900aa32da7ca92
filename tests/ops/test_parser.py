from __future__ import annotations

import pytest
import torch
from hypothesis import given

from braze.errors import ParseError
from braze.ops.dag import Dag
from braze.ops.interpreter import interpret
from braze.ops.kernel import BufferArg, Kernel, Stage, Store
from braze.ops.parser import parse_kernel
from braze.runtime.expr import Symbol, as_expr, minimum
from tests.ops.generators import INDEX_CHECK, Case, cases, compare

TEXT = """\
kernel gather(in p: i64[s0], in x: f32[min(64, s0)*3], out y: bf16[s0]; 2 <= s0 <= 100):
  for i0 < s0:
    stage once:
      t0 = index(i0): i32
      t1 = 4: i32
      t2 = lt(t0, t1)
      t3 = load(p, i0): i64
      t4 = check_index(t3, min(64, s0), wrap=True, error='IndexError|aten.index: x|a, b.py:1'): i64
      t5 = load(x, t4*3 + 1, mask=t2): f32
      t6 = -inf: f32
      t7 = maximum(t5, t6)
      store(y, i0, t7, mask=t2)"""


def test_a_kernel_reads_as_it_is_printed() -> None:
    kernel = parse_kernel(TEXT, Dag())
    assert str(kernel) == TEXT
    assert [b.role for b in kernel.buffers] == ["in", "in", "out"]
    assert kernel.sizes == (Symbol("s0", 2, 100),)
    assert kernel.buffer("x").numel == minimum(64, kernel.sizes[0].expr) * 3
    assert kernel.stages[0].stores[0].mask is not None


@given(cases())
def test_the_printed_form_parses_back(case: Case) -> None:
    text = str(case.kernel)
    again = parse_kernel(text, Dag())
    assert str(again) == text
    assert parse_kernel(text, case.dag) == case.kernel


@given(cases(specials=True))
def test_what_is_parsed_computes_the_same(case: Case) -> None:
    expected, actual = case.fresh(), case.fresh()
    interpret(case.kernel, expected, case.sizes)
    interpret(parse_kernel(str(case.kernel), Dag()), actual, case.sizes)
    compare(case, actual, expected)


def test_a_parsed_kernel_is_the_same_data_in_the_same_dag() -> None:
    dag, i = Dag(), Symbol("i0", 0, 9)
    position = dag.load("p", i.expr, torch.int64)
    vouched = dag.indirect(position, 7)
    twice = dag.indirect(position, 8)
    checked = dag.check_index(position, 7, wrap=True, error=INDEX_CHECK)
    total = dag.op(
        "add", dag.load("x", vouched + twice * 7, torch.float32), dag.load("x", checked, torch.float32)
    )
    constants = [dag.constant(v, torch.float32) for v in (-0.0, float("nan"), float("-inf"), 0.1)]
    for c in constants:
        total = dag.op("add", total, c)
    args = (
        BufferArg("p", torch.int64, "in", as_expr(10)),
        BufferArg("x", torch.float32, "in", as_expr(56)),
        BufferArg("y", torch.float32, "out", as_expr(10)),
    )
    kernel = Kernel("k", (), (Stage((i,), (), (Store("y", i.expr, total),)),), args)
    text = str(kernel)
    assert "x0 = bounded(t0, 7)" in text
    assert "x1 = bounded(t0, 8)" in text
    assert "-0.0: f32" in text
    assert parse_kernel(text, dag) == kernel
    assert parse_kernel(text, dag).stages[0].stores[0].value is total


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("kernel", "colonel"),
        ("in p: i64", "within p: i64"),
        ("in p: i64", "in p: i65"),
        ("lt(t0, t1)", "less(t0, t1)"),
        ("lt(t0, t1)", "lt(t0, t9)"),
        ("lt(t0, t1)", "lt(t0, t1, t1)"),
        ("lt(t0, t1)", "lt(t0"),
        ("t4*3", "t4**3"),
        ("t4*3", "s7*3"),
        ("-inf: f32", "-inf"),
        ("store(y", "put(y"),
        ("wrap=True, ", ""),
        ("4: i32", "__import__('os'): i32"),
        ("stage once", "once"),
    ],
)
def test_anything_else_is_refused(old: str, new: str) -> None:
    assert old in TEXT
    with pytest.raises(ParseError, match="not a kernel, at line"):
        parse_kernel(TEXT.replace(old, new, 1), Dag())


def test_nothing_is_not_a_kernel() -> None:
    with pytest.raises(ParseError):
        parse_kernel("", Dag())
