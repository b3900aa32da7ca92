"""Symbolic sizes: one lowering, run at the sizes of the trace and at others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from braze.ir.buffers import ComputedBuffer
from tests.lowering.execute import Execution, lower, trace
from tests.numerics import assert_agrees

FUNCTIONS: dict[str, Callable[[torch.Tensor, torch.Tensor], Any]] = {
    "pointwise": lambda x, y: [x + y * 2, x.exp() * x.shape[0], x / x.shape[1]],
    "softmax": lambda x, y: [torch.softmax(x, -1), torch.log_softmax(x, 0)],
    "norms": lambda x, y: [F.layer_norm(x, [x.shape[1]]), x.var(0), x.mean()],
    "reductions": lambda x, y: [x.sum(0), *x.max(1), x.argmin(), x.any(1), x.cumsum(0)],
    "flatten": lambda x, y: [x.view(-1) * 2, (x + 1).t().reshape(-1)],
    "split heads": lambda x, y: (
        (x[:, :, None].expand(-1, -1, 4) + 1).reshape(x.shape[0], -1, 2, 4).transpose(1, 2)
    ),
    "merge heads": lambda x, y: (
        (x[None, :, :, None] * torch.ones(2, 1, 1, 3)).transpose(1, 2).reshape(2, x.shape[1], -1)
    ),
    "slices": lambda x, y: [x[1:] + 1, x[:, :-1] * 2, x[-2:], x[:, 0] + x[:, -1]],
    "cat": lambda x, y: [torch.cat([x, x * 2]), torch.cat([x, y[None]], 0) + 1],
    "pad": lambda x, y: F.pad(x, (1, 2, 0, 1), value=3.0),
    "flip": lambda x, y: [x.flip(0), x.roll(1, 1)],
    "masks": lambda x, y: [x.tril(), x.masked_fill(torch.ones_like(x, dtype=torch.bool).triu(1), 0.0)],
    "arange": lambda x, y: torch.arange(x.shape[0])[:, None] + x,
    "index": lambda x, y: [x[torch.arange(x.shape[0]).flip(0)], x[:, torch.tensor([0, 1])]],
    "index_put": lambda x, y: x.index_put((torch.tensor([0, 1, 0]),), y, accumulate=True),
    "gather": lambda x, y: x.gather(0, torch.zeros_like(x, dtype=torch.int64)),
    "matmul": lambda x, y: [x @ x.t(), (x.t() @ x) * 2],
    "new": lambda x, y: [x.new_zeros(x.shape[0], 3) + 1, torch.full((x.shape[1],), 2.0)],
    "interpolate": lambda x, y: F.interpolate(x[None, None], scale_factor=2, mode="nearest"),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_at_other_sizes(name: str) -> None:
    graph, fallbacks = lower(trace(FUNCTIONS[name], torch.randn(5, 8), torch.randn(8), symbolic=True))
    assert not fallbacks
    for rows, columns in ((5, 8), (8, 6), (2, 10), (3, 4)):
        inputs = torch.randn(rows, columns), torch.randn(columns)
        theirs = FUNCTIONS[name](*inputs)
        theirs = list(theirs) if isinstance(theirs, (list, tuple)) else [theirs]
        assert_agrees(Execution(graph, inputs).run(), theirs)


def test_sizes_stay_symbolic() -> None:
    graph, _ = lower(trace(lambda x: torch.softmax(x, -1), torch.randn(5, 7), symbolic=True))
    assert all(e.constant is None for e in graph.inputs[0].layout.size)
    loops = [op for op in graph.operations if isinstance(op, ComputedBuffer)]
    assert all(v.size.constant is None for op in loops for v in (*op.stage.vars, *op.stage.rvars))


def test_a_size_that_a_guard_makes_one_is_broadcast() -> None:
    def fn(x: torch.Tensor, i: torch.Tensor) -> list[torch.Tensor]:
        last, one = torch.chunk(x, 2)[1], torch.chunk(i, 2)[1]  # of one row, which no expression says
        return [torch.cat([x, x * 3]) + last, last.expand_as(x) * 2, x[one, torch.arange(x.shape[1])] + 1]

    x, i = torch.randn(3, 4), torch.tensor([0, 1, 2])
    graph, fallbacks = lower(trace(fn, x, i, symbolic=True))
    assert not fallbacks
    assert_agrees(Execution(graph, [x, i]).run(), fn(x, i))


def test_sizes_that_depend_on_data() -> None:
    def fn(x: torch.Tensor) -> torch.Tensor:
        return x[x > 0] * 2

    x = torch.randn(4, 6)
    graph, fallbacks = lower(trace(fn, x, symbolic=True))
    assert fallbacks == ["aten.index.Tensor: a mask as an index"]
    assert_agrees(Execution(graph, [x]).run(), [fn(x)])
