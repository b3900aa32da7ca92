"""Symbolic sizes: one lowering, run at the sizes of the trace and at others."""

from __future__ import annotations

import math
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
    assert all(e.constant is None for e in graph.inputs[0].layout.sizes)
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


def _shortened(x: torch.Tensor) -> torch.Tensor:
    kept = int(x.shape[1] * 0.6) + 1
    return (x[:, :kept] * 2).softmax(1) @ x.new_ones(kept, kept)


def _padded(x: torch.Tensor) -> torch.Tensor:
    groups = math.ceil(x.shape[1] / 3.0)
    return F.pad(x, (0, groups * 3 - x.shape[1])).view(x.shape[0], groups, 3).sum(2)


def _flattened(x: torch.Tensor) -> torch.Tensor:
    rows, columns = int(x.shape[0] * 0.8), int(x.shape[1] * 0.6) + 1
    return torch.cat([x[:rows, :columns].exp().flatten(), x.flatten()]) * 2


def _square(x: torch.Tensor) -> torch.Tensor:
    side = int(math.sqrt(x.shape[1]))
    return x[:, : side * side].reshape(x.shape[0], side, side).mT * 2


def _halves(x: torch.Tensor) -> torch.Tensor:
    half = round(x.shape[1] / 2)
    return x[:, :half].cumsum(1) * x[:, -half:]


BY_FLOATS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "a part": _shortened,
    "rounded up": _padded,
    "two factors of one size": _flattened,
    "a square root": _square,
    "rounded": _halves,
    "a power": lambda x: x.unfold(1, int(x.shape[1] ** 0.5), 1).amax(2),
    **{
        f"{mode} interpolation": (
            lambda x, mode=mode: F.interpolate(x[None, None], scale_factor=1.7, mode=mode)  # type: ignore[misc]
        )
        for mode in ("nearest", "nearest-exact", "bilinear", "bicubic", "area")
    },
}


@pytest.mark.parametrize("name", BY_FLOATS)
def test_sizes_that_floats_decide(name: str) -> None:
    """A backward graph is handed tensors of such sizes."""
    fn = BY_FLOATS[name]
    torch._dynamo.reset()
    compiled = torch.compile(fn, backend="braze", dynamic=True, options={"strict": True})
    for rows, columns in ((5, 11), (7, 16), (3, 30)):
        x = torch.randn(rows, columns, requires_grad=True)
        y = x.detach().clone().requires_grad_()
        theirs, ours = fn(x), compiled(y)
        weights = torch.randn_like(theirs)
        theirs.backward(weights)
        ours.backward(weights)
        assert_agrees([ours, y.grad], [theirs, x.grad])
