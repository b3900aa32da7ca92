from __future__ import annotations

import torch

from braze.frontend.passes import cse
from tests.frontend.passes.graphs import check, operators, trace

X = torch.randn(3, 4)


def test_equal_nodes_become_one() -> None:
    left = check(cse.run, lambda x: x.sin() * x.sin() + x.exp() * x.exp(), X)
    assert left["aten.sin.default"] == 1
    assert left["aten.exp.default"] == 1


def test_it_sees_through_chains() -> None:
    left = check(cse.run, lambda x: (x + 1).sin().sum() - (x + 1).sin().sum() * 2, X)
    assert left["aten.sum.default"] == 1


def test_arguments_of_equal_value_and_different_meaning_stay_apart() -> None:
    def f(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (
            torch.full([2], 1).sum() + 0,
            torch.full([2], 1.0).sum() + 0,
            torch.full([2], True).sum() + 0,
            (1 / torch.full([2], 0.0)) * 2,
            (1 / torch.full([2], -0.0)) * 2,
        )

    left = check(cse.run, f, X, changes=False)
    assert left["aten.full.default"] == 5


def test_random_numbers_are_drawn_as_often_as_written() -> None:
    gm = trace(lambda x: torch.rand_like(x) - torch.rand_like(x), X)
    assert not cse.run(gm)
    assert operators(gm)["aten.rand_like.default"] == 2


def test_nothing_is_merged_across_a_write() -> None:
    def f(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        before = x.sin().sum()
        x.copy_(y)
        return before + x.sin().sum()

    left = check(cse.run, f, X, X + 1, changes=False)
    assert left["aten.sin.default"] == 2


def test_results_stay_separate_tensors() -> None:
    left = check(cse.run, lambda x: (x.sin(), x.sin(), x.sin() + 1), X, changes=False)
    assert left["aten.sin.default"] == 3


def test_results_that_are_one_of_several_stay_separate() -> None:
    left = check(cse.run, lambda x: (torch.var_mean(x, 0)[0], torch.var_mean(x, 0)[0]), X, changes=False)
    assert left["aten.var_mean.correction"] == 2


def test_uninitialised_memory_is_not_a_value() -> None:
    def f(x: torch.Tensor) -> torch.Tensor:
        first, second = torch.empty_like(x), torch.empty_like(x)
        return first.copy_(x) + second.copy_(x * 2)

    check(cse.run, f, X, changes=False)
