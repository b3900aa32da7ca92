"""Layouts: order, density, overlap."""

from __future__ import annotations

import itertools

import torch
from hypothesis import given
from hypothesis import strategies as st

from braze.runtime.spec import stride_order
from tests.ir.layouts import layout_of, strides_in_order

shapes = st.lists(st.integers(1, 4), min_size=0, max_size=3)


def addresses(size: list[int], stride: list[int]) -> list[int]:
    points = itertools.product(*[range(n) for n in size])
    return [sum(i * s for i, s in zip(p, stride, strict=True)) for p in points]


@given(shapes, st.data())
def test_dense_and_injective_are_what_enumeration_says(size: list[int], data: st.DataObject) -> None:
    stride = [data.draw(st.integers(0, 12)) for _ in size]
    layout = layout_of(torch.float32, size, stride)
    reached = addresses(size, stride)
    distinct = len(set(reached)) == len(reached)
    if layout.is_injective:
        assert distinct
    if layout.is_dense:
        assert distinct
        assert sorted(reached) == list(range(len(reached)))
        assert layout.is_injective
    assert layout.extent == max(reached) + 1


@given(shapes, st.randoms(use_true_random=False))
def test_strides_in_an_order_are_dense_and_in_that_order(size: list[int], rng: object) -> None:
    order = list(range(len(size)))
    rng.shuffle(order)  # type: ignore[attr-defined]
    layout = layout_of(torch.float32, size, strides_in_order(size, order))
    assert layout.is_dense
    real = [d for d in order if size[d] > 1]
    assert [d for d in stride_order(layout.sizes, layout.strides) if size[d] > 1] == real


def test_gaps_and_overlaps() -> None:
    assert layout_of(torch.float32, [5], [4]).is_injective
    assert not layout_of(torch.float32, [5], [4]).is_dense
    assert not layout_of(torch.float32, [5, 3], [1, 1]).is_injective
    assert not layout_of(torch.float32, [5], [0]).is_injective
