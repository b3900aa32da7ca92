"""Slices whose bounds are numbers that a tensor holds: the trace has no more than a name for their sizes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from tests.numerics import assert_agrees

PROGRAMS: dict[str, Callable[[torch.Tensor, int], Any]] = {
    "end": lambda x, n: x[:n].exp() * 2,
    "start": lambda x, n: x[n:].exp() * 2,
    "a view of the input": lambda x, n: x[n:],
    "every second": lambda x, n: x[n::2].exp() * 2,
    "every third up to": lambda x, n: x[:n:3].exp() * 2,
    "summed": lambda x, n: x[:n].exp().sum(),
    "both ends": lambda x, n: x[n : n + 2] + 1,
    "halves in turn": lambda x, n: torch.cat([x[n:], x[:n]]) * 2,
    "three parts": lambda x, n: torch.cat([x[n:], x[:n], x])[::2] * 2,
    "padded": lambda x, n: F.pad(x[:n], (1, 2)) * 2,
    "beside a mask": lambda x, n: torch.where(torch.arange(6) < n, x, 0.0)[:n],
    "backwards": lambda x, n: x[:n].flip(0),
    "the number as well": lambda x, n: (x[:n] * 2, n),
}


KEPT: dict[str, Callable[[torch.Tensor, int], Any]] = {
    "softmax": lambda x, n: x[:n].softmax(0),
    "log_softmax": lambda x, n: x[:n].log_softmax(0).exp(),
}
"""Where eager has an answer for an empty slice, and the compiled form would have none."""


@pytest.mark.parametrize("name", [*PROGRAMS, *KEPT])
def test_slices(name: str) -> None:
    program = (PROGRAMS | KEPT)[name]
    torch._dynamo.reset()
    with torch._dynamo.config.patch(capture_scalar_outputs=True):
        compiled = torch.compile(
            lambda x, n: program(x, n.item()),
            backend="braze",
            fullgraph=True,
            options={"strict": name not in KEPT},
        )
        for number in (3, -3, 0, 6, 9, -6, -9, 2**62):
            x = torch.randn(6, requires_grad=True)
            y = x.detach().clone().requires_grad_()
            theirs, ours = program(x, number), compiled(y, torch.tensor(number))
            assert_agrees(ours, theirs)
            for result in (theirs, ours):
                first = result[0] if isinstance(result, tuple) else result
                first.backward(torch.linspace(1, 2, first.numel()).view_as(first))
            assert_agrees(y.grad, x.grad)
