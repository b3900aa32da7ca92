from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from braze.errors import InternalError
from braze.ops.dag import Dag, Node, topological
from braze.ops.interpreter import interpret
from braze.ops.kernel import BufferArg, Kernel, Stage, Store
from braze.runtime.expr import ExprLike, Symbol, as_expr
from tests.ops.generators import INDEX_CHECK, ZERO_CHECK, Case, cases, compare, pointwise, reductions

F32, I64 = torch.float32, torch.int64
POINT = Symbol("i0", 0, 9)


def chain(dag: Dag, length: int) -> Node:
    """z = z*z + c, ``length`` times: each value is used twice."""
    z = dag.load("z", POINT.expr, F32)
    c = dag.load("c", POINT.expr, F32)
    for _ in range(length):
        z = dag.op("add", dag.op("mul", z, z), c)
    return z


def rewritten(
    case: Case, mapping: Mapping[Symbol, ExprLike], renamed: Mapping[Symbol, tuple[Symbol, ...]]
) -> Kernel:
    """The case's kernel with symbols substituted in all its bodies, and loops replaced."""

    def loops(old: tuple[Symbol, ...]) -> tuple[Symbol, ...]:
        return tuple(v for o in old for v in renamed.get(o, (o,)))

    def store(s: Store) -> Store:
        masks = [] if s.mask is None else [s.mask]
        [value, *masks] = case.dag.substitute([s.value, *masks], mapping)
        [position] = case.dag.substitute([case.dag.index_expr(s.index)], mapping)
        index = case.dag.indirect(position, s.index) if position.op != "index_expr" else position.index
        return replace(s, index=index, value=value, mask=masks[0] if masks else None)

    stages = [Stage(loops(s.vars), loops(s.rvars), tuple(map(store, s.stores))) for s in case.kernel.stages]
    return replace(case.kernel, outer=loops(case.kernel.outer), stages=tuple(stages))


def run(case: Case, kernel: Kernel) -> dict[str, torch.Tensor]:
    buffers = case.fresh()
    interpret(kernel, buffers, case.sizes)
    return buffers


# -- identity -----------------------------------------------------------------------------------------------
def test_equal_nodes_are_one_object() -> None:
    dag = Dag()
    x, y = (dag.load(b, POINT.expr, F32) for b in "xy")
    assert dag.op("add", x, y) is dag.op("add", x, y)
    assert dag.op("add", x, y) is not dag.op("add", y, x)
    assert dag.load("x", POINT.expr + 1 - 1, F32) is x
    assert dag.load("x", POINT.expr, torch.float64) is not x
    assert dag.indirect(dag.load("p", POINT.expr, I64), 5) == dag.indirect(dag.load("p", POINT.expr, I64), 5)


def test_constants_differ_by_their_bits() -> None:
    dag = Dag()
    zeros = [dag.constant(v, F32) for v in (0.0, -0.0, 0, False)]
    assert zeros[0] is zeros[2] is zeros[3]
    assert zeros[0] is not zeros[1]
    assert dag.constant(float("nan"), F32) is dag.constant(-float("nan"), F32)
    assert dag.constant(0.1, F32) is dag.constant(torch.tensor(0.1).item(), F32)
    assert dag.constant(0.1, F32) is not dag.constant(0.1, torch.float64)
    assert dag.constant(300, torch.uint8).attrs == (44,)
    assert dag.constant(200, torch.int8).attrs == (-56,)
    assert dag.constant(1e300, F32).attrs == (float("inf"),)


def test_a_converted_constant_has_lost_what_the_conversion_loses() -> None:
    dag = Dag()
    there = dag.to_dtype(dag.constant(0.1, F32), torch.float64)
    assert there.attrs == (torch.tensor(0.1).double().item(),)
    big = 2**61 + 2**37 + 1  # rounds up to float32, but down by way of float64
    assert dag.to_dtype(dag.constant(big, I64), F32).attrs == (torch.tensor(big).float().item(),)
    assert dag.to_dtype(dag.constant(1.5, F32), I64).op == "to_dtype"
    assert dag.to_dtype(dag.constant(-1, I64), torch.uint8).attrs == (255,)


def test_types_are_checked() -> None:
    dag = Dag()
    f, i, b = (dag.load("x", 0, t) for t in (F32, I64, torch.bool))
    half = dag.load("h", 0, torch.float16)
    for name, args in [
        ("add", (f, i)),
        ("add", (b, b)),
        ("exp", (i,)),
        ("bitwise_and", (f, f)),
        ("add", (half, half)),
    ]:
        with pytest.raises(InternalError):
            dag.op(name, *args)
    with pytest.raises(InternalError):
        dag.where(b, f, i)
    with pytest.raises(InternalError):
        dag.bitcast(f, I64)
    with pytest.raises(InternalError):
        dag.reduction("welford", [f], [POINT], 3)
    with pytest.raises(InternalError):
        dag.scan("argmax", f, POINT)


def test_checks_that_cannot_fail_vanish() -> None:
    dag = Dag()
    n = Symbol("s0", 1)
    i = Symbol("i0", 0, n.expr - 1)
    assert dag.check_index(dag.constant(-1, I64), 5, wrap=True, error=INDEX_CHECK) == 4
    assert dag.check_index(dag.index_expr(i.expr), n.expr, wrap=True, error=INDEX_CHECK) == i.expr
    assert (
        dag.check_index(dag.index_expr(i.expr + 1), n.expr, wrap=True, error=INDEX_CHECK).symbol is not None
    )
    assert dag.check_nonzero(dag.constant(3, I64), ZERO_CHECK).op == "constant"
    with_mask = dag.check_nonzero(dag.load("x", 0, I64), ZERO_CHECK, dag.constant(True, torch.bool))
    assert with_mask is dag.check_nonzero(dag.load("x", 0, I64), ZERO_CHECK)


def test_symbols_of_a_node() -> None:
    dag, r, n = Dag(), Symbol("r0", 0, 4), Symbol("s0", 1)
    index = dag.indirect(dag.load("p", POINT.expr * n.expr, I64), 7)
    inner = dag.load("x", index + r.expr, F32)
    total = dag.op("neg", dag.reduction("sum", [inner], [r]))
    assert inner.free == {POINT, n, r}
    assert total.free == {POINT, n}
    assert total.symbols == {POINT, n, r}
    assert total.depth == 3


# -- substitution -------------------------------------------------------------------------------------------
@given(pointwise(specials=True))
def test_reversing_a_loop_changes_nothing(case: Case) -> None:
    loops = [*case.kernel.outer, *case.kernel.stages[0].vars]
    mapping = {v: v.size - 1 - v.expr for v in loops}
    compare(case, run(case, rewritten(case, mapping, {})), run(case, case.kernel))


@given(reductions(specials=True), st.integers(1, 5))
def test_splitting_a_reduction_changes_nothing(case: Case, k: int) -> None:
    """By a factor that divides the extent; the positions that argmax gives are along the split variables."""
    [*_, r] = case.kernel.stages[0].rvars
    extent = r.size.evaluate(case.sizes)
    if r.size.constant is None or extent % k:
        return
    parts = (Symbol("r10", 0, extent // k - 1), Symbol("r2", 0, k - 1))
    changed = rewritten(case, {r: parts[0].expr * k + parts[1].expr}, {r: parts})
    if extent > 1 and k > 1:
        assert r not in {s for n in changed.stages[0].nodes for s in n.symbols}
    compare(case, run(case, changed), run(case, case.kernel))


def test_a_reduction_is_renamed_below_a_node_that_does_not_depend_on_it() -> None:
    dag, r, q = Dag(), Symbol("r0", 0, 4), Symbol("r1", 0, 4)

    def build(v: Symbol) -> Node:
        return dag.op("neg", dag.reduction("sum", [dag.load("x", v.expr + POINT.expr, F32)], [v]))

    [renamed] = dag.substitute([build(r)], {r: q})
    assert renamed is build(q)


def test_sizes_are_no_loops_of_a_split_reduction() -> None:
    dag, n = Dag(), Symbol("s0", 1)
    r = Symbol("r0", 0, n.expr * 4 - 1)
    outer, inner = Symbol("r1", 0, 3), Symbol("r2", 0, n.expr - 1)
    [split] = dag.substitute(
        [dag.reduction("sum", [dag.load("x", r.expr, F32)], [r])], {r: outer.expr * n.expr + inner.expr}
    )
    assert split.attrs[2] == (outer, inner)


def test_substitution_follows_indirect_indices() -> None:
    dag, j = Dag(), Symbol("i1", 0, 9)

    def build(v: Symbol) -> Node:
        first = dag.check_index(dag.load("p", v.expr, I64), 10, wrap=True, error=INDEX_CHECK)
        second = dag.indirect(dag.load("p", first * 2, I64), 20)
        return dag.load("x", second + v.expr, F32)

    [moved] = dag.substitute([build(POINT)], {POINT: j})
    assert moved is build(j)
    [fixed] = dag.substitute([build(POINT)], {POINT: as_expr(3)})
    assert not fixed.free


def test_substitution_costs_what_the_shared_graph_costs() -> None:
    """Each value of the chain is used twice; a tree of it would have 2^2000 nodes."""
    dag, j = Dag(), Symbol("i1", 0, 9)
    z = chain(dag, 2000)
    size, start = len(dag), time.perf_counter()
    [moved] = dag.substitute([z], {POINT: j.expr})
    assert time.perf_counter() - start < 2
    assert len(dag) == 2 * size
    assert len(topological([moved])) == size
    assert dag.substitute([moved], {j: POINT.expr}) == [z]


def test_long_chains_of_indirect_loads() -> None:
    dag, j = Dag(), Symbol("i1", 0, 9)
    index = POINT.expr
    for _ in range(2000):
        index = dag.check_index(dag.load("p", index, I64), 10, wrap=True, error=INDEX_CHECK)
    root = dag.load("x", index, F32)
    [moved] = dag.substitute([root], {POINT: j.expr})
    masked = dag.mask(moved, dag.op("lt", dag.index_expr(j.expr), dag.constant(5, I64)))
    assert moved.free == masked.free == {j}
    assert len(topological([masked])) == 4001 + 3


def test_replacing_a_load_by_the_value_that_was_stored() -> None:
    dag = Dag()
    load = dag.load("t", POINT.expr, F32)
    user = dag.op("exp", dag.op("mul", load, load))
    value = dag.op("neg", dag.load("x", POINT.expr, F32))
    assert dag.replace([user], {load.id: value}) == [dag.op("exp", dag.op("mul", value, value))]
    position = dag.load("t", POINT.expr, I64)
    gathered = dag.load("x", dag.indirect(position, 7), F32)
    two = dag.constant(2, I64)
    assert dag.replace([gathered], {position.id: two}) == [dag.load("x", 2, F32)]


# -- masks --------------------------------------------------------------------------------------------------
@given(st.integers(0, 12), st.integers(0, 12))
def test_a_masked_body_reads_nothing_outside(low: int, high: int) -> None:
    """The body reads a buffer of five elements, at its own position less ``low``, where that is in range."""
    dag = Dag()
    index = POINT.expr - low
    body = dag.op("exp", dag.op("add", dag.load("x", index, F32), dag.load("x", 4 - index, F32)))
    at = dag.index_expr(index)
    inside = dag.logical_and(
        dag.op("ge", at, dag.constant(0, I64)), dag.op("lt", at, dag.constant(min(high, 5), I64))
    )
    value = dag.where(inside, dag.mask(body, inside), dag.constant(-1.0, F32))
    x, y = torch.arange(5.0), torch.zeros(10)
    interpret(kernel_of(value), {"x": x, "y": y})
    expected = [6 if 0 <= i - low < min(high, 5) else -1 for i in range(10)]
    assert torch.equal(y, torch.tensor([torch.tensor(4.0).exp() if e == 6 else -1.0 for e in expected]))


def kernel_of(value: Node) -> Kernel:
    args = (BufferArg("x", F32, "in", as_expr(5)), BufferArg("y", F32, "out", as_expr(10)))
    return Kernel("k", (), (Stage((POINT,), (), (Store("y", POINT.expr, value),)),), args)


@given(cases(specials=True))
def test_masking_by_what_holds_changes_nothing(case: Case) -> None:
    dag = case.dag
    holds = dag.op("ge", dag.load("always", 0, I64), dag.constant(0, I64))
    stages = []
    for stage in case.kernel.stages:
        stores = [replace(s, value=dag.mask(s.value, holds)) for s in stage.stores]
        stages.append(replace(stage, stores=tuple(stores)))
    always = BufferArg("always", I64, "in", as_expr(1))
    masked = replace(case.kernel, stages=tuple(stages), buffers=(*case.kernel.buffers, always))
    case.buffers["always"] = torch.zeros(1, dtype=I64)
    loads = [n for s in masked.stages for r in s.stores for n in topological([r.value]) if n.op == "load"]
    assert all(n.mask is not None or n.buffer == "always" for n in loads)
    compare(case, run(case, masked), run(case, case.kernel))


def test_masks_join_and_fold() -> None:
    dag = Dag()
    p, q = (dag.load(b, POINT.expr, torch.bool) for b in "pq")
    load = dag.load("x", POINT.expr, F32)
    once = dag.mask(load, p)
    assert once is dag.load("x", POINT.expr, F32, p)
    assert dag.mask(once, p) is once
    # p is read only where q holds: its own index may be valid there only
    assert dag.mask(once, q).mask is dag.logical_and(dag.load("p", POINT.expr, torch.bool, q), q)
    assert dag.mask(load, dag.constant(True, torch.bool)) is load
    assert dag.mask(load, dag.constant(False, torch.bool)) is dag.constant(0.0, F32)


def test_a_mask_does_not_guard_its_own_condition() -> None:
    dag = Dag()
    x = dag.load("x", POINT.expr, F32)
    positive = dag.op("gt", x, dag.constant(0.0, F32))
    body = dag.op("add", x, dag.load("y", POINT.expr, F32))
    masked = dag.mask(body, positive)
    assert masked is dag.op("add", x, dag.load("y", POINT.expr, F32, positive))


def test_checks_are_masked_too() -> None:
    dag = Dag()
    p = dag.load("p", POINT.expr, torch.bool)
    index = dag.check_index(dag.load("i", POINT.expr, I64), 5, wrap=True, error=INDEX_CHECK)
    masked = dag.mask(dag.load("x", index, F32), p)
    [check] = [n for n in topological([masked]) if n.op == "check_index"]
    assert check.mask is p
    assert masked.mask is p
