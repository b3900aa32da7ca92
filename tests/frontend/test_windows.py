"""Writes through `unfold`: what lies between the windows, and behind the last one, stays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.exc import BackendCompilerFailed
from torch.utils._pytree import tree_leaves

from tests.numerics import assert_agrees
from tests.support import compile_with


def _one_of_two(x: Tensor) -> Any:
    x.unfold(0, 1, 2).add_(10)
    return x + 0


def _pairs(x: Tensor) -> Any:
    y = x * 1
    y.unfold(0, 2, 2)[0].add_(10)
    return y


def _pairs_of_columns(x: Tensor) -> Any:
    windows = x.unfold(-1, 2, 2)
    windows *= 3
    windows[..., 0] = 7
    return windows.sum(0), x.t()


def _with_whole_gaps(x: Tensor) -> Any:
    y = x.clone()
    torch.Tensor.unfold(y[:6], 0, 2, 3).mul_(2)
    return y


def _of_a_view(x: Tensor) -> Any:
    x.t().unfold(dimension=1, size=3, step=3)[1:].sub_(1)
    return x


def _of_a_symbolic_size(x: Tensor) -> Any:
    y = x.clone()
    y.unfold(0, y.shape[1], y.shape[1]).add_(1)
    return y


def _read_alone(x: Tensor) -> Any:
    return x.unfold(0, 2, 1) + 1


PROGRAMS = (
    _one_of_two,
    _pairs,
    _pairs_of_columns,
    _with_whole_gaps,
    _of_a_view,
    _of_a_symbolic_size,
    _read_alone,
)


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("program", PROGRAMS)
def test_what_is_not_in_a_window_stays(program: Callable[[Tensor], Any], dynamic: bool, grad: bool) -> None:
    compiled = compile_with(program, "braze", strict=True, dynamic=dynamic)
    for rows, columns in ((7, 5), (8, 4), (9, 3)):
        x, y = torch.randn(rows, columns), torch.empty(rows, columns)
        y.copy_(x)
        leaves = [one.requires_grad_() if grad else one for one in (x, y)]
        given = [leaf * 1 if grad else leaf for leaf in leaves]
        found, expected = compiled(given[0]), program(given[1])
        assert_agrees(found, expected)
        assert_agrees(given[0], given[1])
        if grad:
            sums = [sum(t.square().sum() for t in tree_leaves(r)) for r in (found, expected)]
            assert_agrees(torch.autograd.grad(sums[0], leaves[0]), torch.autograd.grad(sums[1], leaves[1]))


def test_a_last_window_without_a_gap_runs_as_eager() -> None:
    def program(x: Tensor) -> Tensor:
        x.unfold(0, 2, 3).mul_(2)
        return x + 1

    x = torch.randn(5)
    y = x.clone()
    with pytest.warns(UserWarning, match="no whole gap follows"):
        assert_agrees(compile_with(program, "braze")(x), program(y))
    assert_agrees(x, y)
    with pytest.raises(BackendCompilerFailed, match="no whole gap follows"):
        compile_with(program, "braze", strict=True)(x)
