"""Distances by every norm against eager."""

from __future__ import annotations

import math

import pytest
import torch

from tests.lowering.execute import check, lower, trace

NORMS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, math.inf)
X = torch.tensor([[1.0, 2.0, 0.5], [3.0, 5.0, 0.0], [0.0, 0.0, 0.0], [-1.0, 0.0, 4.0], [0.0, 0.0, 0.0]])


@pytest.mark.parametrize("p", NORMS)
def test_cdist(p: float) -> None:
    check(lambda a, b: torch.cdist(a, b, p), torch.randn(2, 4, 3), torch.randn(2, 5, 3))
    check(lambda a, b: torch.cdist(a, b, p), X.double(), X[1:].double())


@pytest.mark.parametrize("p", NORMS)
def test_pdist(p: float) -> None:
    special = torch.tensor([[1.0, 2.0, math.nan], [3.0, 5.0, 0.0], [math.inf, 0.0, 0.0], [3.0, 5.0, 0.0]])
    for x in (X, X.double(), special, torch.randn(30, 4), torch.randn(4, 3).t(), X[:2], X[:1], X[:0]):
        check(lambda x: torch.pdist(x, p), x)


@pytest.mark.parametrize("p", NORMS)
def test_gradients_of_pdist(p: float) -> None:
    def fn(grad: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return torch.ops.aten._pdist_backward(grad, x, p, torch.pdist(x, p))

    for x in (X, X.double(), torch.randn(9, 4)):
        pairs = x.shape[0] * (x.shape[0] - 1) // 2
        check(fn, torch.randn(pairs, dtype=x.dtype), x)


def test_every_pair_of_rows_has_its_place() -> None:
    x = torch.arange(70.0).square()[:, None]
    compiled = torch.compile(lambda x: torch.pdist(x, 1.0), backend="braze", options={"strict": True})
    assert torch.equal(compiled(x), torch.pdist(x, 1.0))


def test_half_types_are_left_to_eager() -> None:
    _, fallbacks = lower(trace(lambda x: torch.ops.aten._pdist_forward(x, 2.0), torch.randn(3, 2).half()))
    assert len(fallbacks) == 1
