from __future__ import annotations

import torch

from braze.frontend.passes import dce, views
from tests.frontend.passes.graphs import check, operators, trace

X = torch.randn(3, 4)


def clean(gm: torch.fx.GraphModule) -> bool:
    changed = views.run(gm)
    dce.run(gm)
    return changed


def test_views_without_effect_go() -> None:
    left = check(clean, lambda x: x.view(3, 4).expand(3, 4).permute(0, 1)[0:3].detach().view(3, 4) + 1, X)
    assert set(left) == {"aten.add.Tensor"}


def test_a_view_of_a_view_is_one_view() -> None:
    left = check(clean, lambda x: x.view(12).view(2, 6).view(6, 2) + 1, X)
    assert left == {"aten.view.default": 1, "aten.add.Tensor": 1}


def test_permutations_compose() -> None:
    y = torch.randn(2, 3, 4)
    left = check(clean, lambda x: x.permute(1, 2, 0).permute(-1, 0, 1) + 1, y)
    assert left == {"aten.add.Tensor": 1}
    left = check(clean, lambda x: x.permute(1, 2, 0).permute(1, 2, 0) + 1, y)
    assert left == {"aten.permute.default": 1, "aten.add.Tensor": 1}


def test_copies_of_intermediates_go() -> None:
    left = check(clean, lambda x: (x + 1).clone() * 2, X)
    assert "aten.clone.default" not in left


def test_a_copy_that_changes_the_layout_stays() -> None:
    left = check(clean, lambda x: x.t().contiguous().view(-1) + 1, X, changes=False)
    assert left["aten.clone.default"] == 1


def test_a_copied_input_stays_a_copy_when_it_is_returned() -> None:
    left = check(clean, lambda x: x.clone(), X, changes=False)
    assert left["aten.clone.default"] == 1


def test_a_copy_of_a_result_stays_a_copy() -> None:
    check(clean, lambda x: (lambda y: (y, y.clone()))(x + 1), X, changes=False)


def test_a_copy_from_before_a_write_stays() -> None:
    def f(x: torch.Tensor, y: torch.Tensor) -> None:
        before = x.clone()
        x.copy_(y)
        y.copy_(before)

    left = check(clean, lambda x, y: (f(x, y), x + 1)[1], X, X + 1, changes=False)
    assert left["aten.clone.default"] == 1


def test_a_view_that_is_returned_with_its_base_stays() -> None:
    left = check(clean, lambda x: (lambda y: (y, y.view(3, 4)))(x + 1), X, changes=False)
    assert left["aten.view.default"] == 1


def test_lossless_casts_collapse() -> None:
    half = torch.randn(5).to(torch.bfloat16)
    left = check(clean, lambda x: x.to(torch.float32).to(torch.bfloat16) + 1, half)
    assert left == {"aten.add.Tensor": 1}
    left = check(clean, lambda x: x.to(torch.float32).to(torch.float64) + 1, half)
    assert left == {"aten._to_copy.default": 1, "aten.add.Tensor": 1}


def test_rounding_casts_stay() -> None:
    left = check(clean, lambda x: x.to(torch.bfloat16).to(torch.float32) + 1, X, changes=False)
    assert left["aten._to_copy.default"] == 2
    big = torch.tensor([2**24 + 1, 3])
    check(clean, lambda x: x.to(torch.float32).to(torch.int64) + 1, big, changes=False)


def test_conjugates_are_not_taken_for_copies() -> None:
    z = torch.randn(3, dtype=torch.complex64)
    check(clean, lambda x: x.conj().clone() + 1, z, changes=False)


def test_dead_code_keeps_writes_and_checks() -> None:
    def f(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        x.sin().cos()
        torch._assert_async((y == y).all())
        x.copy_(y)
        return y + 1

    gm = trace(f, X, X + 1)
    assert dce.run(gm)
    left = operators(gm)
    assert "aten.sin.default" not in left
    assert "aten.cos.default" not in left
    assert left["aten.copy_.default"] == 1
    assert left["aten._assert_async.default"] == 1
    assert not dce.run(gm)
