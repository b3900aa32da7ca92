"""Nodes as operands of Python's operators, and the functions that go with them."""

from __future__ import annotations

import gc
import operator
from collections.abc import Callable
from typing import Any

import pytest
import torch

from braze.errors import InternalError
from braze.ops import functions
from braze.ops.dag import Dag, Node
from braze.ops.functions import exp, fma, maximum, where
from braze.ops.printer import print_values
from braze.ops.vocabulary import OPS
from braze.runtime.expr import Symbol

F32, F64, I64, BOOL = torch.float32, torch.float64, torch.int64, torch.bool
POINT = Symbol("i0", 0, 9)

Written = Callable[..., Node]

NUMBERS: dict[str, Written] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "truediv": operator.truediv,
    "pow": operator.pow,
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
    "eq": Node.eq,
    "ne": Node.ne,
    "maximum": functions.maximum,
    "minimum": functions.minimum,
}
BITS: dict[str, Written] = {
    "bitwise_and": operator.and_,
    "bitwise_or": operator.or_,
    "bitwise_xor": operator.xor,
    "shr": operator.rshift,
}
TRUTH: dict[str, Written] = {
    "logical_and": operator.and_,
    "logical_or": operator.or_,
    "logical_xor": operator.xor,
    "eq": Node.eq,
    "ne": Node.ne,
}
OF_ONE: list[tuple[torch.dtype, str, Written]] = [
    (F32, "neg", operator.neg),
    (F32, "abs", abs),
    (F32, "round", round),
    (I64, "bitwise_not", operator.invert),
    (BOOL, "logical_not", operator.invert),
    *(
        (F32, name, getattr(functions, name))
        for name in vars(functions)
        if name in OPS and OPS[name].arity == (1, 1)
    ),
]


def of(dag: Dag, dtype: torch.dtype, *names: str) -> list[Node]:
    return [dag.load(name, POINT.expr, dtype) for name in names]


@pytest.mark.parametrize(
    ("dtype", "name", "written"),
    [
        (dtype, name, written)
        for dtype, table in ((F32, NUMBERS), (F64, NUMBERS), (I64, BITS), (BOOL, TRUTH))
        for name, written in table.items()
    ],
)
def test_of_two(dtype: torch.dtype, name: str, written: Written) -> None:
    dag = Dag()
    x, y = of(dag, dtype, "x", "y")
    assert written(x, y) is dag.op(name, x, y)
    assert written(y, x) is dag.op(name, y, x)
    if name != "logical_and":  # which leaves a constant out
        assert written(x, 1) is dag.op(name, x, dag.constant(1, dtype))


@pytest.mark.parametrize("written", [operator.add, operator.sub, operator.mul, operator.truediv])
def test_a_number_to_the_left(written: Written) -> None:
    dag = Dag()
    (x,) = of(dag, F32, "x")
    assert written(2, x) is written(dag.constant(2, F32), x)


@pytest.mark.parametrize(("dtype", "name", "written"), OF_ONE)
def test_of_one(dtype: torch.dtype, name: str, written: Written) -> None:
    dag = Dag()
    (x,) = of(dag, dtype, "x")
    assert written(x) is dag.op(name, x)


def test_operands_come_in_the_order_in_which_they_are_written() -> None:
    dag = Dag()
    (x,) = of(dag, F32, "x")
    assert print_values([0.5 * x * (1 + exp(-x))]) == "\n".join(
        (
            "  t0 = 0.5: f32",
            "  t1 = load(x, i0): f32",
            "  t2 = mul(t0, t1)",
            "  t3 = 1.0: f32",
            "  t4 = neg(t1)",
            "  t5 = exp(t4)",
            "  t6 = add(t3, t5)",
            "  t7 = mul(t2, t6)",
        )
    )
    assert operator.lt(1, x) is (x > 1)  # Python asks the node to the right the other way round


def test_numbers_have_the_type_and_the_precision_of_the_node() -> None:
    dag = Dag()
    single, double, byte = (dag.load("x", POINT.expr, t) for t in (F32, F64, torch.uint8))
    assert single.like(0.1) is dag.constant(0.1, F32) is not single.like(0)
    assert double.like(0.1) is dag.constant(0.1, F64)
    assert byte.like(300) is dag.constant(300, torch.uint8)
    assert byte.like(2.0) is byte.like(2)
    assert (single < float("inf")).args[1].attrs == (float("inf"),)


@pytest.mark.parametrize(
    ("dtype", "number"), [(I64, 0.5), (I64, float("nan")), (I64, float("inf")), (BOOL, 2), (BOOL, 0.5)]
)
def test_a_number_that_the_type_does_not_hold(dtype: torch.dtype, number: float) -> None:
    dag = Dag()
    (x,) = of(dag, dtype, "x")
    with pytest.raises(InternalError, match="beside"):
        x.eq(number)


def test_where_and_fma() -> None:
    dag = Dag()
    x, y = of(dag, F32, "x", "y")
    zero = dag.constant(0, F32)
    assert where(x < 0, -x, x) is dag.where(dag.op("lt", x, zero), dag.op("neg", x), x)
    assert where(x < y, 0, x) is dag.where(dag.op("lt", x, y), zero, x)
    assert where(x < y, x, 0) is dag.where(dag.op("lt", x, y), x, zero)
    assert where(dag.constant(True, BOOL), 0, x) is zero
    assert fma(x, 2, y) is dag.op("fma", x, dag.constant(2, F32), y)
    assert maximum(x, -100) is dag.op("maximum", x, dag.constant(-100, F32))
    with pytest.raises(InternalError):
        where(x < y, 1, 0)


def test_a_conjunction_leaves_out_what_always_holds() -> None:
    dag = Dag()
    (x,) = of(dag, BOOL, "x")
    assert x & True is x is dag.constant(True, BOOL) & x
    assert x & x is x
    assert x & False is dag.constant(False, BOOL)


def test_types_are_checked() -> None:
    dag = Dag()
    f, i, b = (dag.load("x", POINT.expr, t) for t in (F32, I64, BOOL))
    wrong: list[Callable[[], Any]] = [
        lambda: f + i,
        lambda: b + b,
        lambda: f & f,
        lambda: i / i,
        lambda: exp(i),
    ]
    for call in wrong:
        with pytest.raises(InternalError):
            call()


def test_nodes_compare_by_identity() -> None:
    x, y = of(Dag(), F32, "x", "y")
    assert x == x and x != y and len({x, y, x}) == 2
    assert [x, y].index(y) == 1


def test_a_node_is_neither_true_nor_false() -> None:
    dag = Dag()
    x, y = of(dag, F32, "x", "y")
    with pytest.raises(InternalError, match="is not known before the kernel runs"):
        assert x < y
    with pytest.raises(InternalError, match="is not known before the kernel runs"):
        max(x, y)


def test_nodes_do_not_keep_their_dag() -> None:
    gc.collect()
    gc.disable()
    try:
        x, y = of(Dag(), F32, "x", "y")
        with pytest.raises(InternalError, match="is gone"):
            x + y
    finally:
        gc.enable()
