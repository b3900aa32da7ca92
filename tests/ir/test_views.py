"""Views: their indices and their layouts say the same, and what torch says."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from braze.ir import views
from braze.ir.loops import loop_indices
from braze.ir.views import BaseView
from braze.runtime.expr import Symbol, as_expr
from braze.runtime.spec import contiguous_strides
from tests.ir.layouts import layout_of


def sizes(*n: int) -> tuple:
    return tuple(map(as_expr, n))


def gathered(base: torch.Tensor, view: BaseView) -> torch.Tensor:
    """The view's elements, one by one, through ``indices``."""
    shape = [n.constant for n in view.size]
    out = torch.empty(shape, dtype=base.dtype)
    for point in product(*[range(n) for n in shape]):
        old = view.indices([as_expr(i) for i in point])
        out[point] = base[tuple(i.constant for i in old)]
    return out


CASES = [
    (views.ExpandView(sizes(2, 3, 4), sizes(3, 1)), lambda x: x.expand(2, 3, 4), (3, 1)),
    (views.PermuteView(sizes(4, 2, 3), (2, 0, 1)), lambda x: x.permute(2, 0, 1), (2, 3, 4)),
    (views.SqueezeView(sizes(2, 3), (1,)), lambda x: x.squeeze(1), (2, 1, 3)),
    (views.UnsqueezeView(sizes(2, 1, 3), 1), lambda x: x.unsqueeze(1), (2, 3)),
    (views.UnsqueezeView(sizes(2, 3, 1), 2), lambda x: x.unsqueeze(2), (2, 3)),
    (views.SliceView(sizes(2, 2), 1, as_expr(1), 2), lambda x: x[:, 1:5:2], (2, 6)),
    (views.SelectView(sizes(2, 4), 1, as_expr(2)), lambda x: x.select(1, 2), (2, 3, 4)),
    (views.DiagonalView(sizes(2, 3), 1, 2, 1), lambda x: x.diagonal(1, 1, 2), (2, 4, 4)),
    (views.DiagonalView(sizes(2, 2), 1, 2, -2), lambda x: x.diagonal(-2, 1, 2), (2, 4, 4)),
    (views.UnfoldView(sizes(2, 3, 4), 1, 2), lambda x: x.unfold(1, 4, 2), (2, 8)),
    (views.View(sizes(6, 4), sizes(2, 3, 4)), lambda x: x.reshape(6, 4), (2, 3, 4)),
    (views.View(sizes(2, 3, 2, 2), sizes(6, 4)), lambda x: x.reshape(2, 3, 2, 2), (6, 4)),
]


@pytest.mark.parametrize(("view", "fn", "shape"), CASES)
def test_a_view_is_what_torch_makes_of_it(view: BaseView, fn: object, shape: tuple[int, ...]) -> None:
    base = torch.arange(math.prod(shape)).reshape(shape)
    expected = fn(base)  # type: ignore[operator]
    assert torch.equal(gathered(base, view), expected)
    layout = view.layout(layout_of(torch.int64, shape, base.stride()))
    assert layout is not None
    ints = [tuple(e.constant for e in part) for part in (layout.sizes, layout.strides)]
    strided = torch.as_strided(base, *ints, layout.offset.constant)
    assert torch.equal(strided, expected)


@given(st.lists(st.sampled_from([1, 2, 3, 4, 6]), min_size=0, max_size=4), st.randoms(use_true_random=False))
def test_reshapes_agree_with_torch(shape: list[int], rng: object) -> None:
    rest = math.prod(shape)
    target = []
    while rest > 1:
        n = rng.choice([d for d in range(1, rest + 1) if rest % d == 0])  # type: ignore[attr-defined]
        target.append(n)
        rest //= n
    base = torch.arange(math.prod(shape)).reshape(shape)
    view = views.View(sizes(*target), sizes(*shape))
    assert torch.equal(gathered(base, view), base.reshape(target))


@given(st.permutations([0, 1, 2]), st.sampled_from([(6, 4), (24,), (2, 12), (2, 3, 2, 2), (3, 8), (2, 3, 4)]))
def test_a_reshape_of_strided_memory_has_a_layout_only_if_torch_has_a_view(
    order: list[int], target: tuple[int, ...]
) -> None:
    base = torch.arange(24).reshape(2, 3, 4).permute(order)
    view = views.View(sizes(*target), sizes(*base.shape))
    layout = view.layout(layout_of(torch.int64, base.shape, base.stride()))
    try:
        expected = base.view(target)
    except RuntimeError:
        assert layout is None
        return
    assert layout is not None
    assert tuple(e.constant for e in layout.strides) == expected.stride()


def test_symbolic_reshapes_need_no_division() -> None:
    n = Symbol("s0", 2).expr
    view = views.View((n * 8, as_expr(4)), (n, as_expr(8), as_expr(4)))
    i, j = loop_indices(view.size)
    old = view.indices([i, j])
    assert old[2] == j
    assert str(old[0]) == f"({i}//8)"
    back = views.View((n, as_expr(8), as_expr(4)), (n * 8, as_expr(4)))
    a, b, c = loop_indices(back.size)
    assert back.indices([a, b, c]) == [a * 8 + b, c]


def test_contiguous_strides_of_empty_tensors_are_torch_s() -> None:
    for shape in ((0, 3), (2, 0, 3), (3, 1, 2), ()):
        strides = tuple(as_expr(e).constant for e in contiguous_strides(sizes(*shape)))
        assert strides == torch.empty(shape).stride()
