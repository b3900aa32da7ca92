"""What kernels and externs have to do: counted from index expressions, held against counting one by one."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from braze.codegen.llvm import vecmath
from braze.codegen.llvm.builder import PTR, FunctionBuilder, ModuleBuilder, Type
from braze.inspect.cost import Cost, extern_cost, kernel_cost
from braze.ir.buffers import Buffer
from braze.ir.externs import ExternKernelAlloc, TensorRef
from braze.ops.dag import Dag, Node
from braze.ops.kernel import BufferArg, Kernel, Stage, Store
from braze.ops.vocabulary import OPS
from braze.runtime.expr import Expr, ExprLike, Symbol, as_expr
from braze.runtime.spec import tensor_spec

F32 = torch.float32


def variable(name: str, size: ExprLike) -> Symbol:
    return Symbol(name, 0, as_expr(size) - 1)


def argument(name: str, role: str, numel: ExprLike, dtype: torch.dtype = F32) -> BufferArg:
    return BufferArg(name, dtype, role, as_expr(numel))  # type: ignore[arg-type]


def kernel(
    stages: Sequence[Stage],
    buffers: Sequence[BufferArg],
    outer: Sequence[Symbol] = (),
    sizes: Sequence[Symbol] = (),
) -> Kernel:
    return Kernel("k", tuple(outer), tuple(stages), tuple(buffers), tuple(sizes))


def test_a_pointwise_kernel_reads_and_writes_each_element_once() -> None:
    dag, i = Dag(), variable("i0", 1000)
    x, y = dag.load("x", i.expr, F32), dag.load("y", i.expr, F32)
    stage = Stage((i,), (), (Store("z", i.expr, dag.op("add", dag.op("mul", x, y), x)),))
    buffers = [argument("x", "in", 1000), argument("y", "in", 1000), argument("z", "out", 1000)]
    assert kernel_cost(kernel([stage], buffers), {}) == Cost(bytes=3 * 4000, flops=2000)


def test_what_is_broadcast_is_read_once_and_what_is_invariant_computed_once() -> None:
    dag, i, j = Dag(), variable("i0", 20), variable("i1", 30)
    scale = dag.op("exp", dag.load("s", j.expr, F32))
    value = dag.op("mul", dag.load("x", i.expr * 30 + j.expr, F32), scale)
    stage = Stage((i, j), (), (Store("z", i.expr * 30 + j.expr, value),))
    buffers = [argument("s", "in", 30), argument("x", "in", 600), argument("z", "out", 600)]
    assert kernel_cost(kernel([stage], buffers), {}) == Cost(
        4 * (30 + 600 + 600), 600 + 30 * OPS["exp"].flops
    )


def test_stages_that_go_over_the_same_row_read_it_once() -> None:
    dag, i, j, r = Dag(), variable("i0", 8), variable("i1", 64), variable("r0", 64)
    total = dag.reduction("sum", [dag.load("x", i.expr * 64 + r.expr, F32)], [r])
    first = Stage((), (r,), (Store("t", i.expr, total),))
    value = dag.op("sub", dag.load("x", i.expr * 64 + j.expr, F32), dag.load("t", i.expr, F32))
    second = Stage((j,), (), (Store("z", i.expr * 64 + j.expr, value),))
    buffers = [argument("x", "in", 512), argument("t", "local", 8), argument("z", "out", 512)]
    assert kernel_cost(kernel([first, second], buffers, outer=[i]), {}) == Cost(2 * 4 * 512, 512 + 512)


def test_windows_that_overlap_count_once() -> None:
    dag, i = Dag(), variable("i0", 100)
    value = dag.op("add", dag.load("x", i.expr, F32), dag.load("x", i.expr + 1, F32))
    stage = Stage((i,), (), (Store("z", i.expr, value),))
    cost = kernel_cost(kernel([stage], [argument("x", "in", 101), argument("z", "out", 100)]), {})
    assert cost.bytes == 4 * (101 + 100)


def test_the_same_elements_through_merged_loops_count_once() -> None:
    dag, i, j, k = Dag(), variable("i0", 10), variable("i1", 20), variable("i2", 200)
    first = Stage((i, j), (), (Store("y", i.expr * 20 + j.expr, dag.load("x", i.expr * 20 + j.expr, F32)),))
    second = Stage((k,), (), (Store("z", k.expr, dag.load("x", k.expr, F32)),))
    buffers = [argument("x", "in", 200), argument("y", "out", 200), argument("z", "out", 200)]
    assert kernel_cost(kernel([first, second], buffers), {}).bytes == 3 * 800


def test_a_lookup_touches_at_most_one_row_for_each_index() -> None:
    dag, i, j = Dag(), variable("i0", 6), variable("i1", 16)
    number = dag.load("n", i.expr, torch.int64)
    index = dag.check_index(number, 1000, wrap=True, error="IndexError|embedding|") * 16 + j.expr
    stage = Stage((i, j), (), (Store("z", i.expr * 16 + j.expr, dag.load("w", index, F32)),))
    buffers = [argument("n", "in", 6, torch.int64), argument("w", "in", 16000), argument("z", "out", 96)]
    assert kernel_cost(kernel([stage], buffers), {}).bytes == 6 * 8 + 4 * 96 + 4 * 96


def test_sizes_are_taken_from_the_call() -> None:
    n = Symbol("s0", 2)
    dag, i = Dag(), variable("i0", n.expr)
    stage = Stage((i,), (), (Store("z", i.expr, dag.op("tanh", dag.load("x", i.expr, F32))),))
    made = kernel([stage], [argument("x", "in", n.expr), argument("z", "out", n.expr)], sizes=[n])
    assert kernel_cost(made, {"s0": 500}) == Cost(4000, 500 * OPS["tanh"].flops)
    assert kernel_cost(made, {}) == Cost(16, 2 * OPS["tanh"].flops)


def test_half_types_move_two_bytes_and_adding_up_reads_what_is_there() -> None:
    dag, i = Dag(), variable("i0", 64)
    half = torch.bfloat16
    value = dag.load("x", i.expr, half)
    stage = Stage((i,), (), (Store("z", i.expr, value, "atomic_add"),))
    buffers = [argument("x", "in", 64, half), argument("z", "inout", 64, half)]
    assert kernel_cost(kernel([stage], buffers), {}).bytes == 3 * 2 * 64


def test_nothing_to_do_costs_nothing() -> None:
    dag, i = Dag(), variable("i0", 0)
    stage = Stage((i,), (), (Store("z", i.expr, dag.load("x", i.expr, F32)),))
    assert kernel_cost(kernel([stage], [argument("x", "in", 0), argument("z", "out", 0)]), {}) == Cost()


@given(
    st.lists(st.tuples(st.integers(1, 6), st.integers(-12, 12)), min_size=1, max_size=4),
    st.lists(st.integers(0, 9), min_size=1, max_size=3),
)
def test_no_element_is_forgotten(loops: list[tuple[int, int]], offsets: list[int]) -> None:
    # Against going through all the loops: the count is an upper bound, exact where indices differ.
    variables = [variable(f"i{k}", size) for k, (size, _) in enumerate(loops)]
    low = sum(min(0, step * (size - 1)) for size, step in loops)
    base: Expr = as_expr(-low)
    for v, (_, step) in zip(variables, loops, strict=True):
        base = base + v.expr * step
    dag = Dag()
    indices = [base + offset for offset in offsets]
    value: Node = dag.load("x", indices[0], F32)
    for index in indices[1:]:
        value = dag.op("add", value, dag.load("x", index, F32))
    touched = {
        sum(p * step for p, (_, step) in zip(point, loops, strict=True)) - low + offset
        for point in itertools.product(*[range(size) for size, _ in loops])
        for offset in offsets
    }
    stage = Stage(tuple(variables), (), (Store("z", as_expr(0), value),))
    made = kernel([stage], [argument("x", "in", max(touched) + 1), argument("z", "out", 1)])
    counted = kernel_cost(made, {}).bytes // 4 - 1
    assert len(touched) <= counted <= max(touched) - min(touched) + 1
    if math.prod(size for size, _ in loops) * len(set(offsets)) == len(touched):
        assert counted == len(touched)


FUNCTIONS = [op for op in OPS if OPS[op].flops and vecmath.supports(op, "float") and op != "lgamma"]


@pytest.mark.parametrize("op", FUNCTIONS)
def test_flops_of_functions_are_those_of_their_code(op: str) -> None:
    module = ModuleBuilder("count", vector_bits=512)
    fb = FunctionBuilder(module, "f", [("x", PTR)])
    values = [fb.load(fb.params["x"], Type("float", 16)) for _ in range(OPS[op].arity[0])]
    fb.store(vecmath.emit(fb, op, *values), fb.params["x"])
    fb.ret()
    text = module.text()
    plain = len(re.findall(r"= (?:fadd|fsub|fmul|fdiv|fneg) ", text))
    counted = plain + 2 * len(re.findall(r"call [^\n]*@llvm\.fma", text))
    counted += len(re.findall(r"call [^\n]*@llvm\.sqrt", text))
    assert OPS[op].flops == pytest.approx(counted, rel=0.35, abs=3)


# -- externs ----------------------------------------------------------------------------------------------
def extern(
    target: object, arguments: Sequence[object], results: Sequence[tuple[int, ...]]
) -> ExternKernelAlloc:
    """A call of ``target``; tuples among its arguments are the sizes of float32 tensors."""

    def ref(name: str, size: Sequence[int]) -> TensorRef:
        layout = tensor_spec(F32, size)
        return TensorRef(Buffer(name, layout), layout)

    args = tuple(ref(f"a{k}", a) if isinstance(a, tuple) else a for k, a in enumerate(arguments))
    made = [ref(f"r{k}", size).buffer for k, size in enumerate(results)]
    return ExternKernelAlloc("op0", target, args, {}, made)


aten = torch.ops.aten
CONV = [[1, 1], [1, 1], [1, 1]]
EXTERNS = [
    (aten.mm.default, [(7, 5), (5, 3)], [(7, 3)], 2 * 7 * 5 * 3),
    (aten.mv.default, [(7, 5), (5,)], [(7,)], 2 * 7 * 5),
    (aten.addmm.default, [(3,), (7, 5), (5, 3)], [(7, 3)], 2 * 7 * 5 * 3 + 7 * 3),
    (aten.bmm.default, [(4, 7, 5), (4, 5, 3)], [(4, 7, 3)], 4 * 2 * 7 * 5 * 3),
    (aten.convolution.default, [(2, 6, 9, 9), (8, 3, 3, 3), None, *CONV, False, [0, 0], 2], [(2, 8, 9, 9)],
     2 * 8 * 3 * 9 * 2 * 81),
    (aten.convolution.default, [(2, 6, 9, 9), (6, 8, 3, 3), None, *CONV, True, [0, 0], 1], [(2, 8, 9, 9)],
     2 * 6 * 8 * 9 * 2 * 81),
    (aten.convolution_backward.default,
     [(2, 8, 9, 9), (2, 6, 9, 9), (8, 6, 3, 3), [8], *CONV, False, [0, 0], 1, [False, True, True]],
     [(8, 6, 3, 3), (8,)], 2 * 8 * 6 * 9 * 2 * 81),
    (aten._scaled_dot_product_flash_attention_for_cpu.default,
     [(2, 4, 10, 16), (2, 4, 20, 16), (2, 4, 20, 16)], [(2, 4, 10, 16)], 2 * 2 * 4 * 10 * 20 * 16 * 2),
    (aten.sort.default, [(100,)], [(100,), (100,)], 0),
]  # fmt: skip


@pytest.mark.parametrize(("target", "arguments", "results", "flops"), EXTERNS, ids=lambda v: str(v)[:40])
def test_externs(target: object, arguments: list[object], results: list[tuple[int, ...]], flops: int) -> None:
    moved = sum(math.prod(a) for a in [*arguments, *results] if isinstance(a, tuple))
    assert extern_cost(extern(target, arguments, results), {}) == Cost(4 * moved, flops)
