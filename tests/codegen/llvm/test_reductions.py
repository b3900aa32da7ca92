"""Reductions along and across the vector lanes: machine code against the reference interpreter."""

from __future__ import annotations

import math

import pytest
import torch

from braze.codegen.llvm.generate import generate
from braze.ops.dag import Dag
from braze.ops.dtypes import is_float
from braze.ops.kernel import BufferArg, Kernel, Stage, Store
from braze.runtime.expr import Symbol, as_expr, product
from tests.codegen.llvm.kernels import check, execute, variable

F32 = torch.float32
COMPONENTS = {"welford": 3}


def reduce_kernel(
    kind: str,
    kept: tuple[object, ...],
    reduced: tuple[object, ...],
    dtype: torch.dtype = F32,
    *,
    column: bool = False,
    symbols: tuple[Symbol, ...] = (),
) -> Kernel:
    """Reduce a contiguous input; its last dimensions are the reduced ones, or with ``column`` the kept
    ones."""
    dag = Dag()
    vars = tuple(variable(f"i{k}", n) for k, n in enumerate(kept))
    rvars = tuple(variable(f"r{k}", n) for k, n in enumerate(reduced))
    index = as_expr(0)
    for v in (*rvars, *vars) if column else (*vars, *rvars):
        index = index * v.size + v.expr
    at = as_expr(0)
    for v in vars:
        at = at * v.size + v.expr
    x = dag.load("x", index, dtype)
    total = product(as_expr(n) for n in (*kept, *reduced))
    rows = product(as_expr(n) for n in kept)
    buffers = [BufferArg("x", dtype, "in", total)]
    stores = []
    for c in range(COMPONENTS.get(kind, 1)):
        node = dag.reduction(kind, (x,), rvars, c)
        buffers.append(BufferArg(f"o{c}", node.dtype, "out", rows))
        stores.append(Store(f"o{c}", at, node))
    return Kernel(f"reduce_{kind}", (), (Stage(vars, rvars, tuple(stores)),), tuple(buffers), symbols)


def data_for(kernel: Kernel, sizes: dict[str, int] | None = None) -> dict[str, torch.Tensor]:
    out = {}
    for b in kernel.buffers:
        n = b.numel.evaluate(sizes or {})
        if b.dtype is torch.bool:
            out[b.name] = torch.rand(n) < 0.1
        elif is_float(b.dtype):
            out[b.name] = torch.randn(n).to(b.dtype)
        else:
            out[b.name] = torch.randint(-5, 6, (n,)).to(b.dtype)
    return out


KINDS = ["sum", "prod", "max", "min", "argmax", "argmin", "welford"]
SHAPES = [
    ((), (1,)), ((3,), (17,)), ((2,), (1000,)), ((5,), (3, 7)), ((2, 3), (2, 33)), ((1,), (9000,)),
    ((70,), (5,)), ((0,), (4,)),
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("column", [False, True])
def test_kinds(kind: str, column: bool) -> None:
    for kept, reduced in SHAPES:
        kernel = reduce_kernel(kind, kept, reduced, column=column)
        check(kernel, data_for(kernel), rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [("sum", torch.int64), ("prod", torch.int32), ("max", torch.uint8), ("min", torch.int16),
     ("argmax", torch.int64), ("any", torch.bool), ("all", torch.bool),
     ("sum", torch.float64), ("welford", torch.float64), ("max", torch.bool), ("argmin", torch.int8)],
)  # fmt: skip
@pytest.mark.parametrize("column", [False, True])
def test_element_types(kind: str, dtype: torch.dtype, column: bool) -> None:
    for kept, reduced in [((3,), (37,)), ((33,), (4,))]:
        kernel = reduce_kernel(kind, kept, reduced, dtype, column=column)
        check(kernel, data_for(kernel))


@pytest.mark.parametrize("kind", KINDS)
def test_split_over_threads(kind: str) -> None:
    for kept, reduced, column in [
        ((), (200_001,), False),
        ((24,), (20_000,), True),
        ((2,), (300, 300), False),
    ]:
        kernel = reduce_kernel(kind, kept, reduced, column=column)
        assert len(generate(kernel, 8).functions) == 2
        check(kernel, data_for(kernel), threads=(1, 2, 3), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["sum", "max", "welford", "argmax"])
@pytest.mark.parametrize("column", [False, True])
def test_symbolic(kind: str, column: bool) -> None:
    s0, s1 = Symbol("s0", 0), Symbol("s1", 1)
    kernel = reduce_kernel(kind, (s0.expr,), (s1.expr,), column=column, symbols=(s0, s1))
    for a, b in [(3, 17), (40, 2), (1, 5000), (0, 3), (17, 16)]:
        sizes = {"s0": a, "s1": b}
        check(kernel, data_for(kernel, sizes), sizes, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("kind", ["sum", "prod", "max", "argmax"])
def test_special_values(kind: str) -> None:
    for n in (5, 16, 70):
        kernel = reduce_kernel(kind, (8,), (n,))
        data = data_for(kernel)
        x = data["x"].view(8, n)
        x[1, n // 2] = math.nan
        x[2, n - 1] = math.inf
        x[3] = -math.inf
        x[4, 0] = -math.inf
        x[5, n // 2] = math.nan
        x[5, n - 1] = math.nan
        x[6] = 1.0
        check(kernel, data, rtol=2e-5, atol=2e-5)


def test_empty_reduction_gives_the_identity() -> None:
    s1 = Symbol("s1", 0)
    for kind, value in [("sum", 0.0), ("prod", 1.0), ("max", -math.inf)]:
        kernel = reduce_kernel(kind, (3,), (s1.expr,), symbols=(s1,))
        data = data_for(kernel, {"s1": 0})
        code = generate(kernel, 8)
        execute(code, data, {"s1": 0})
        assert data["o0"].tolist() == [value] * 3


def test_long_sums_are_accurate() -> None:
    x = torch.rand(1 << 20)
    kernel = reduce_kernel("sum", (2,), (1 << 19,))
    data = {"x": x, "o0": torch.zeros(2)}
    exact = x.double().view(2, -1).sum(1)
    for width in (1, 8, 16):
        execute(generate(kernel, width), data, {})
        error = ((data["o0"].double() - exact) / exact).abs().max().item()
        assert error < 2e-6 if width == 1 else error < 3e-7
