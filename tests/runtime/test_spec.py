"""Sizes and strides: what is said of them is what torch does, for integers and expressions alike."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from braze.runtime.expr import Symbol, as_expr
from braze.runtime.spec import (
    TensorSpec,
    byte_span,
    contiguous_strides,
    exprs,
    is_dense,
    restrided,
    same_strides,
    span,
    tensor_spec,
)

F32 = torch.float32
sizes_of = st.lists(st.integers(0, 4), max_size=4)


@given(sizes_of)
def test_contiguous_strides_are_torchs(sizes: list[int]) -> None:
    assert contiguous_strides(sizes) == torch.empty(sizes).stride()
    assert contiguous_strides(exprs(sizes)) == torch.empty(sizes).stride()


@given(sizes_of, st.data())
def test_integers_and_expressions_say_the_same(sizes: list[int], data: st.DataObject) -> None:
    strides = [data.draw(st.integers(0, 9)) for _ in sizes]
    tensor = torch.empty_strided(sizes, strides)
    assert (
        span(sizes, strides) == span(exprs(sizes), exprs(strides)) == tensor.untyped_storage().nbytes() // 4
    )
    assert byte_span(tensor) == tensor.untyped_storage().nbytes()
    assert is_dense(sizes, strides) == is_dense(exprs(sizes), exprs(strides))
    if is_dense(sizes, strides) and 0 not in sizes:
        assert tensor.numel() == span(sizes, strides)


def test_symbolic_sizes_are_multiplied() -> None:
    n = Symbol("n", 2).expr
    assert contiguous_strides([3, n, 4]) == (n * 4, 4, 1)
    spec = tensor_spec(F32, (3, n, 4))
    assert spec.is_contiguous and spec.is_dense and spec.is_injective
    assert (spec.numel, spec.extent) == (n * 12, n * 12)
    assert str(spec) == "float32[3, n, 4] stride (n*4, 4, 1)"


def test_strides_count_where_there_are_several_elements() -> None:
    assert same_strides((1, 3), (7, 1), (3, 1))
    assert same_strides((0, 3), (7, 2), (3, 1))
    assert not same_strides((2, 3), (7, 1), (3, 1))


def test_a_tensor_gets_other_strides_or_stays() -> None:
    rows = torch.arange(6.0).view(2, 3)
    assert restrided(rows, (3, 1)) is rows
    columns = restrided(rows, (1, 2))
    assert columns.stride() == (1, 2) and torch.equal(columns, rows)
    one = rows[:1].as_strided((1, 3), (9, 1))
    assert restrided(one, (3, 1)) is one


N = Symbol("n", 0).expr


@pytest.mark.parametrize(
    ("spec", "property"),
    [
        (TensorSpec(F32, (2, 3), (3, 1)), None),
        (TensorSpec(F32, (None, 3), (None, 1)), None),
        (TensorSpec(F32, (N, N + 1), (N + 1, as_expr(1))), None),
        (TensorSpec(F32, (2, 3), (3, 1), device="cuda"), "device"),
        (TensorSpec(torch.float64, (2, 3), (3, 1)), "dtype"),
        (TensorSpec(F32, (2, 4), (4, 1)), "sizes"),
        (TensorSpec(F32, (6,), (1,)), "sizes"),
        (TensorSpec(F32, (2, 3), (1, 2)), "strides"),
        (TensorSpec(F32, (N, N), (as_expr(3), None)), "sizes"),
    ],
)
def test_what_a_tensor_differs_in(spec: TensorSpec, property: str | None) -> None:
    found = spec.difference(torch.ones(2, 3), {"n": 2})
    assert (found and found[0]) == property
