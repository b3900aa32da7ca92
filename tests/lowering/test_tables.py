"""Indices that are known before the graph runs: regular loads where they follow a rule, no check where
they don't."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from braze.ir.buffers import ComputedBuffer
from tests.lowering.execute import check, lower, run, trace


def body(fn: object, *inputs: torch.Tensor) -> set[str]:
    graph, _ = lower(trace(fn, *inputs))
    return {n.op for op in graph.operations if isinstance(op, ComputedBuffer) for n in op.stage.nodes}


@pytest.mark.parametrize("scale", [2, 3, 1.5])
@pytest.mark.parametrize("mode", ["nearest", "nearest-exact"])
@pytest.mark.parametrize("rank", [1, 2])
def test_nearest(rank: int, mode: str, scale: float) -> None:
    x = torch.randn(1, 2, *[6] * rank)
    check(lambda x: F.interpolate(x, scale_factor=scale, mode=mode), x)
    check(lambda x: F.interpolate(x, size=[13] * rank, mode=mode), x)


def test_doubling_loads_at_regular_places() -> None:
    ops = body(lambda x: F.interpolate(x, scale_factor=2, mode="nearest") + 1, torch.randn(1, 2, 6, 6))
    assert ops == {"load", "add", "constant"}


def test_no_check_where_the_table_is_right() -> None:
    x = torch.randn(1, 2, 7, 7)
    ops = body(lambda x: F.interpolate(x, scale_factor=1.7, mode="bilinear"), x)
    assert "check_index" not in ops
    check(lambda x: F.interpolate(x, scale_factor=1.7, mode="bilinear"), x)
    check(lambda x: F.interpolate(x, scale_factor=2, mode="bicubic", align_corners=True), x)


def test_a_wrong_table_is_reported_when_it_is_used() -> None:
    def fn(x: torch.Tensor) -> torch.Tensor:
        return x[torch.arange(5) * 2]

    with pytest.raises(IndexError):
        run(fn, torch.randn(7))
    check(fn, torch.randn(9))


def test_negative_indices_wrap() -> None:
    check(
        lambda x: [x[torch.arange(-3, 0)], x[torch.arange(-2, 2)], x[(torch.arange(5) - 2) % 3]],
        torch.randn(4),
    )
