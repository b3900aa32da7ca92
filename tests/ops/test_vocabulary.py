"""Whoever handles operations handles each row of the vocabulary, for every type that it is defined for."""

from __future__ import annotations

import pytest
import torch

from braze.codegen.program.build import build_program
from braze.codegen.program.interpreter import run_program
from braze.codegen.program.loop_plan import plan_kernel
from braze.codegen.program.verifier import verify_program
from braze.ops import scalar
from braze.ops.dag import Dag, Node
from braze.ops.dtypes import HALF_TYPES, SHORT, is_float, is_integer
from braze.ops.interpreter import interpret
from braze.ops.kernel import BufferArg, Kernel, Stage, Store
from braze.ops.ranges import value_ranges
from braze.ops.vocabulary import OPS, REDUCTIONS, SCANS
from braze.runtime.expr import Symbol, as_expr
from tests.codegen.llvm.kernels import check

N = 19
ELSEWHERE = frozenset(
    "constant index_expr load check_index check_nonzero check to_dtype bitcast reduction scan".split()
)
"""Operations whose meaning is more than a function of values: handlers have cases of their own for them."""


def dtypes_of(op: str) -> list[torch.dtype]:
    """The element types that an operation is defined for."""
    fits = {
        "any": lambda d: True,
        "number": lambda d: d is not torch.bool,
        "float": is_float,
        "int": lambda d: d is torch.int64 if OPS[op].result == "explicit" else is_integer(d),
        "bool": lambda d: d is torch.bool,
        "bits": lambda d: not is_float(d),
    }[OPS[op].domain]
    return [d for d in SHORT if d not in HALF_TYPES and fits(d)]


CASES = [(op, dtype) for op in OPS if op not in ELSEWHERE for dtype in dtypes_of(op)]


def kernel_of(op: str, dtype: torch.dtype) -> tuple[Kernel, dict[str, torch.Tensor]]:
    """One operation on loaded values, and these."""
    dag, i = Dag(), Symbol("i0", 0, N - 1)
    definition = OPS[op]
    args: list[Node] = []
    buffers: dict[str, torch.Tensor] = {}
    for k in range(definition.arity[0]):
        own = torch.bool if op == "where" and k == 0 else dtype
        name = f"x{k}"
        args.append(dag.load(name, i.expr, own))
        values = torch.arange(N) % 7 + 1 + (k == 1)
        buffers[name] = values % 2 == 0 if own is torch.bool else values.to(own)
        if is_float(own):
            buffers[name] = buffers[name] / 16
    if op == "where":
        value = dag.where(*args)
    elif op in ("rand", "randn", "randint64"):
        value = dag.random(op, torch.int64 if op == "randint64" else torch.float32, *args)
    else:
        value = dag.op(op, *args)
    buffers["y"] = torch.zeros(N, dtype=value.dtype)
    roles = {name: BufferArg(name, t.dtype, "in", as_expr(N)) for name, t in buffers.items()}
    roles["y"] = BufferArg("y", value.dtype, "out", roles["y"].numel)
    return Kernel(op, (), (Stage((i,), (), (Store("y", i.expr, value),)),), tuple(roles.values())), buffers


@pytest.mark.parametrize(("op", "dtype"), CASES, ids=[f"{op}-{SHORT[d]}" for op, d in CASES])
def test_every_operation_has_a_machine_form(op: str, dtype: torch.dtype) -> None:
    """Kernels' interpreter, programs', and machine code, at a width with masks and one without."""
    assert op in scalar.FUNCTIONS
    kernel, buffers = kernel_of(op, dtype)
    single = buffers["y"].dtype is torch.float32
    tolerance = {"rtol": 3e-6, "atol": 3e-6} if single else {"rtol": 1e-9, "atol": 1e-9}
    expected = check(kernel, buffers, widths=(8, 16), **tolerance)
    program = build_program(kernel, plan_kernel(kernel, 8, False))
    verify_program(program)
    actual = {n: t.clone() for n, t in buffers.items()}
    run_program(program, actual)
    torch.testing.assert_close(actual["y"], expected["y"], equal_nan=True, **tolerance)


@pytest.mark.parametrize("op", sorted({op for op, d in CASES if not is_float(d)}))
def test_the_range_of_every_operation_of_integers_holds_its_values(op: str) -> None:
    dtype = next(d for o, d in CASES if o == op and not is_float(d))
    kernel, buffers = kernel_of(op, dtype)
    (store,) = kernel.stages[0].stores
    interpret(kernel, buffers)
    known = value_ranges([store.value])
    if is_float(store.value.dtype):
        assert store.value.id not in known
        return
    low, high = known[store.value.id]
    assert low <= int(buffers["y"].min()) and int(buffers["y"].max()) <= high


def test_reductions_and_scans_are_counted_and_have_components() -> None:
    assert all(flops >= 0 for flops in SCANS.values())
    assert all(row.components and row.flops >= 0 for row in REDUCTIONS.values())


def test_flops_are_those_of_operations_that_take_floats() -> None:
    assert {op for op, row in OPS.items() if row.flops and row.domain in ("bool", "bits")} == set()
    arithmetic = [op for op, row in OPS.items() if row.domain == "float" and row.result == "same"]
    assert [op for op in arithmetic if not OPS[op].flops] == ["copysign", "nextafter"]
