"""Places that masks and strides choose, against eager."""

from __future__ import annotations

import pytest
import torch

from tests.lowering.execute import check, lower, trace

PART = torch.ops.aten.as_strided_scatter


@pytest.mark.parametrize("size", [0, 1, 2, 4])
def test_nonzero_static(size: int) -> None:
    x = torch.tensor([[1, 0], [0, 3]])
    nan = torch.tensor([float("nan"), 0.0, -0.0])
    for y in (x, x.float(), x.bool().t(), x.half(), torch.zeros(0, 2), torch.tensor(3.0), nan):
        check(lambda y: torch.nonzero_static(y, size=size), y)


def test_more_places_than_asked_for_and_fewer() -> None:
    x = (torch.rand(4, 5, 3) > 0.5).int()
    for size in (5, 60):
        check(lambda y, size=size: torch.nonzero_static(y * 2, size=size, fill_value=9), x)
        check(lambda y, size=size: torch.nonzero_static(y * 2, size=size), x, symbolic=True)
    compiled = torch.compile(
        lambda y: torch.nonzero_static(y > 0.3, size=50), backend="braze", options={"strict": True}
    )
    y = torch.rand(20, 30)
    assert torch.equal(compiled(y), torch.nonzero_static(y > 0.3, size=50))


def test_gradients_of_a_masked_scatter() -> None:
    back = torch.ops.aten.masked_scatter_backward
    mask = torch.rand(4, 5) > 0.5
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        grad = torch.randn(4, 5).to(dtype)
        check(lambda g, m: back(g, m, [3, 10]), grad, mask)
        check(lambda g, m: back(g * 2, m, [20]), grad.t(), mask.t())
        check(lambda g, m: back(g, m, [20]), grad, mask[:1], symbolic=True)
    check(lambda g, m: back(g, m, [0]), torch.zeros(0, 2), torch.zeros(0, 2).bool())

    def fn(x: torch.Tensor, m: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        return (x.masked_scatter(m, s) * torch.arange(5)).sum()

    x, s = torch.randn(4, 5, requires_grad=True), torch.randn(30, requires_grad=True)
    compiled = torch.compile(fn, backend="braze", options={"strict": True})
    ours, theirs = (torch.autograd.grad(f(x, mask, s), (x, s)) for f in (compiled, fn))
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.bool], ids=str)
def test_as_strided_scatter(dtype: torch.dtype) -> None:
    x = torch.randn(3, 4).to(dtype)
    square, row = torch.ones(2, 2).to(dtype), torch.ones(2).to(dtype)
    check(lambda x, s: PART(x, s, (2, 2), (1, 2), 0), x, square)
    check(lambda x, s: PART(x, s, (2, 2), (1, 2), 3), x.t(), square.t())
    check(lambda x, s: PART(x + x, s, (2, 2), (1, 2), 3).flip(0), x, square)
    check(lambda x, s: PART(x, s, (2,), (1,), None), x[1:], row)
    check(lambda x, s: PART(x, s, (2,), (1,), 4), x[:, 1:], row)
    check(lambda x, s: PART(x, s, (0,), (1,), 0), x, row[:0])
    check(lambda x, s: PART(x, s, (), (), 5), x, row[0])


def test_parts_that_are_left_to_eager() -> None:
    for fn, reason in (
        (lambda x: PART(x, torch.ones(2, 2), (2, 2), (1, 0), 0), "several values for one element"),
        (lambda x: PART(x[1:], torch.ones(2), (2,), (1,), 0), "beyond the tensor's own elements"),
    ):
        (found,) = lower(trace(fn, torch.zeros(3, 4)))[1]
        assert reason in found
