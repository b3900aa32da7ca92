"""Loop plans: what is decided for typical kernels, as it prints."""

from __future__ import annotations

import torch

from braze.codegen.llvm.generate import generate
from braze.codegen.program.loop_plan import plan_kernel
from braze.ops.dag import Dag
from braze.ops.kernel import BufferArg, Kernel, Stage, Store
from braze.runtime.expr import Symbol, as_expr
from tests.codegen.llvm.kernels import variable
from tests.codegen.llvm.test_pointwise import pointwise
from tests.codegen.llvm.test_reductions import reduce_kernel
from tests.codegen.llvm.test_rows import softmax
from tests.codegen.llvm.test_tiles import transposing

F32 = torch.float32


def plan_text(kernel: Kernel, lanes: int = 16) -> str:
    return str(plan_kernel(kernel, lanes, masks=lanes == 16))


def test_pointwise() -> None:
    assert plan_text(pointwise(10_000)) == (
        "plan for 16 lanes:\n"
        "  pointwise: i0 on 16 lanes, 4 copies, tail mask\n"
        "    threads take blocks of 1024 i0\n"
        "    load x: contiguous\n"
        "    load y: contiguous\n"
        "    store out: contiguous"
    )
    assert "tail scalar" in plan_text(pointwise(10_000), 8)
    assert "tail none" in plan_text(pointwise(10_000), 1)


def test_row_reduction_has_strips_where_sums_are_long() -> None:
    text = plan_text(reduce_kernel("sum", (1000,), (100_000,)))
    assert "row: r0 on 16 lanes, 4 copies" in text
    assert "strips of 8192 r0" in text
    assert "strips" not in plan_text(reduce_kernel("max", (1000,), (100_000,)))


def test_column_reduction_keeps_accumulators_over_the_walk() -> None:
    text = plan_text(reduce_kernel("sum", (4096,), (1000,), column=True))
    assert "column: i0 on 16 lanes, 16 copies" in text
    assert "threads take blocks of 256 i0" in text


def test_small_results_are_split_into_chunks() -> None:
    text = plan_text(reduce_kernel("sum", (), (1 << 20,)))
    assert "split into 64 chunks of 16384 r0" in text


def test_transposed_access_makes_tiles() -> None:
    text = plan_text(transposing(2048, 2048, F32, stored=False))
    assert "tile: i1 on 16 lanes" in text
    assert "tiles of 16 i0 by 16 i1" in text
    assert "load y: transposed" in text


def test_rows_and_columns_of_a_softmax() -> None:
    rows = plan_text(softmax(64, 1000, columns=False, kept_row=False))
    assert "row: r0 on 16 lanes" in rows
    columns = plan_text(softmax(64, 1000, columns=True, kept_row=False))
    assert "i0 on 16 lanes" in columns
    assert "column: i0 on 16 lanes" in columns


def test_division_stays_linear_within_a_block_of_lanes() -> None:
    dag = Dag()
    i = variable("i0", 6400)
    index = i.expr // 64 + (i.expr % 64) * 100
    store = Store("o", i.expr, dag.load("x", i.expr // 64, F32))
    buffers = (BufferArg("x", F32, "in", as_expr(6400)), BufferArg("o", F32, "out", as_expr(6400)))
    assert "load x: uniform" in plan_text(Kernel("k", (), (Stage((i,), (), (store,)),), buffers))
    store = Store("o", i.expr, dag.load("x", index, F32))
    assert "load x: stride 100" in plan_text(Kernel("k", (), (Stage((i,), (), (store,)),), buffers))


def test_names_do_not_matter() -> None:
    """Kernels that are the same up to names have one text."""
    texts = set()
    for a, b, o in [("x", "y", "out"), ("buf3", "arg0", "buf7")]:
        dag = Dag()
        i = variable("i0", 100)
        value = dag.op("add", dag.load(a, i.expr, F32), dag.load(b, i.expr, F32))
        buffers = tuple(BufferArg(n, F32, "out" if n == o else "in", as_expr(100)) for n in (a, b, o))
        kernel = Kernel(f"add_{o}", (), (Stage((i,), (), (Store(o, i.expr, value),)),), buffers)
        texts.add(generate(kernel, 8).text)
    assert len(texts) == 1


def test_the_plan_is_a_function_of_kernel_and_width() -> None:
    s0 = Symbol("s0", 2)
    kernel = pointwise(s0.expr, (s0,))
    assert plan_kernel(kernel, 8, masks=False) == plan_kernel(kernel, 8, masks=False)
    assert plan_kernel(kernel, 8, masks=False) != plan_kernel(kernel, 4, masks=False)
