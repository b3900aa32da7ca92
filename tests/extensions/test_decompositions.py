"""`braze.decomposition`: operators of a library in terms of PyTorch's."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

import braze
from braze import notices
from braze.errors import BrazeWarning
from braze.ops.numerics import assert_agrees
from tests.extensions.library import ops
from tests.support import watch

STRICT = {"strict": True}


@pytest.fixture(autouse=True)
def _taken_back(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(notices, "_said", set())
    yield
    for name in ("swish", "middle", "mix"):
        braze.unregister(getattr(ops, name))


@pytest.mark.parametrize("dynamic", [False, True])
def test_values_and_strides(dynamic: bool) -> None:
    braze.decomposition(ops.middle)(lambda x: x - x.mean(-1, keepdim=True))
    function = lambda x: ops.middle(x + 1) * 2  # noqa: E731
    compiled = torch.compile(function, backend="braze", options=STRICT, dynamic=dynamic)
    for x in (torch.randn(5, 33), torch.randn(33, 5).t(), torch.randn(7, 1)):
        with watch() as stats:
            assert_agrees(compiled(x), function(x))
        assert not stats.externs


def test_gradients() -> None:
    braze.decomposition(ops.swish)(lambda x, beta: x * torch.sigmoid(x * beta))
    x = torch.randn(4, 9, requires_grad=True)
    compiled = torch.compile(lambda x: ops.swish(x.sin(), 2.0), backend="braze", options=STRICT)
    (got,) = torch.autograd.grad(compiled(x).square().sum(), x)
    (expected,) = torch.autograd.grad(ops.swish(x.sin(), 2.0).square().sum(), x)
    torch.testing.assert_close(got, expected)


def test_several_results() -> None:
    @braze.decomposition(ops.mix)
    def mix(a: Any, b: Any, mask: Any, *, scale: float = 2.0, mode: str = "sum") -> Any:
        mixed = torch.where(mask, a + b, a - b) * scale
        return mixed, mixed > 0

    a, b, mask = torch.randn(4, 1), torch.randn(6), torch.rand(4, 6) > 0.5
    function = lambda a, b, m: ops.mix(a, b, m)  # noqa: E731
    compiled = torch.compile(function, backend="braze", options=STRICT)
    assert_agrees(compiled(a, b, mask), function(a, b, mask))


def raises(x: Any) -> Any:
    raise ValueError("no")


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (raises, "ValueError: no"),
        (lambda x: (x, x), "2 results"),
        (lambda x: 3, "a int, and not a tensor"),
        (lambda x: x.double(), "float64"),
        (lambda x: x[:1], r"\[1, 6\]"),
    ],
)
def test_what_fails_leaves_the_operator_whole(made: Callable[..., Any], message: str) -> None:
    braze.decomposition(ops.middle)(made)
    braze.extern(ops.middle)
    function = lambda x: ops.middle(x + 1) * 2  # noqa: E731
    x = torch.randn(4, 6)
    with pytest.warns(BrazeWarning, match=message) as said:
        torch.testing.assert_close(torch.compile(function, backend="braze")(x), function(x))
    assert any(__file__ in str(w.message) for w in said)
    torch.compiler.reset()
    with pytest.raises(Exception, match="would stay whole"):
        torch.compile(function, backend="braze", options=STRICT)(x)


def test_one_that_declines() -> None:
    braze.decomposition(ops.middle)(lambda x: NotImplemented)
    braze.extern(ops.middle)
    x = torch.randn(4, 6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = torch.compile(ops.middle, backend="braze", options=STRICT)(x)
    torch.testing.assert_close(got, ops.middle(x))
