"""Variances, standard deviations and the normalisations made of them, where numbers are difficult."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.lowering.execute import check
from tests.numerics import assert_agrees, in_float64, leaves

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
SIZE = (4, 6, 10)
"""Of three sizes: batches, channels, positions."""

Program = Callable[[Tensor], Any]


def _spreads(x: Tensor) -> Any:
    return [
        result
        for correction in (0, 1, 2)
        for result in (
            x.var(2, correction=correction),
            x.std(2, correction=correction),
            *torch.var_mean(x, 1, correction=correction, keepdim=True),
            *torch.std_mean(x, (0, 2), correction=correction),
        )
    ] + [x.var(), x.std(correction=0)]


def _batch_norm(x: Tensor) -> Any:
    mean, variance = x.new_zeros(x.shape[1]), x.new_ones(x.shape[1])
    return F.batch_norm(x, mean, variance, None, None, True), mean, variance


PROGRAMS: dict[str, Program] = {
    "variances": _spreads,
    "layer_norm": lambda x: (
        F.layer_norm(x, x.shape[2:]),
        torch.native_layer_norm(x, x.shape[1:], None, None, 1e-5),
    ),
    "group_norm": lambda x: F.group_norm(x, 2),
    "instance_norm": lambda x: F.instance_norm(x),
    "batch_norm": _batch_norm,
    "rms_norm": lambda x: F.rms_norm(x, x.shape[2:]),
}


def draw(dtype: torch.dtype, size: tuple[int, ...] = SIZE) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(3), dtype=torch.float64).to(dtype)


def compiled(program: Callable[..., Any], *inputs: Any, dynamic: bool = False) -> Any:
    torch._dynamo.reset()
    return torch.compile(program, backend="braze", dynamic=dynamic, options={"strict": True})(*inputs)


def agrees(program: Program, x: Tensor, *, dynamic: bool = False) -> None:
    """As lowered and interpreted, and as machine code."""
    theirs = program(x)
    assert_agrees(compiled(program, x, dynamic=dynamic), theirs, lambda: program(in_float64(x)))
    check(lambda x: [value for _, value in leaves(program(x))], x, symbolic=dynamic, strict=not dynamic)


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_plain_numbers(dtype: torch.dtype, name: str, dynamic: bool) -> None:
    agrees(PROGRAMS[name], draw(dtype), dynamic=dynamic)


def _spread_of_rows(x: Tensor) -> list[Tensor]:
    return [x.var(1), x.var(1, correction=0), x.std(1), torch.var_mean(x, 1)[0], torch.std_mean(x, 1)[0]]


def _means_of_rows(x: Tensor) -> list[Tensor]:
    return [torch.var_mean(x, 1)[1], torch.std_mean(x, 1)[1]]


@pytest.mark.parametrize("columns", [2, 9, 300, 8192])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_equal_numbers_do_not_vary(dtype: torch.dtype, columns: int) -> None:
    greatest = torch.finfo(dtype).max
    values = [0.1, 1e4 + 0.1, 3e-5, greatest, -greatest / 3, math.sqrt(greatest)]
    values += [] if dtype is torch.float16 else [1e6 + 0.1, 1e-30]
    x = torch.tensor(values, dtype=torch.float64).to(dtype)[:, None].expand(-1, columns)
    for rows in (x, x.contiguous(), x.t().contiguous().t()):
        found = compiled(lambda x: (_spread_of_rows(x), _means_of_rows(x)), rows)
        for spread in found[0]:
            assert spread.eq(0).all(), spread
        for mean in found[1]:
            assert mean.equal(x[:, 0]), mean
        assert compiled(lambda x: F.layer_norm(x, x.shape[1:]), rows).eq(0).all()


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("offset", [1e3, -1e6, 3e7])
@pytest.mark.parametrize("name", PROGRAMS)
def test_large_numbers_that_differ_by_little(name: str, offset: float, dynamic: bool) -> None:
    for x in (draw(torch.float32) + offset, torch.full(SIZE, offset + 0.1)):
        theirs = PROGRAMS[name](x)
        found = compiled(PROGRAMS[name], x, dynamic=dynamic)
        assert_agrees(found, theirs, lambda: PROGRAMS[name](in_float64(x)))  # noqa: B023


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_nothing_overflows_on_the_way(dtype: torch.dtype) -> None:
    """Sums and squares that leave the range of a type, where means, variances or deviations don't."""
    greatest, ragged = torch.finfo(dtype).max, draw(dtype, (5, 37)).double().sigmoid()
    near = greatest * (0.9 + 0.1 * ragged)
    apart = greatest * (ragged - 0.5)
    agrees(_means_of_rows, near.to(dtype))
    agrees(_means_of_rows, apart.to(dtype))
    if dtype is torch.float64:  # a square that eager cannot hold, either
        return
    for rows in (near, apart, 2 * greatest**0.5 * ragged, 1e-6 * greatest**0.5 * ragged):
        agrees(_spread_of_rows, rows.to(dtype))


@pytest.mark.parametrize("scale", [1e-30, 1e-22, 1e-12, 1e22, 1e30])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_deviations_whose_squares_are_out_of_range(dtype: torch.dtype, scale: float) -> None:
    x = (draw(torch.float64, (3, 40)) * scale).to(dtype)
    for dynamic in (False, True):
        found, wanted = compiled(lambda x: x.std(1), x, dynamic=dynamic), x.std(1)
        torch.testing.assert_close(found, wanted, atol=0, rtol=1e-5 if dtype is torch.float32 else 0.01)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf], ids=str)
def test_what_is_not_finite(dtype: torch.dtype, bad: float) -> None:
    x = draw(dtype, (6, 9))
    for row, places in enumerate([(0,), (4,), (8,), (0, 8), (1, 2, 3)]):
        x[row, list(places)] = bad
    norms: list[Program] = [lambda x: F.layer_norm(x, x.shape[1:]), lambda x: F.group_norm(x, 3)]
    for dynamic in (False, True):
        for program in (_spread_of_rows, *norms, lambda x: F.batch_norm(x.t(), None, None, None, None, True)):
            assert_agrees(compiled(program, x, dynamic=dynamic), program(x), lambda: program(x.double()))  # noqa: B023


def test_running_mean_of_infinities() -> None:
    x = torch.tensor([[math.inf, 1.0, 2.0], [1.0, -math.inf, 2.0]])

    def program(x: Tensor) -> Tensor:
        mean = torch.zeros(2)
        F.batch_norm(x.t(), mean, torch.ones(2), None, None, True)
        return mean

    assert compiled(program, x).equal(program(x))


@pytest.mark.filterwarnings("ignore:.*degrees of freedom")
@pytest.mark.parametrize("size", [(0, 3), (3, 0), (3, 1), (1, 1)], ids=str)
def test_of_one_or_nothing(size: tuple[int, ...]) -> None:
    x = draw(torch.float32, size)
    check(lambda x: [*_spread_of_rows(x), *_means_of_rows(x)], x)
    assert_agrees(compiled(_spread_of_rows, x), _spread_of_rows(x))
    assert_agrees(compiled(_means_of_rows, x), _means_of_rows(x))
    assert_agrees(compiled(_spread_of_rows, x, dynamic=True), _spread_of_rows(x))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_weights_of_huge_vectors(dtype: torch.dtype) -> None:
    v = (draw(dtype, (4, 9)).double().sigmoid() * torch.finfo(dtype).max).to(dtype)
    agrees(lambda v: torch._weight_norm(v, v[:, :1].abs(), 0), v)
