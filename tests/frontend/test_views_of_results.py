"""Results that are views: of inputs that are written to, of other results, of sizes that guards decide."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils._pytree import tree_leaves

from tests.numerics import assert_agrees
from tests.support import compile_with


def _last_chunk(x: torch.Tensor) -> torch.Tensor:
    x[:0] = 0
    return torch.chunk(x, 1, 0)[-1]


def _second_piece(x: torch.Tensor) -> torch.Tensor:
    x.add_(1)
    return torch.split(x, 1, 0)[1]


def _repeated(x: torch.Tensor) -> torch.Tensor:
    x.select(0, 0).copy_(x.select(0, 0))
    return x.unsqueeze(2).expand(x.shape[0], -1, 5)


def _diagonal(x: torch.Tensor) -> torch.Tensor:
    x.mul_(2)
    return x.diagonal()


def _strided(rows: int, columns: int, begin: int) -> torch.Tensor:
    """Part of memory that begins elsewhere, with gaps between rows."""
    return torch.arange(90.0).as_strided((rows, columns), (columns + 3, 1), begin)


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("fn", [_last_chunk, _second_piece, _repeated, _diagonal])
def test_views_of_inputs_that_are_written_to(
    fn: Callable[[torch.Tensor], torch.Tensor], dynamic: bool, grad: bool
) -> None:
    compiled = compile_with(fn, "braze", dynamic=dynamic)
    with torch.set_grad_enabled(grad):
        for rows, columns, begin in ((2, 3, 16), (4, 5, 3), (2, 2, 0)):
            x, y = _strided(rows, columns, begin), _strided(rows, columns, begin)
            found, expected = compiled(x), fn(y)
            assert_agrees(found, expected)
            assert found.data_ptr() - x.data_ptr() == expected.data_ptr() - y.data_ptr()
            found.zero_(), expected.zero_()
            assert_agrees(x, y)


@pytest.mark.parametrize("dynamic", [False, True])
def test_memory_that_is_returned_under_two_types(dynamic: bool) -> None:
    def fn(x: torch.Tensor) -> Any:
        doubled = x * 2
        return doubled, doubled.view(torch.int32)[:, 1:], (x + 1).view(torch.int32)

    x = torch.randn(3, 4)
    results, expected = compile_with(fn, "braze", strict=True, dynamic=dynamic)(x), fn(x)
    assert_agrees(results, expected)
    results[0].zero_(), expected[0].zero_()
    assert_agrees(results, expected)


PARTS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "diagonal": lambda y: y.diagonal(0, -1, 1),
    "diagonal beside": lambda y: y.diagonal(1, 0, 1),
    "diagonal of a part": lambda y: y[:, 1:].diagonal(0, 0, 1).transpose(0, 1),
    "transposed": lambda y: y.transpose(0, 1),
    "slice": lambda y: y[:, 1:],
    "steps": lambda y: y[:, ::2, 1:],
    "repeated": lambda y: y[:1].expand(3, *y.shape[1:]),
    "windows": lambda y: y.unfold(1, 2, 1),
    "permuted": lambda y: y.permute(2, 0, 1, 3),
    "chunk": lambda y: y.chunk(2, 3)[1],
    "squeezed": lambda y: y[:, :1].squeeze(1),
    "taken apart": lambda y: y.transpose(0, 1).unflatten(0, (1, -1)),
    "one": lambda y: y.unbind(1)[1],
}


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("name", PARTS)
def test_a_part_of_a_result_lies_as_in_eager(name: str, dynamic: bool) -> None:
    def fn(x: torch.Tensor) -> torch.Tensor:
        return PARTS[name](x * 2)

    compiled = compile_with(fn, "braze", strict=True, dynamic=dynamic)
    for size in ((3, 5, 4, 2), (4, 3, 5, 6)):
        x = torch.randn(size)
        assert_agrees(compiled(x), fn(x))


AS_INTEGERS: dict[str, Callable[[torch.Tensor], Any]] = {
    "whole": lambda x: x.view(torch.int32),
    "from the second": lambda x: x.view(torch.int32)[1:],
    "the second half": lambda x: x.view(torch.int32).chunk(2)[1],
    "a half of columns": lambda x: x.view(2, -1).view(torch.int32).chunk(2, 1)[1],
    "one": lambda x: x.view(torch.int32).unbind()[1],
    "the last piece": lambda x: torch.split(x.view(torch.int32), [1, x.shape[0] - 1])[1],
    "through another width": lambda x: x.view(torch.int64).view(torch.int32).chunk(2)[1],
    "of a half": lambda x: x.chunk(2)[1].view(torch.int32),
    "beside another": lambda x: (x.view(torch.int32).chunk(2)[1], x[1:]),
}


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("name", AS_INTEGERS)
def test_memory_of_an_input_that_is_returned_as_another_type(name: str, dynamic: bool) -> None:
    fn, x = AS_INTEGERS[name], torch.randn(8)
    found, expected = compile_with(fn, "braze", strict=True, dynamic=dynamic)(x), fn(x)
    assert_agrees(found, expected)
    for one, other in zip(tree_leaves(found), tree_leaves(expected), strict=True):
        assert one.data_ptr() == other.data_ptr()


def test_a_size_that_is_1_by_a_guard_is_dropped() -> None:
    def fn(x: torch.Tensor) -> Any:
        part = x[..., 0:6:3]
        return part.squeeze(1), torch.unbind(part, 1)[0] + 1

    compiled = compile_with(fn, "braze", strict=True, dynamic=True)
    for rows in (2, 3):
        x = torch.randn(rows, rows)
        assert_agrees(compiled(x), fn(x))
