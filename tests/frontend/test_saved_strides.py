"""What a forward graph of symbolic sizes returns, and keeps for its backward, lies in memory as promised."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

FUNCTIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "exp": lambda x, w: F.conv2d(x, w, padding=1).exp(),
    "product": lambda x, w: F.conv2d(x, w, padding=1).relu() * F.conv2d(x, w, padding=1).sigmoid(),
    "two": lambda x, w: F.conv2d(F.conv2d(x, w, padding=1).tanh(), w, padding=1),
    "transposed": lambda x, w: F.conv_transpose2d(x, w).exp(),
    "strided": lambda x, w: F.conv2d(x, w, stride=2).tanh(),
    "view": lambda x, w: F.conv2d(x, w, padding=1).tanh().permute(0, 2, 3, 1),
}


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_gradients_of_images_of_symbolic_sizes(name: str, memory_format: torch.memory_format) -> None:
    fn = FUNCTIONS[name]
    compiled = torch.compile(fn, backend="braze", dynamic=True)
    for size in (8, 11):
        seen = []
        for function in (fn, compiled):
            generator = torch.Generator().manual_seed(1)
            x, w = (
                torch.randn(4, 4, size, size, generator=generator),
                torch.randn(4, 4, 3, 3, generator=generator),
            )
            x, w = (t.contiguous(memory_format=memory_format).requires_grad_() for t in (x, w / 6))
            result = function(x, w)
            weights = torch.linspace(-1, 1, result.numel()).reshape(result.shape)
            seen.append((result, *torch.autograd.grad((result * weights).sum(), (x, w))))
        assert seen[1][0].stride() == seen[0][0].stride()
        for wanted, found in zip(*seen, strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4)
