from __future__ import annotations

import pytest
import torch

from braze.frontend.passes import constants, dce
from tests.frontend.passes.graphs import check

X = torch.randn(3, 4)


def clean(gm: torch.fx.GraphModule) -> bool:
    changed = constants.run(gm)
    dce.run(gm)
    return changed


def test_arithmetic_on_literals_is_done_at_once() -> None:
    left = check(clean, lambda x: x + (torch.full([4], 2.0) * 3 - 1).sqrt().view(2, 2).view(4), X)
    assert left == {"aten.full.default": 1, "aten.add.Tensor": 1}


def test_a_literal_that_is_returned_is_fresh_memory() -> None:
    left = check(clean, lambda x: torch.full([3], 0.0) + 1, X)
    assert left == {"aten.full.default": 1}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int32, torch.bool])
def test_literals_keep_their_type(dtype: torch.dtype) -> None:
    check(clean, lambda x: (torch.full([2], 1, dtype=dtype) == 1).to(torch.float16) * 2 + 1, X)


def test_promotion_counts_dimensions() -> None:
    def f(x: torch.Tensor) -> torch.Tensor:
        scalar = torch.full([], 1.0, dtype=torch.float64)
        return x + (scalar + torch.full([4], 2.0))

    check(clean, f, X)


def test_integer_wraps_and_float_specials_are_those_of_torch() -> None:
    def f(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (
            torch.full([2], 100, dtype=torch.int8) + 100,
            torch.full([2], 1.0) / torch.full([2], 0.0),
            torch.full([2], 0.0) / torch.full([2], 0.0),
            -torch.full([2], 0.0),
        )

    check(clean, f, X)


def test_neutral_elements_go() -> None:
    left = check(clean, lambda x: ((x + 2) * 1.0 / torch.full([4], 1.0) - 0.0) * 2, X)
    assert left == {"aten.add.Tensor": 1, "aten.mul.Tensor": 1}


def test_what_only_looks_neutral_stays() -> None:
    minus_zero = torch.tensor([-0.0, 1.0])
    left = check(clean, lambda x: ((x * 2) + 0.0) * 2, minus_zero, changes=False)
    assert left["aten.add.Tensor"] == 1
    check(clean, lambda x: ((x + 2) * torch.full([4], 1.0, dtype=torch.float64)) * 2, X, changes=False)
    check(clean, lambda x: ((x.sum(0) + 2) * torch.full([3, 4], 1.0)) * 2, X, changes=False)
    integers = torch.tensor([3, 4])
    check(clean, lambda x: ((x + 2) * 1.0) * 2, integers, changes=False)
    check(clean, lambda x: ((x + 2) / 1) * 2, integers, changes=False)


def test_integer_sums_with_zero_go() -> None:
    left = check(clean, lambda x: ((x * 2) + 0) * 2, torch.tensor([3, 4]))
    assert left == {"aten.mul.Tensor": 2}


def test_a_view_of_a_returned_literal_stays_its_view() -> None:
    left = check(clean, lambda x: (lambda y: (y, y.view(4)))(torch.full([2, 2], 0.0)), X, changes=False)
    assert left["aten.view.default"] == 1
