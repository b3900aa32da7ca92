"""The operators compiled by Braze are what they are in eager PyTorch, and nothing falls back."""

from __future__ import annotations

from collections.abc import Callable

import braze_extension as library
import pytest
import torch

import braze

STRICT = {"strict": True}


def _block(x: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
    return library.blend(library.gated(x + 1, gate), library.centred(x)).relu().relu()


@pytest.mark.parametrize("rows", [3, 300])
def test_values(rows: int) -> None:
    x, gate = torch.randn(rows, 64), torch.randn(64)
    compiled = torch.compile(_block, backend="braze", options=STRICT)
    torch.testing.assert_close(compiled(x, gate), _block(x, gate))


def test_gradients() -> None:
    x, gate = torch.randn(6, 8, requires_grad=True), torch.randn(8, requires_grad=True)
    function: Callable[..., torch.Tensor] = lambda x, gate: library.gated(x.sin(), gate).square().sum()  # noqa: E731
    compiled = torch.compile(function, backend="braze", options=STRICT)
    got = torch.autograd.grad(compiled(x, gate), (x, gate))
    torch.testing.assert_close(got, torch.autograd.grad(function(x, gate), (x, gate)))


def test_the_pass() -> None:
    library.enable_passes()
    try:
        x, gate = torch.randn(2, 64), torch.randn(64)
        compiled = torch.compile(_block, backend="braze", options=STRICT)
        torch.testing.assert_close(compiled(x, gate), _block(x, gate))
    finally:
        braze.unregister(library.drop_doubled_relus)
