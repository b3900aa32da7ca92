from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from braze.ops import scalar
from braze.ops.dag import Dag, Node
from braze.ops.dtypes import integer_limits, is_float
from braze.ops.interpreter import interpret
from braze.ops.kernel import Stage
from braze.ops.ranges import value_range, value_ranges
from braze.runtime.expr import Symbol
from tests.ops.generators import INDEX_CHECK, INTS, ZERO_CHECK, Case, cases

I64 = torch.int64
BINARY = (
    *("add", "sub", "mul", "floordiv", "truncdiv", "mod", "fmod", "minimum", "maximum", "shl", "shr"),
    *("bitwise_and", "bitwise_or", "bitwise_xor", "eq", "ne", "lt", "le", "gt", "ge"),
)


@given(cases())
def test_every_value_lies_in_its_range(case: Case) -> None:
    ranges = value_ranges(r for s in case.kernel.stages for r in s.roots)

    def check(stage: Stage, node: Node, value: torch.Tensor) -> None:
        if value.numel() and not is_float(node.dtype):
            low, high = ranges[node.id]
            assert low <= int(value.min()) <= int(value.max()) <= high, (node, ranges[node.id])

    interpret(case.kernel, case.fresh(), case.sizes, check)


def bounded(dag: Dag, dtype: torch.dtype, low: int, high: int) -> Node:
    """A value that can be anything from ``low`` to ``high``."""
    loaded = dag.load("x", Symbol("i0", 0, 9).expr, dtype)
    return dag.op("minimum", dag.op("maximum", loaded, dag.constant(low, dtype)), dag.constant(high, dtype))


@st.composite
def intervals(draw: st.DrawFn, dtype: torch.dtype) -> tuple[int, int]:
    least, most = integer_limits(dtype)
    ends = st.one_of(st.integers(max(least, -20), 20), st.integers(least, most))
    low, high = sorted((draw(ends), draw(ends)))
    return low, high


@given(st.data(), st.sampled_from(BINARY), st.sampled_from(INTS))
def test_operations_stay_in_range_at_the_ends_and_between(
    data: st.DataObject, name: str, dtype: torch.dtype
) -> None:
    a, b = (data.draw(intervals(dtype)) for _ in "ab")
    dag = Dag()
    found = value_range(dag.op(name, bounded(dag, dtype, *a), bounded(dag, dtype, *b)))
    assert found is not None

    def samples(r: tuple[int, int]) -> torch.Tensor:
        near = {r[0], r[1], (r[0] + r[1]) // 2, r[0] + 1, r[1] - 1, -1, 0, 1, 7}
        return torch.tensor(sorted(v for v in near if r[0] <= v <= r[1]), dtype=dtype)

    x, y = samples(a)[:, None], samples(b)
    if name in ("floordiv", "truncdiv", "mod", "fmod"):
        y = y[y != 0]
    for v in scalar.FUNCTIONS[name](x, y).flatten().tolist():
        assert found[0] <= v <= found[1], (v, found)


@pytest.mark.parametrize(
    ("name", "a", "b", "expected"),
    [
        ("add", (0, 9), (-3, 5), (-3, 14)),
        ("sub", (0, 9), (-3, 5), (-5, 12)),
        ("mul", (-2, 9), (-3, 5), (-27, 45)),
        ("floordiv", (-7, 9), (2, 4), (-4, 4)),
        ("truncdiv", (-7, 9), (2, 4), (-3, 4)),
        ("mod", (-7, 100), (2, 4), (0, 3)),
        ("mod", (0, 2), (5, 9), (0, 2)),
        ("fmod", (-7, 100), (2, 4), (-3, 3)),
        ("bitwise_and", (-7, 100), (0, 15), (0, 15)),
        ("bitwise_or", (0, 9), (2, 3), (2, 15)),
        ("shr", (-9, 100), (1, 2), (-5, 50)),
        ("shl", (0, 9), (1, 2), (0, 36)),
        ("lt", (0, 4), (5, 9), (1, 1)),
        ("ge", (0, 4), (5, 9), (0, 0)),
        ("ne", (0, 4), (4, 9), (0, 1)),
        ("mul", (0, 2**62), (0, 4), (-(2**63), 2**63 - 1)),
    ],
)
def test_ranges_are_tight(
    name: str, a: tuple[int, int], b: tuple[int, int], expected: tuple[int, int]
) -> None:
    dag = Dag()
    assert value_range(dag.op(name, bounded(dag, I64, *a), bounded(dag, I64, *b))) == expected


def test_leaves_and_loops() -> None:
    dag, n = Dag(), Symbol("s0", 1, 100)
    i, r = Symbol("i0", 0, n.expr - 1), Symbol("r0", 0, 9)
    byte = dag.load("b", i.expr + r.expr, torch.uint8)
    wide = dag.to_dtype(byte, I64)
    assert value_range(dag.index_expr(i.expr * 3 + 1)) == (1, 298)
    assert value_range(dag.index_expr(i.expr * 3 + 1, torch.int8)) == (-128, 127)
    assert value_range(wide) == (0, 255)
    assert value_range(dag.reduction("sum", [wide], [r])) == (0, 2550)
    assert value_range(dag.reduction("max", [wide], [r])) == (0, 255)
    assert value_range(dag.reduction("argmax", [wide], [r])) == (0, 9)
    assert value_range(dag.scan("sum", wide, i)) == (0, 25500)
    assert value_range(dag.load("x", 0, torch.float32)) is None
    assert value_range(dag.to_dtype(dag.load("x", 0, torch.float32), torch.int16)) == (-(2**15), 2**15 - 1)
    index = dag.check_index(wide, n.expr, wrap=True, error=INDEX_CHECK)
    assert value_range(dag.index_expr(index)) == (0, 99)
    assert value_range(dag.check_nonzero(wide, ZERO_CHECK)) == (0, 255)
