"""Inputs that the backward needs and that are written to when the forward is done."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.numerics import assert_agrees
from tests.support import compile_with


def _added_to(x: Tensor, row: Tensor, column: Tensor, other: Tensor) -> Tensor:
    y = torch.asin(x + row * column)
    row.add_(1)
    return y


def _replaced(x: Tensor, row: Tensor, column: Tensor, other: Tensor) -> Tensor:
    y = torch.asin(x + row * column)
    row.copy_(other)
    return y


def _by_a_view(x: Tensor, row: Tensor, column: Tensor, other: Tensor) -> Tensor:
    y = torch.asin(x + row.t() * column.t())
    row[:, 1:].mul_(3)
    column.t().zero_()
    return y


def _in_between(x: Tensor, row: Tensor, column: Tensor, other: Tensor) -> Tensor:
    row.mul_(2)
    y = torch.asin(x + row * column)
    row.sub_(other.detach())
    return y


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("program", [_added_to, _replaced, _by_a_view, _in_between])
def test_the_backward_sees_what_the_forward_saw(program: Callable[..., Any], dynamic: bool) -> None:
    compiled = compile_with(program, "braze", strict=True, dynamic=dynamic)
    for size in (3, 5):
        found, expected = (
            [
                torch.full((1, 1), 0.1, requires_grad=True),
                torch.linspace(0.1, 0.3, size)[None],
                torch.linspace(0.1, 0.3, size)[:, None],
                torch.ones(1, size, requires_grad=True),
            ]
            for _ in range(2)
        )
        results = compiled(*found), program(*expected)
        assert_agrees(*results)
        for result in results:
            result.sum().backward()
        assert_agrees(found[0].grad, expected[0].grad)
        assert_agrees(found[1].detach(), expected[1].detach())
