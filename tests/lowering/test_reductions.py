"""Reductions and scans against eager."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from braze.ir.buffers import ComputedBuffer
from braze.ir.loops import Reduction, WelfordReduction
from tests.lowering.execute import check, lower, run, trace

REDUCTIONS: dict[str, Callable[..., Any]] = {
    "sum": lambda x, **k: x.sum(**k),
    "mean": lambda x, **k: x.mean(**k),
    "amax": lambda x, **k: x.amax(**k),
    "amin": lambda x, **k: x.amin(**k),
    "any": lambda x, **k: (x > 0).any(**k),
    "all": lambda x, **k: (x > -2).all(**k),
    "var": lambda x, **k: x.var(**k),
    "std": lambda x, **k: x.std(correction=0, **k),
    "var_mean": lambda x, **k: list(torch.var_mean(x, **k)),
    "logsumexp": lambda x, **k: torch.logsumexp(x, k.pop("dim"), **k),
    "norm": lambda x, **k: torch.linalg.vector_norm(x, **k),
    "norm1": lambda x, **k: torch.linalg.vector_norm(x, 1, **k),
    "norm inf": lambda x, **k: torch.linalg.vector_norm(x, math.inf, **k),
    "nansum": lambda x, **k: x.nansum(**k),
    "count_nonzero": lambda x, **k: torch.count_nonzero(x, k["dim"]),
}


@pytest.mark.parametrize("keepdim", [False, True])
@pytest.mark.parametrize("dim", [0, -1, (0, 2), (0, 1, 2)], ids=str)
@pytest.mark.parametrize("name", REDUCTIONS)
def test_dims(name: str, dim: Any, keepdim: bool) -> None:
    check(lambda x: REDUCTIONS[name](x, dim=dim, keepdim=keepdim), torch.randn(3, 5, 7))


ONE_DIM: dict[str, Callable[..., Any]] = {
    "max": lambda x, *a: list(x.max(*a)) if a else x.max(),
    "min": lambda x, *a: list(x.min(*a)) if a else x.min(),
    "argmax": lambda x, *a: x.argmax(*a),
    "argmin": lambda x, *a: x.argmin(*a),
    "prod": lambda x, *a: x.prod(*a),
    "sum": lambda x, *a: x.sum(*a),
    "any": lambda x, *a: x.any(*a),
}


@pytest.mark.parametrize("args", [(), (0,), (-1,), (1, True)], ids=str)
@pytest.mark.parametrize("name", ONE_DIM)
def test_one_dim(name: str, args: tuple[Any, ...]) -> None:
    check(lambda x: ONE_DIM[name](x, *args), torch.randn(3, 5, 4))
    check(lambda x: ONE_DIM[name](x, *args), torch.randint(-3, 4, (3, 5, 4)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_float_types(dtype: torch.dtype) -> None:
    def fn(x: torch.Tensor) -> list[torch.Tensor]:
        return [
            x.sum(1),
            x.mean(0),
            x.amax(1),
            x.var(1),
            x.sum(),
            torch.softmax(x, 1),
            x.cumsum(1),
            x.prod(1),
        ]

    check(fn, torch.randn(5, 33).to(dtype))


@pytest.mark.parametrize("dtype", [torch.int8, torch.int32, torch.int64, torch.uint8, torch.bool], ids=str)
def test_integer_types(dtype: torch.dtype) -> None:
    def fn(x: torch.Tensor) -> list[torch.Tensor]:
        return [
            x.sum(1),
            x.sum(),
            x.prod(1),
            x.any(1),
            x.all(0),
            x.cumsum(1),
            x.amax(1),
            x.sum(1, dtype=torch.float32),
        ]

    check(fn, torch.randint(0, 5, (4, 6)).to(dtype))


def test_nan_and_infinity() -> None:
    x = torch.tensor(
        [[1.0, math.nan, 3.0], [math.inf, 2.0, -math.inf], [math.nan, math.nan, 0.0], [1.0, 1.0, 0.5]]
    )

    def fn(x: torch.Tensor) -> list[torch.Tensor]:
        return [
            x.amax(1),
            x.amin(1),
            *x.max(1),
            *x.min(1),
            x.argmax(1),
            x.argmin(),
            x.sum(1),
            x.mean(0),
            x.any(1),
        ]

    check(fn, x)


def test_half_sums_accumulate_in_float32() -> None:
    (total,) = run(lambda x: x.sum(), torch.full((4096,), 0.1, dtype=torch.bfloat16))
    assert abs(float(total) - 4096 * float(torch.tensor(0.1).bfloat16())) < 2


def test_empty() -> None:
    x = torch.randn(0, 3)
    check(lambda x: [x.sum(0), x.sum(1), x.sum(), x.prod(0), x.any(0), x.all(0), x.mean(0), x.amax(1)], x)
    check(lambda x: x.amax(1), torch.randn(3, 0, 2)[:, :0, :].sum(1, keepdim=True))


def test_scalars() -> None:
    check(
        lambda x: [x.sum(), x.mean(), x.amax(), x.argmax(), x.cumsum(0), x.any(), x.sum(0), *x.max(0)],
        torch.tensor(2.5),
    )
    check(lambda x: [x.var(correction=0), x.sum(-1, keepdim=True)], torch.tensor(2.5))


def test_strided_inputs() -> None:
    x = torch.randn(6, 5, 4).permute(2, 0, 1)
    check(lambda x: [x.sum(0), x.sum(1), x.argmax(2), x.argmax(), x.amax((0, 2)), x.cumsum(1)], x)
    check(lambda x: x.sum(1), torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last))
    check(
        lambda x: x.mean((2, 3), keepdim=True), torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last)
    )


def test_reductions_of_values() -> None:
    def fn(x: torch.Tensor, y: torch.Tensor) -> list[torch.Tensor]:
        z = (x + y).exp() / 2
        return [z.sum(1), z.var(1), (z - z.mean(1, keepdim=True)).abs().amax(0), torch.softmax(z, 1)]

    check(fn, torch.randn(5, 7), torch.randn(7))


def test_normalisations() -> None:
    x, w, b = torch.randn(2, 6, 4, 5), torch.randn(6), torch.randn(6)
    check(lambda x, w, b: F.group_norm(x, 3, w, b), x, w, b)
    check(lambda x, w, b: F.layer_norm(x, [5], w[:5], b[:5]), x, w, b)
    check(lambda x: F.layer_norm(x, [4, 5]), x.bfloat16())
    check(lambda x, w: F.rms_norm(x, [5], w[:5]), x, w)
    check(lambda x, w, b: F.batch_norm(x, b, w.abs(), w, b), x, w, b)
    check(lambda x: F.instance_norm(x), x)
    check(lambda x: torch.log_softmax(x, 1), x)
    check(lambda x: F.cross_entropy(x.reshape(12, 20), torch.arange(12)), x)


def test_var_takes_two_passes_for_short_rows_and_one_for_long() -> None:
    def kinds(n: int) -> list[type]:
        graph, _ = lower(trace(lambda x: x.var(1), torch.randn(2, n)))
        return [type(op.data) for op in graph.operations if isinstance(op, ComputedBuffer)][:2]

    assert kinds(8192) == [Reduction, Reduction]
    assert WelfordReduction in kinds(8193)
    check(lambda x: list(torch.var_mean(x + 10, 1)), torch.randn(2, 8200))


@pytest.mark.parametrize("size", [(7,), (3, 1, 4), (2, 0), (4, 9)], ids=str)
def test_scans(size: tuple[int, ...]) -> None:
    check(lambda x: [x.cumsum(0), x.cumsum(-1), x.cumprod(-1), (x * 2).cumsum(0) + 1], torch.randn(size))
    check(lambda x: [x.cumsum(0), x.cumprod(0), x.cumsum(0, dtype=torch.float32)], torch.randint(-3, 4, size))


def test_nothing_is_reduced_over_one_element_or_none() -> None:
    def fn(x: torch.Tensor) -> list[torch.Tensor]:
        return [x.sum(1), x.mean(1), x.argmax(1), *x.max(1), x.any(1), x.prod(1), x.var(1, correction=0)]

    graph, _ = lower(trace(fn, torch.randn(4, 1)))
    assert not any(
        isinstance(op.data, Reduction) for op in graph.operations if isinstance(op, ComputedBuffer)
    )
    check(fn, torch.randn(4, 1))
    check(lambda x: [x.sum(1), x.mean(1), x.prod(1), x.any(1), x.all(1), x.var(1)], torch.randn(4, 0))
    check(lambda x: [x.sum((0, 1)), x.mean()], torch.randn(0, 1))
