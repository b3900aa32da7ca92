"""Views, and tensors put together from others, against eager: of inputs, of values not stored yet, of
results."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from braze.ir.buffers import ComputedBuffer
from braze.ir.externs import ConcatKernel
from tests.lowering.execute import check, lower, trace

VIEWS: dict[str, Callable[[torch.Tensor], Any]] = {
    "view": lambda x: x.reshape(6, 4, 5),
    "view merged": lambda x: x.reshape(24, 5),
    "view flat": lambda x: x.reshape(-1),
    "view split": lambda x: x.reshape(2, 2, 6, 5),
    "permute": lambda x: x.permute(2, 0, 1),
    "transpose": lambda x: x.transpose(0, 2),
    "permute view": lambda x: x.permute(2, 0, 1).reshape(5, 24),
    "permute awkward view": lambda x: x.permute(2, 1, 0).reshape(-1),
    "expand": lambda x: x[:, None].expand(4, 3, 6, 5),
    "expand new": lambda x: x.expand(2, 4, 6, 5),
    "squeeze": lambda x: x[:1].squeeze(0),
    "squeeze all": lambda x: x[:1, :, :1].squeeze(),
    "unsqueeze": lambda x: x.unsqueeze(-1).unsqueeze(0),
    "slice": lambda x: x[1:3, -4:-1, ::2],
    "slice beyond": lambda x: x[2:100, :, -100:3],
    "slice empty": lambda x: x[3:2],
    "select": lambda x: x[:, -1],
    "select two": lambda x: x[1, :, 2],
    "split": lambda x: list(x.split(2, 1)),
    "split uneven": lambda x: list(x.split([1, 3, 2], 1)),
    "chunk": lambda x: list(x.chunk(2, 2)),
    "unbind": lambda x: list(x.unbind(0)),
    "diagonal": lambda x: x.diagonal(1, 0, 1),
    "diagonal below": lambda x: x.diagonal(-2, 1, 2),
    "unfold": lambda x: x.unfold(1, 3, 2),
    "movedim": lambda x: x.movedim(0, 2),
    "narrow": lambda x: x.narrow(1, 2, 3),
    "flip": lambda x: x.flip(0, 2),
    "roll": lambda x: x.roll((1, -2), (0, 1)),
    "repeat": lambda x: x.repeat(2, 1, 3),
    "repeat_interleave": lambda x: x.repeat_interleave(2, 1),
    "rot90": lambda x: torch.rot90(x, 1, [0, 1]),
    "tril": lambda x: x.tril(),
    "pad": lambda x: F.pad(x, (1, 2, 0, 3), value=2.0),
    "pad negative": lambda x: F.pad(x, (-1, 2, 1, -3)),
    "pad reflect": lambda x: F.pad(x, (2, 1), mode="reflect"),
    "pad replicate": lambda x: F.pad(x, (2, 1), mode="replicate"),
    "pad circular": lambda x: F.pad(x, (2, 1), mode="circular"),
    "slice_scatter": lambda x: torch.slice_scatter(x, x[:, :2] * 2, 1, 1, 3),
    "slice_scatter steps": lambda x: torch.slice_scatter(x, x[:, :3] * 2, 1, 0, 6, 2),
    "select_scatter": lambda x: torch.select_scatter(x, x[0] * 2, 0, -2),
    "diagonal_scatter": lambda x: torch.diagonal_scatter(x[0], torch.ones(5), 0),
    "cat": lambda x: torch.cat([x, x[:, :2]], 1),
    "cat many": lambda x: torch.cat([x[:, k : k + 1] for k in range(6)], 2),
    "stack": lambda x: torch.stack([x, x + 1], 1),
    "clone": lambda x: x.permute(1, 0, 2).clone(),
    "contiguous": lambda x: x.permute(1, 0, 2).contiguous(),
}


@pytest.mark.parametrize("name", VIEWS)
def test_view_of_an_input(name: str) -> None:
    check(lambda x: VIEWS[name](x), torch.randn(4, 6, 5))


@pytest.mark.parametrize("name", VIEWS)
def test_view_of_a_value(name: str) -> None:
    def fn(x: torch.Tensor) -> list[torch.Tensor]:
        result = VIEWS[name](x * 2)
        return [r + 1 for r in result] if isinstance(result, list) else [result + 1, result.sum()]

    check(fn, torch.randn(4, 6, 5))


@pytest.mark.parametrize("name", VIEWS)
def test_view_of_a_strided_input(name: str) -> None:
    # a copy of a tensor with gaps has none
    check(VIEWS[name], torch.randn(5, 6, 4).permute(2, 1, 0), check_strides=name != "diagonal_scatter")


@pytest.mark.parametrize("name", VIEWS)
def test_view_of_a_result(name: str) -> None:
    def fn(x: torch.Tensor) -> list[torch.Tensor]:
        y = x.sum(-1, keepdim=True) * torch.ones(5)
        result = VIEWS[name](y.exp())
        return [y, *(result if isinstance(result, list) else [result])]

    check(fn, torch.randn(4, 6, 5), check_strides=False)  # a copy may be denser than a view


def test_views_of_empty_tensors() -> None:
    check(
        lambda x: [x.reshape(3, 0), x.reshape(-1), x.permute(1, 0), x[:, :1], torch.cat([x, x])],
        torch.randn(0, 6),
    )
    check(lambda x: torch.cat([x, torch.zeros(0)]) if x.ndim == 1 else x, torch.randn(3))
    check(lambda x: F.pad(x, (1, 1)), torch.randn(2, 0))


def test_as_strided() -> None:
    check(lambda x: x.as_strided((2, 3), (1, 4)), torch.randn(4, 4))
    check(lambda x: x.as_strided((2, 3), (4, 1), 5) * 2, torch.randn(4, 4))
    check(lambda x: x.as_strided((2,), (4,), 6) + 1, torch.randn(4, 4)[1:])
    check(lambda x: (x + 1).as_strided((2, 2), (1, 4)), torch.randn(4, 4))


def test_cat_types_and_layouts() -> None:
    a, b = torch.randn(2, 3, 4, 4), torch.ones(2, 2, 4, 4, dtype=torch.int32)
    check(lambda x, y: torch.cat([x, y], 1), a, b)
    last = torch.channels_last
    check(lambda x, y: torch.cat([x, y], 1) * 2, a.to(memory_format=last), a.to(memory_format=last))
    check(lambda x, y: torch.cat([x.sum(0), y.sum(0) * 2], 0), a, a)


def test_cat_is_one_loop_where_it_feeds_one() -> None:
    graph, _ = lower(trace(lambda x: torch.cat([-x, x], 1) * 2, torch.randn(4, 6)))
    assert [type(op) for op in graph.operations] == [ComputedBuffer]


def test_cat_is_computed_in_place_where_it_is_a_result() -> None:
    graph, _ = lower(trace(lambda x: torch.cat([x.exp().sin(), x.exp().cos()], 1), torch.randn(4, 6)))
    kinds = [type(op) for op in graph.operations]
    assert kinds.count(ConcatKernel) == 1
    (concat,) = (op for op in graph.operations if isinstance(op, ConcatKernel))
    pieces = [
        op for op in graph.operations if isinstance(op, ComputedBuffer) and concat.buffer.name in op.writes()
    ]
    assert len(pieces) == 2


def test_a_view_of_a_value_shares_its_memory() -> None:
    def fn(x: torch.Tensor, w: torch.Tensor) -> list[torch.Tensor]:
        y = (x.permute(1, 0, 2) + 1).contiguous()
        return [y.view(24, 5) @ w, y.view(24, 5).t() @ y.view(24, 5)]

    inputs = torch.randn(4, 6, 5), torch.randn(5, 3)
    graph, _ = lower(trace(fn, *inputs))
    loops = [op for op in graph.operations if isinstance(op, ComputedBuffer)]
    assert len(loops) == 1, str(graph)
    check(fn, *inputs)


def test_a_view_of_an_input_is_no_copy() -> None:
    graph, _ = lower(trace(lambda x: x.permute(1, 0)[1:], torch.randn(4, 6)))
    assert not graph.operations
    assert graph.outputs[0].buffer is graph.inputs[0]
