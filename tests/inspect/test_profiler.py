"""Under `torch.profiler` every kernel shows under its own name."""

from __future__ import annotations

import torch
from torch.profiler import ProfilerActivity, profile

import braze


def function(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    return torch.softmax(torch.tanh(x) @ w, -1)


def test_kernels_show_under_their_names() -> None:
    inputs = torch.randn(64, 32), torch.randn(32, 48)
    names = {name for kernel in braze.explain(function, *inputs).kernels for name in kernel.names}
    assert len(names) == 2
    compiled = torch.compile(function, backend="braze")
    expected = compiled(*inputs)
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        actual = compiled(*inputs)
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)
    events = {event.key: event.count for event in seen.key_averages()}
    assert {name: events.get(name) for name in names} == dict.fromkeys(names, 1)
    assert "aten::mm" in events
