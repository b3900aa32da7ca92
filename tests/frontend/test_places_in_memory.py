"""Operators that look at places in a tensor's memory: copies have other places than their originals, and
inputs may lie elsewhere at each call."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

SHAPES = ((), (1,), (3,), (2, 3))
COPIES: dict[str, Callable[[Tensor], Tensor]] = {
    "clone": lambda x: x.clone(),
    "clone, contiguous": lambda x: x.clone(memory_format=torch.contiguous_format),
    "clone of a clone": lambda x: x.clone().clone(),
    "cast": lambda x: x.to(x.dtype, copy=True),
    "repeat": lambda x: x.repeat(*[1] * max(x.ndim, 1)),
    "view of a clone": lambda x: x.clone().view(-1),
    "arithmetic": lambda x: x + 0,
}


@pytest.mark.parametrize("copy", COPIES)
@pytest.mark.parametrize("dynamic", [False, True])
def test_a_copy_is_looked_at_where_it_lies(copy: str, dynamic: bool) -> None:
    def function(x: Tensor) -> tuple[Tensor, Tensor]:
        mine = COPIES[copy](x)
        scattered = torch.as_strided_scatter(mine, mine.new_ones(1), (1,), (1,), 0)
        return mine.as_strided((1, 1), (0, 1), 0) * 2, scattered

    compiled = torch.compile(function, backend="braze", dynamic=dynamic)
    for shape in SHAPES:
        x = torch.arange(20.0).as_strided(shape, torch.empty(shape).stride(), 4)
        for found, expected in zip(compiled(x), function(x), strict=True):
            assert torch.equal(found, expected)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.as_strided((2,), (1,), 5) * 2,
        lambda x: torch.as_strided(x, (2,), (1,), storage_offset=5) * 2,
        lambda x: x[1:].as_strided((2,), (1,), 5) * 2,
        lambda x: torch.as_strided_scatter(x, x.new_ones(2), (2,), (1,), 5),
        lambda x: x.as_strided((2,), (1,)) * 2,
    ],
)
@pytest.mark.parametrize("dynamic", [False, True, None])
def test_an_input_is_looked_at_where_it_lies(
    function: Callable[[Tensor], Tensor], dynamic: bool | None
) -> None:
    compiled = torch.compile(function, backend="braze", dynamic=dynamic)
    for offset in (0, 2, 4, 2, 0):
        x = torch.arange(20.0).as_strided((8,), (1,), offset)
        assert torch.equal(compiled(x), function(x))
