from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from braze.errors import InternalError
from braze.ops import random, scalar
from braze.ops.dag import Dag, Node
from braze.ops.dtypes import is_float
from braze.ops.interpreter import interpret
from braze.ops.kernel import BufferArg, Kernel, Role, Stage, Store
from braze.ops.vocabulary import OPS, REDUCTIONS
from braze.runtime.expr import Expr, Symbol, as_expr
from tests.ops.generators import INDEX_CHECK, RANGE_CHECK, ZERO_CHECK, Case, cases

F32, I64 = torch.float32, torch.int64
N = Symbol("n", 0)
POINT = Symbol("i0", 0, N.expr - 1)
R = Symbol("r0", 0, 6)


def arg(name: str, dtype: torch.dtype, role: Role, numel: int | Expr) -> BufferArg:
    return BufferArg(name, dtype, role, as_expr(numel))


def evaluate(
    dag: Dag, value: Node, inputs: dict[str, torch.Tensor], n: int, rvars: tuple[Symbol, ...] = ()
) -> torch.Tensor:
    """The values of ``value`` at i0 = 0, ..., n-1."""
    stage = Stage((POINT,), rvars, (Store("out", POINT.expr, value),))
    args = [arg(name, t.dtype, "in", t.numel()) for name, t in inputs.items()]
    out = torch.zeros(n, dtype=value.dtype)
    kernel = Kernel("k", (), (stage,), (*args, arg("out", value.dtype, "out", N.expr)), (N,))
    interpret(kernel, inputs | {"out": out}, {"n": n})
    return out


@pytest.mark.parametrize("rows", [0, 1, 5])
def test_softmax_by_rows(rows: int) -> None:
    dag, n = Dag(), Symbol("s0", 0)
    i, j, r = Symbol("i0", 0, n.expr - 1), Symbol("i1", 0, 6), R
    x = dag.load("x", i.expr * 7 + r.expr, F32)
    first = Stage((), (r,), (Store("m", as_expr(0), dag.reduction("max", [x], [r])),))
    below = dag.op("exp", dag.op("sub", x, dag.load("m", 0, F32)))
    summed = Stage((), (r,), (Store("s", as_expr(0), dag.reduction("sum", [below], [r])),))
    shifted = dag.op("exp", dag.op("sub", dag.load("x", i.expr * 7 + j.expr, F32), dag.load("m", 0, F32)))
    quotient = dag.op("truediv", shifted, dag.load("s", 0, F32))
    second = Stage((j,), (), (Store("y", i.expr * 7 + j.expr, quotient),))
    args = (arg("x", F32, "in", n.expr * 7), arg("y", F32, "out", n.expr * 7))
    kernel = Kernel(
        "softmax",
        (i,),
        (first, summed, second),
        (*args, arg("m", F32, "local", 1), arg("s", F32, "local", 1)),
        (n,),
    )
    x, y = torch.randn(rows, 7), torch.full((rows * 7,), -1.0)
    if rows > 2:
        x[1], x[2, 3] = -math.inf, math.inf
    interpret(kernel, {"x": x.flatten(), "y": y}, {"s0": rows})
    torch.testing.assert_close(y.reshape(rows, 7), x.softmax(1), equal_nan=True)


def test_locals_are_separate_for_each_outer_point() -> None:
    dag, j = Dag(), Symbol("i1", 0, 2)
    flat = POINT.expr * 3 + j.expr
    write = Stage((j,), (), (Store("row", j.expr, dag.load("x", flat, I64)),))
    read = Stage((j,), (), (Store("y", flat, dag.load("row", 2 - j.expr, I64)),))
    args = (arg("x", I64, "in", 15), arg("y", I64, "out", 15), arg("row", I64, "local", 3))
    y = torch.zeros(15, dtype=I64)
    interpret(Kernel("k", (POINT,), (write, read), args), {"x": torch.arange(15), "y": y}, {"n": 5})
    assert torch.equal(y.reshape(5, 3), torch.arange(15).reshape(5, 3).flip(1))


REFERENCE = {
    "sum": lambda x: x.sum(1),
    "prod": lambda x: x.prod(1),
    "max": lambda x: x.amax(1),
    "min": lambda x: x.amin(1),
    "argmax": lambda x: x.argmax(1),
    "argmin": lambda x: x.argmin(1),
    "any": lambda x: x.any(1),
    "all": lambda x: x.all(1),
}


@pytest.mark.parametrize("kind", sorted(REFERENCE))
def test_reductions_are_torchs(kind: str) -> None:
    x = torch.randint(-3, 4, (5, 7))
    if kind in ("any", "all"):
        x = x > (2 if kind == "any" else -3)
    else:
        x = x.to(F32)
        x[2, 3], x[3, 5], x[3, 6] = math.nan, math.inf, -math.inf
    dag = Dag()
    value = dag.reduction(kind, [dag.load("x", POINT.expr * 7 + R.expr, x.dtype)], [R])
    assert torch.equal(
        evaluate(dag, value, {"x": x.flatten()}, 5, (R,)).nan_to_num(77), REFERENCE[kind](x).nan_to_num(77)
    )


def test_positions_may_be_given() -> None:
    """What a reduction in two steps needs: the second step compares values of known positions."""
    x, p = torch.tensor([3.0, 9.0, 9.0, 1.0, 2.0, 9.0, 0.0]), torch.tensor([70, 60, 50, 40, 30, 55, 10])
    dag = Dag()
    args = [dag.load("x", R.expr, F32), dag.load("p", R.expr, I64)]
    value = dag.reduction("argmax", args, [R])
    assert evaluate(dag, value, {"x": x, "p": p}, 1, (R,)).item() == 50


def test_welford() -> None:
    x = torch.randn(5, 7)
    dag = Dag()
    load = dag.load("x", POINT.expr * 7 + R.expr, F32)
    mean, m2, count = (
        evaluate(dag, dag.reduction("welford", [load], [R], k), {"x": x.flatten()}, 5, (R,)) for k in range(3)
    )
    torch.testing.assert_close(mean, x.mean(1))
    torch.testing.assert_close(m2 / (count - 1), x.var(1))


@pytest.mark.parametrize("kind", sorted(REDUCTIONS))
def test_a_reduction_over_nothing_gives_its_identity(kind: str) -> None:
    dag, none = Dag(), Symbol("r0", 0, -1)
    dtype = torch.bool if kind in ("any", "all") else F32
    identity = {"prod": 1, "all": 1, "max": -math.inf, "min": math.inf}
    for component in range(len(REDUCTIONS[kind].components)):
        value = dag.reduction(kind, [dag.load("x", none.expr, dtype)], [none], component)
        expected = identity.get(kind, 0)
        assert evaluate(dag, value, {"x": torch.zeros(0, dtype=dtype)}, 2, (none,)).tolist() == [expected] * 2


@pytest.mark.parametrize("kind", ["sum", "prod", "max", "min", "last_max", "last_min"])
def test_scans_are_torchs(kind: str) -> None:
    x = torch.randint(-3, 4, (5,))
    dag = Dag()
    scanned = evaluate(dag, dag.scan(kind, dag.load("x", POINT.expr, I64), POINT), {"x": x}, 5)
    reference = {
        "sum": x.cumsum(0),
        "prod": x.cumprod(0),
        "max": x.cummax(0).values,
        "min": x.cummin(0).values,
        "last_max": x.cummax(0).indices,
        "last_min": x.cummin(0).indices,
    }
    assert torch.equal(scanned, reference[kind])


def test_a_masked_load_touches_nothing() -> None:
    dag = Dag()
    inside = dag.op("lt", dag.index_expr(POINT.expr), dag.constant(3, I64))
    masked = dag.load("x", POINT.expr, F32, inside)
    assert evaluate(dag, masked, {"x": torch.ones(3)}, 5).tolist() == [1, 1, 1, 0, 0]
    assert evaluate(dag, masked, {"x": torch.ones(2)[:0].new_ones(3)}, 5).tolist() == [1, 1, 1, 0, 0]
    with pytest.raises(InternalError, match="out of its 2 elements"):
        evaluate(dag, masked, {"x": torch.ones(2)}, 5)


def test_an_access_out_of_bounds_is_an_error_of_the_kernel() -> None:
    dag = Dag()
    for index in (POINT.expr - 1, POINT.expr + 1):
        with pytest.raises(InternalError, match="out of its 5 elements"):
            evaluate(dag, dag.load("x", index, F32), {"x": torch.ones(5)}, 5)


@pytest.mark.parametrize(
    ("wrap", "index", "bad"),
    [(True, [0, -5, 4], None), (True, [0, 5], 5), (True, [-6], -6), (False, [1, -1], -1)],
)
def test_indices_are_checked(wrap: bool, index: list[int], bad: int | None) -> None:
    dag = Dag()
    position = dag.check_index(dag.load("p", POINT.expr, I64), 5, wrap=wrap, error=INDEX_CHECK)
    value, n = dag.load("x", position, I64), len(index)
    inputs = {"x": torch.arange(10, 15), "p": torch.tensor(index)}
    if bad is None:
        assert evaluate(dag, value, inputs, n).tolist() == [10 + k % 5 for k in index]
        return
    with pytest.raises(IndexError, match=f"index {bad} is out of bounds for dimension with size 5") as error:
        evaluate(dag, value, inputs, n)
    assert "aten.index.Tensor at test.py:1" in str(error.value)


def test_a_masked_check_records_nothing_and_stays_safe() -> None:
    dag = Dag()
    p = dag.load("p", POINT.expr, I64)
    valid = dag.op("ne", p, dag.constant(99, I64))
    index = dag.check_index(p, 2, wrap=False, error=INDEX_CHECK, mask=valid)
    assert evaluate(
        dag, dag.load("x", index, I64), {"x": torch.tensor([7, 8]), "p": torch.tensor([1, 99])}, 2
    ).tolist() == [8, 7]


def test_an_index_into_nothing_fails_and_touches_nothing() -> None:
    dag = Dag()
    index = dag.check_index(dag.load("p", POINT.expr, I64), 0, wrap=True, error=INDEX_CHECK)
    inputs = {"x": torch.zeros(0), "p": torch.tensor([0, 1])}
    with pytest.raises(IndexError, match="size 0"):
        evaluate(dag, dag.load("x", index * 3 + 1, F32), inputs, 2)


def test_division_by_zero_is_eagers_error() -> None:
    dag = Dag()
    divisor = dag.check_nonzero(dag.load("x", POINT.expr, I64), ZERO_CHECK)
    quotient = dag.op("floordiv", dag.constant(7, I64), divisor)
    assert evaluate(dag, quotient, {"x": torch.tensor([2, -2])}, 2).tolist() == [3, -4]
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        evaluate(dag, quotient, {"x": torch.tensor([2, 0])}, 2)


def test_a_checked_value_is_the_value_or_the_error() -> None:
    dag = Dag()
    x = dag.load("x", POINT.expr, F32)
    checked = dag.check(x, dag.op("le", x, dag.constant(1, F32)), RANGE_CHECK)
    assert evaluate(dag, checked, {"x": torch.tensor([0.5, 1.0])}, 2).tolist() == [0.5, 1.0]
    for bad in (1.5, math.nan):
        with pytest.raises(RuntimeError, match="not a probability"):
            evaluate(dag, checked, {"x": torch.tensor([0.5, bad])}, 2)


def test_a_masked_check_asks_nothing_of_what_is_not_used() -> None:
    dag = Dag()
    x = dag.load("x", POINT.expr, F32)
    checked = dag.check(x, dag.op("le", x, dag.constant(1, F32)), RANGE_CHECK)
    first = dag.op("eq", dag.index_expr(POINT.expr), dag.constant(0, I64))
    masked = dag.mask(checked, first)
    assert evaluate(dag, masked, {"x": torch.tensor([0.5, 2.0])}, 2)[0] == 0.5
    with pytest.raises(RuntimeError, match="not a probability"):
        evaluate(dag, masked, {"x": torch.tensor([2.0, 0.5])}, 2)


def test_the_kernel_runs_to_its_end_before_a_failure_is_raised() -> None:
    dag = Dag()
    index = dag.check_index(dag.load("p", POINT.expr, I64), 5, wrap=False, error=INDEX_CHECK)
    stage = Stage((POINT,), (), (Store("y", POINT.expr, dag.load("x", index, I64)),))
    args = (arg("p", I64, "in", 5), arg("x", I64, "in", 5), arg("y", I64, "out", 5))
    y = torch.zeros(5, dtype=I64)
    with pytest.raises(IndexError, match="index 9"):
        interpret(
            Kernel("k", (), (stage,), args),
            {"p": torch.tensor([1, 9, 2, 7, 3]), "x": torch.arange(5), "y": y},
            {"n": 5},
        )
    assert y.tolist() == [1, 0, 2, 0, 3]


def test_stores_convert_mask_and_accumulate() -> None:
    dag = Dag()
    x = dag.load("x", POINT.expr, F32)
    even = dag.op(
        "eq", dag.op("bitwise_and", dag.index_expr(POINT.expr), dag.constant(1, I64)), dag.constant(0, I64)
    )
    stage = Stage(
        (POINT,), (), (Store("h", POINT.expr, x, mask=even), Store("a", POINT.expr // 3, x, "atomic_add"))
    )
    args = (arg("x", F32, "in", 5), arg("h", torch.bfloat16, "inout", 5), arg("a", F32, "inout", 2))
    h, a = torch.full((5,), 7, dtype=torch.bfloat16), torch.full((2,), 100.0)
    values = torch.tensor([1.001, 2, 3, 4, 5])
    interpret(Kernel("k", (), (stage,), args), {"x": values, "h": h, "a": a}, {"n": 5})
    assert h.tolist() == [1, 7, 3, 7, 5]
    assert a.tolist() == [pytest.approx(106.001), 109]


def test_every_operation_has_a_meaning() -> None:
    handled = {
        *("constant", "index_expr", "load", "check_index", "check_nonzero", "to_dtype", "bitcast"),
        *("check", "reduction", "scan"),
    }
    assert set(scalar.FUNCTIONS) | handled == set(OPS)


def test_division_of_the_least_integer_wraps() -> None:
    for dtype in (torch.int8, torch.int32, I64):
        low = torch.tensor([torch.iinfo(dtype).min, 7], dtype=dtype)
        minus_one = torch.tensor([-1], dtype=dtype)
        assert scalar.FUNCTIONS["floordiv"](low, minus_one).tolist() == [low[0].item(), -7]
        assert scalar.FUNCTIONS["mod"](low, minus_one).tolist() == [0, 0]


finite = st.floats(allow_nan=False, allow_infinity=False)


@given(st.sampled_from((F32, torch.float64)), finite, finite, finite, st.integers(0, 3))
def test_fma_rounds_once(dtype: torch.dtype, x: float, y: float, z: float, near: int) -> None:
    a, b, c = (torch.tensor([v]).to(dtype) for v in (x, y, z))
    if near:  # make the sum cancel, or nearly
        c = torch.nextafter(-(a * b), torch.zeros(1, dtype=dtype)) if near > 1 else -(a * b)
    if not (a.isfinite() & b.isfinite() & c.isfinite()):
        return
    exact = Fraction(a.item()) * Fraction(b.item()) + Fraction(c.item())
    result = scalar.fma(a, b, c)
    assert result.dtype is dtype
    if not result.isfinite():
        assert abs(exact) > Fraction(torch.finfo(dtype).max)
        return
    # No neighbour is nearer to the exact value than the result.
    error = abs(Fraction(result.item()) - exact)
    for towards in (-math.inf, math.inf):
        neighbour = torch.nextafter(result, torch.tensor([towards], dtype=dtype))
        assert not neighbour.isfinite() or error <= abs(Fraction(neighbour.item()) - exact)


def test_philox_known_answers() -> None:
    """From the known-answer tests that the authors of the algorithm publish (Random123)."""
    words = random.philox(torch.tensor(0), torch.tensor(0))
    assert [hex(int(w)) for w in words] == ["0x6627e8d5", "0xe169c58d", "0xbc57ac4c", "0x9b00dbd8"]


def test_random_numbers_are_distributed_as_they_should_be() -> None:
    seed, offset = torch.tensor(2**40 + 7), torch.arange(100_000)
    u, n = random.rand(seed, offset), random.randn(seed, offset)
    k = random.randint64(seed, offset, torch.tensor(-3), torch.tensor(4))
    assert (u.min() >= 0) & (u.max() < 1)
    assert abs(u.mean() - 0.5) < 0.005
    assert abs(u.var() - 1 / 12) < 0.002
    assert abs(n.mean()) < 0.015
    assert abs(n.var() - 1) < 0.03
    assert n.isfinite().all()
    assert torch.bincount(k + 3).tolist() == pytest.approx([100_000 / 7] * 7, rel=0.05)


def test_randint_spans_all_of_int64() -> None:
    low, high = -(2**63), 2**63 - 1
    k = random.randint64(torch.tensor(1), torch.arange(1000), torch.tensor(low), torch.tensor(high))
    x0, x1, _, _ = random.philox(torch.tensor(1), torch.arange(1000))
    expected = [low + (int(a) | int(b) << 32) % (high - low) for a, b in zip(x0, x1, strict=True)]
    assert k.tolist() == expected


@given(cases(specials=True))
def test_random_kernels_run_and_compute_the_types_they_say(case: Case) -> None:
    seen: list[Node] = []
    interpret(case.kernel, case.fresh(), case.sizes, lambda stage, node, value: seen.append(node))
    assert all(is_float(n.dtype) for n in seen if OPS[n.op].domain == "float" and OPS[n.op].result == "same")
