"""`braze.lowering`: operators of a library become part of fused loops."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

import braze
from braze import notices
from braze.errors import BrazeWarning, FallbackError
from braze.ops.numerics import assert_agrees
from tests.extensions.library import ops
from tests.support import watch

STRICT = {"strict": True}


@pytest.fixture(autouse=True)
def _taken_back(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(notices, "_said", set())
    yield
    for name in ("swish", "mix", "middle", "scaled", "head"):
        braze.unregister(getattr(ops, name))


def swish(x: Any, beta: Any) -> Any:
    return x * braze.ops.sigmoid(x * beta)


def check(function: Callable[..., Any], *args: Any) -> None:
    compiled = torch.compile(function, backend="braze", options=STRICT)
    wide = [a.double() if isinstance(a, torch.Tensor) and a.is_floating_point() else a for a in args]
    assert_agrees(compiled(*args), function(*args), lambda: function(*wide))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_values(dtype: torch.dtype) -> None:
    braze.lowering(ops.swish)(swish)
    x = torch.randn(5, 33).to(dtype)
    x[0, :3] = torch.tensor([torch.inf, torch.nan, -0.0])
    for given in (x, x.t(), x[:, ::2], x[0, 0], x[:0], x[:, None].expand(5, 3, 33)):
        check(lambda x: ops.swish(x, 1.5), given)


def test_it_is_fused_with_its_surroundings() -> None:
    braze.lowering(ops.swish)(swish)
    with watch() as stats:
        check(lambda x: (ops.swish(x + 1, 0.5) * 2).sum(-1), torch.randn(8, 40))
    assert stats.kernels == 1 and not stats.externs and not stats.fallbacks


def test_gradients() -> None:
    braze.lowering(ops.swish)(swish)
    x = torch.randn(4, 9, requires_grad=True)
    compiled = torch.compile(lambda x: ops.swish(x.sin(), 2.0), backend="braze", options=STRICT)
    (got,) = torch.autograd.grad(compiled(x).square().sum(), x)
    (expected,) = torch.autograd.grad(ops.swish(x.sin(), 2.0).square().sum(), x)
    torch.testing.assert_close(got, expected)


def test_dynamic_sizes_and_numbers() -> None:
    braze.lowering(ops.swish)(swish)
    compiled = torch.compile(
        lambda x, beta: ops.swish(x, beta), backend="braze", options=STRICT, dynamic=True
    )
    for n, beta in ((3, 1.0), (7, 0.25), (64, -2.0)):
        x = torch.randn(n, n + 1)
        torch.testing.assert_close(compiled(x, beta), ops.swish(x, beta))


def test_several_results_masks_broadcasting_and_words() -> None:
    @braze.lowering(ops.mix)
    def mix(a: Any, b: Any, mask: Any, *, scale: Any, mode: str) -> Any:
        mixed = braze.ops.where(mask, a + b, a - b) if mode == "sum" else braze.ops.where(mask, a * b, a)
        return mixed * scale, mixed > 0

    a, b, mask = torch.randn(4, 1), torch.randn(6), torch.rand(4, 6) > 0.5
    check(lambda a, b, m: ops.mix(a, b, m), a, b, mask)
    check(lambda a, b, m: ops.mix(a, b, m, scale=0.5, mode="product"), a, b, mask)
    check(lambda a, b, m: ops.mix(a, b, m), a.double(), b, mask)
    check(lambda a, b, m: ops.mix(a, b, m, scale=0.5), (a * 9).int(), b, mask)


def test_with_the_context() -> None:
    @braze.lowering(ops.swish, context=True)
    def lowered(ctx: Any, x: Any, beta: Any) -> Any:
        return ctx.elementwise(swish, x, beta, compute=ctx.out_dtype)

    check(lambda x: ops.swish(x, 3.0), torch.randn(5, 6))


def failing(make: Callable[[], Any]) -> None:
    x = torch.randn(4, 6)
    function = make()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        torch.testing.assert_close(torch.compile(function, backend="braze")(x), function(x))
    (one,) = [w for w in said if issubclass(w.category, BrazeWarning)]
    text = str(one.message)
    torch.compiler.reset()
    with pytest.raises(Exception, match="would run as eager PyTorch") as caught:
        torch.compile(function, backend="braze", options=STRICT)(x)
    assert isinstance(getattr(caught.value, "inner_exception", caught.value), FallbackError)
    assert __file__ in text and "its lowering" in text, text


def raises(x: Any, beta: Any) -> Any:
    raise KeyError("no such thing")


@pytest.mark.parametrize(
    "lowered",
    [
        raises,
        lambda x, beta: (x, x),
        lambda x, beta: "x",
        lambda x, beta: x + 1j,
        lambda x, beta: braze.ops.where(x == 0, x, 1),
    ],
)
def test_what_fails_is_a_fallback_that_is_named(lowered: Callable[..., Any]) -> None:
    braze.lowering(ops.swish)(lowered)
    failing(lambda: lambda x: ops.swish(x + 1, 1.0) * 2)


def test_what_does_not_act_on_elements_is_not_read() -> None:
    braze.lowering(ops.head)(lambda x: x)
    failing(lambda: lambda x: ops.head(x + 1) * 2)


@pytest.mark.parametrize("made", [lambda ctx, x, beta: "x", lambda ctx, x, beta: (x, x)])
def test_what_fails_with_the_context(made: Callable[..., Any]) -> None:
    braze.lowering(ops.swish, context=True)(made)
    failing(lambda: lambda x: ops.swish(x + 1, 1.0) * 2)


def test_what_was_compiled_before_is_compiled_again() -> None:
    compiled = torch.compile(lambda x: ops.swish(x, 1.0) + 1, backend="braze")
    x = torch.randn(6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compiled(x)
    braze.lowering(ops.swish)(lambda x, beta: x * 0)
    assert torch.equal(compiled(x), torch.ones(6))
    braze.unregister(ops.swish)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.testing.assert_close(compiled(x), ops.swish(x, 1.0) + 1)


def test_a_fused_function_learns_of_it_as_well() -> None:
    fused = braze.fuse(lambda x: ops.swish(x + 1, 1.0) * 2)
    x = torch.randn(4, 6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = fused(x)
    braze.lowering(ops.swish)(lambda x, beta: x * 0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        again = fused(x)
    # fused or run as it is: its own lowering, or the operator itself, and nothing in between
    assert torch.equal(again, torch.zeros(4, 6)) or torch.equal(again, expected)


def test_complex_tensors_are_left_to_the_operator() -> None:
    braze.lowering(ops.swish)(swish)
    x = torch.randn(4, dtype=torch.complex64)
    with pytest.warns(BrazeWarning, match="complex64 is not compiled"):
        got = torch.compile(lambda x: ops.swish(x, 1.0), backend="braze")(x)
    torch.testing.assert_close(got, ops.swish(x, 1.0))
