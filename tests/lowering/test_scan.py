"""Running extrema and logarithms of sums against eager, by the interpreter and as machine code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.lowering.execute import check, lower, trace

NAN, INF = float("nan"), float("inf")
SPECIAL = torch.tensor(
    [
        [1.0, NAN, 3.0, 3.0, NAN, 5.0],
        [0.0, -0.0, 0.0, -5.0, 2.0, 2.0],
        [-INF, -INF, 1.0, INF, INF, 2.0],
    ]
)
SCANS: dict[str, Callable[[torch.Tensor, int], Any]] = {
    "cummax": lambda x, d: list(torch.cummax(x, d)),
    "cummin": lambda x, d: list(torch.cummin(x, d)),
    "logcumsumexp": torch.logcumsumexp,
}
EXTREMA = ("cummax", "cummin")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", SCANS)
def test_values(name: str, dtype: torch.dtype) -> None:
    for x in (SPECIAL.to(dtype), SPECIAL.to(dtype).t(), torch.randn(3, 20, 2).to(dtype)):
        for dim in (0, -1):
            check(lambda x, dim=dim: SCANS[name](x, dim), x)


@pytest.mark.parametrize("name", SCANS)
def test_sizes(name: str) -> None:
    for x in (torch.randn(2, 1), torch.tensor(2.0), torch.zeros(0, 3), torch.zeros(3, 0)):
        check(lambda x: SCANS[name](x, -1), x)
    check(lambda x: SCANS[name](x * 2, 1), torch.randn(3, 5), symbolic=True)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int8, torch.int64], ids=str)
@pytest.mark.parametrize("name", EXTREMA)
def test_ties_go_to_the_last(name: str, dtype: torch.dtype) -> None:
    check(lambda x: SCANS[name](x, 0), torch.randint(0, 3, (9, 4)).to(dtype))
    check(lambda x: SCANS[name](x, 1), torch.full((2, 3), torch.iinfo(torch.int8).max).to(dtype))


def test_logarithms_of_integers_are_left_to_eager() -> None:
    _, fallbacks = lower(trace(lambda x: torch.logcumsumexp(x, 0), torch.ones(3).bool()))
    assert len(fallbacks) == 1


@pytest.mark.parametrize("dim", [0, -1])
@pytest.mark.parametrize("name", SCANS)
def test_machine_code(name: str, dim: int) -> None:
    """On lanes along the scan and across it, with tails, masked and not."""

    def fn(x: torch.Tensor) -> Any:
        return SCANS[name](x * 1, dim)

    compiled = torch.compile(fn, backend="braze", options={"strict": True}, dynamic=False)
    for x in (SPECIAL, SPECIAL.t(), torch.randn(3, 70, 2), torch.randn(5, 133).round(), torch.randn(300, 3)):
        torch.testing.assert_close(compiled(x), fn(x), equal_nan=True)


@pytest.mark.parametrize("name", SCANS)
def test_gradients(name: str) -> None:
    def fn(x: torch.Tensor) -> torch.Tensor:
        found = SCANS[name](x.sin(), 1)
        value: torch.Tensor = found[0] if isinstance(found, list) else found
        return (value * torch.arange(7)).sum()

    compiled = torch.compile(fn, backend="braze", options={"strict": True})
    x = torch.randn(3, 7)
    x.requires_grad_()
    (ours,), (theirs,) = (torch.autograd.grad(f(x), x) for f in (compiled, fn))
    torch.testing.assert_close(ours, theirs)
