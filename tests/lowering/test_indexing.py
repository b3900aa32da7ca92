"""Indexing, gathering and scattering against eager, and what happens to indices out of range."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from tests.lowering.execute import check, lower, run, trace

X = torch.arange(60.0).reshape(4, 5, 3)
I4 = torch.tensor([0, 3, -1, 2, -4])
I5 = torch.tensor([[1, -5, 4], [0, 2, -1]])

INDEXED: dict[str, Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "first": lambda x, i, j: x[i],
    "middle": lambda x, i, j: x[:, j],
    "last": lambda x, i, j: x[..., i % 3],
    "adjacent": lambda x, i, j: x[i[:, None, None], j],
    "apart": lambda x, i, j: x[i, :, i % 3],
    "apart matrix": lambda x, i, j: x[j % 4, :, j % 3],
    "all": lambda x, i, j: x[i, i, i % 3],
    "with slices": lambda x, i, j: x[1:, j, :2],
    "with select": lambda x, i, j: x[2, i % 5],
    "int32": lambda x, i, j: x[i.to(torch.int32)],
    "of a value": lambda x, i, j: (x * 2 + 1)[i] + 1,
    "computed": lambda x, i, j: x[(i + 1) % 4],
    "arange": lambda x, i, j: x[torch.arange(3), torch.arange(3)],
    "index_select": lambda x, i, j: x.index_select(1, i % 5),
    "embedding": lambda x, i, j: F.embedding(j % 4, x.reshape(4, 15)),
    "take": lambda x, i, j: x.take(i),
}


@pytest.mark.parametrize("name", INDEXED)
def test_indexing(name: str) -> None:
    check(INDEXED[name], X, I4, I5)


def test_gather() -> None:
    index = torch.tensor([[[0, 1, 2], [3, 0, 1]]])
    check(lambda x, i: x.gather(0, i), X, index)
    check(lambda x, i: (x + 1).gather(-1, i % 3), X, index)
    check(lambda x, i: x.gather(0, i), torch.randn(5), torch.tensor([4, 0]))
    check(lambda x, i: x.gather(0, i), torch.tensor(3.0), torch.tensor(0))


@pytest.mark.parametrize(
    ("fn", "index", "error"),
    [
        (lambda x, i: x[i], 4, IndexError),
        (lambda x, i: x[i], -5, IndexError),
        (lambda x, i: x[:, i], 5, IndexError),
        (lambda x, i: x.index_select(0, i), 4, IndexError),
        (lambda x, i: x.index_select(0, i), -1, IndexError),
        (lambda x, i: F.embedding(i, x[0]), 5, IndexError),
        (lambda x, i: F.embedding(i, x[0]), -1, IndexError),
        (lambda x, i: x[0, :, 0].gather(0, i), 5, RuntimeError),
        (lambda x, i: x[0, :, 0].gather(0, i), -1, RuntimeError),
        (lambda x, i: x[0, :, 0].scatter(0, i, 2.0), 5, RuntimeError),
        (lambda x, i: x[0, :, 0].scatter_add(0, i, torch.ones(3)), -1, RuntimeError),
        (lambda x, i: x.index_put((i,), torch.tensor(0.0)), 7, IndexError),
    ],
)
def test_out_of_range(fn: Any, index: int, error: type[Exception]) -> None:
    bad = torch.tensor([0, index, 1])
    with pytest.raises(error):
        fn(X, bad)
    with pytest.raises(error, match="out of bounds"):
        run(fn, X, bad)


@pytest.mark.parametrize("width", [1, 2, 3, 40])
def test_sums_of_rows_that_are_looked_up(width: int) -> None:
    table, at = torch.randn(7, width), torch.randint(-7, 7, (37,))
    check(lambda x, i: x[i].sum(-1), table, at)
    check(lambda x, i: F.embedding(i % 7, x).amax(-1) + x[i, 0], table.bfloat16(), at)


def test_a_mask_guards_an_index() -> None:
    def fn(x: torch.Tensor, i: torch.Tensor) -> torch.Tensor:
        return torch.cat([x[i], x], 0)[: i.shape[0]] * 2

    check(fn, X, I4)


SCATTERS: dict[str, Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "index_put": lambda x, i, v: x.index_put((torch.tensor([2, 0]),), v[:2]),
    "index_put broadcast": lambda x, i, v: x.index_put((torch.tensor([[2], [0]]),), torch.tensor(7.0)),
    "index_put add": lambda x, i, v: x.index_put((i,), v, accumulate=True),
    "index_put columns": lambda x, i, v: torch.ops.aten.index_put(x, [None, i % 5], v.sum(1)[:4, None], True),
    "index_put pairs": lambda x, i, v: x.index_put((i, i % 5), v[:, 0], accumulate=True),
    "index_add": lambda x, i, v: x.index_add(0, i % 4, v, alpha=2),
    "index_copy": lambda x, i, v: x.index_copy(0, torch.tensor([3, 1]), v[:2]),
    "index_fill": lambda x, i, v: x.index_fill(1, torch.tensor([0, 4]), 9.0),
    "index_fill from the end": lambda x, i, v: x.index_fill(1, torch.tensor([-1, -5, 2]), v[0, 0, 0]),
    "index_fill of one": lambda x, i, v: x[0, 0, 0].index_fill(0, torch.tensor(-1), 9.0) + x,
    "scatter": lambda x, i, v: x.scatter(0, torch.tensor([[[3, 1, 2]]]), v[:1, :1]),
    "scatter value": lambda x, i, v: x.scatter(1, torch.tensor([[[3, 1, 2]]]), -1.0),
    "scatter_add": lambda x, i, v: x.scatter_add(0, (i % 4)[:, None, None].expand(5, 5, 3), v),
    "scatter_reduce": lambda x, i, v: x.scatter_reduce(0, (i % 4)[:, None, None].expand(5, 5, 3), v, "sum"),
    "scatter reduce add": lambda x, i, v: x.scatter(0, torch.tensor([[[3, 1, 2]]]), v[:1, :1], reduce="add"),
    "mask": lambda x, i, v: x.index_put((x > 3,), torch.tensor(0.5)),
    "mask rows": lambda x, i, v: x.index_put((torch.tensor([True, False, True, False]),), torch.tensor(0.5)),
    "masked_fill": lambda x, i, v: x.masked_fill(x > 30, 0.0),
    "of zeros": lambda x, i, v: torch.zeros(4, 5, 3).index_put((i,), v, accumulate=True) * 2,
    "then used": lambda x, i, v: x.index_put((i,), v, accumulate=True).exp().sum(0) + x[0],
    "embedding grad": lambda x, i, v: torch.ops.aten.embedding_dense_backward(
        v.reshape(5, 15), i % 4, 4, -1, False
    ),
    "embedding grad padded": lambda x, i, v: torch.ops.aten.embedding_dense_backward(
        v.reshape(5, 15), i % 4, 4, 2, False
    ),
}


@pytest.mark.parametrize("name", SCATTERS)
def test_scatters(name: str) -> None:
    check(SCATTERS[name], X, I4, torch.randn(5, 5, 3))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64, torch.int64, torch.int32], ids=str)
def test_accumulating_types(dtype: torch.dtype) -> None:
    values = torch.randint(0, 9, (6, 3)).to(dtype)
    check(
        lambda x, v: x.index_put((torch.tensor([0, 1, 0, 0, 1, 3]),), v, accumulate=True),
        X[:, 0].to(dtype),
        values,
    )


def test_the_source_of_a_scatter_stays() -> None:
    x = torch.randn(4, 3)
    before = x.clone()
    run(lambda x: x.index_put((torch.tensor([0, 0]),), torch.ones(3), accumulate=True), x)
    assert torch.equal(x, before)


def test_fallbacks_are_named() -> None:
    mask = torch.tensor([True, False, True])
    _, fallbacks = lower(trace(lambda x, m: x.index_put((m, m), x[0, 0]), torch.randn(3, 3), mask))
    assert fallbacks == ["aten.index_put.default: a mask among several indices"]


@pytest.mark.parametrize("right", [False, True])
@pytest.mark.parametrize("count", [1, 2, 3, 7, 8, 33])
def test_searches(count: int, right: bool) -> None:
    boundaries = torch.arange(count).float() / 2
    x = torch.tensor([[-1.0, 0.0, 0.25, 0.5], [3.0, 100.0, float("inf"), float("nan")]])
    check(lambda x, b: torch.bucketize(x, b, right=right, out_int32=right), x, boundaries)
    rows = torch.stack([boundaries, boundaries + 1])
    check(lambda x, b: torch.searchsorted(b, x, right=right), x, rows)
    check(lambda x, b: torch.searchsorted(b, x, side="left"), torch.arange(5), torch.arange(count))
    check(lambda b: torch.bucketize(0.7, b), boundaries)


def test_masked_scatter() -> None:
    mask = torch.tensor([[True, False, True], [False, True, True]])
    check(lambda x, m, s: x.masked_scatter(m, s), torch.randn(2, 3), mask, torch.arange(10.0))
    check(lambda x, m, s: (x + 1).masked_scatter(m[0], s * 2), torch.randn(2, 3), mask, torch.arange(10.0))


def test_distances() -> None:
    for p in (1.0, 2.0, float("inf")):
        check(lambda a, b, p=p: torch.cdist(a, b, p), torch.randn(2, 4, 3), torch.randn(2, 5, 3))


def test_grid_sample() -> None:
    x, grid = torch.randn(2, 3, 5, 6), torch.rand(2, 4, 4, 2) * 2.4 - 1.2
    for padding in ("zeros", "border", "reflection"):
        check(lambda x, g, p=padding: F.grid_sample(x, g, padding_mode=p, align_corners=False), x, grid)
    check(lambda x, g: F.grid_sample(x, g, mode="nearest", align_corners=True), x, grid)


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_nll_loss(reduction: str) -> None:
    weight, target = torch.rand(7), torch.tensor([3, -100, 0, 6])
    check(lambda x, t: F.nll_loss(x, t, reduction=reduction), torch.randn(4, 7), target)
    check(
        lambda x, t, w: F.nll_loss(x, t, w, reduction=reduction),
        torch.randn(4, 7).bfloat16(),
        target,
        weight.bfloat16(),
    )
    check(
        lambda x, t, w: F.nll_loss(x, t, w, reduction=reduction),
        torch.randn(2, 7, 1, 2),
        target.view(2, 1, 2),
        weight,
    )
    check(lambda x, t: F.nll_loss(x, t, reduction=reduction), torch.randn(7), torch.tensor(3))
    check(
        lambda x, t: F.cross_entropy(x, t, reduction=reduction, ignore_index=3),
        torch.randn(4, 7),
        target.clamp(0),
    )
    with pytest.raises(IndexError, match="out of bounds"):
        run(lambda x, t: F.nll_loss(x, t, reduction=reduction), torch.randn(4, 7), torch.tensor([1, 7, 0, 0]))


def test_slices_out_of_range() -> None:
    bad, rows = torch.tensor([0, -1]), torch.ones(2, 5, 3)
    with pytest.raises(RuntimeError, match="out of bounds"):
        run(lambda x, i, v: x.index_add(0, i, v), X, bad, rows)
    with pytest.raises(IndexError, match="out of bounds"):
        run(lambda x, i, v: x.index_copy(0, i, v), X, bad, rows)


def test_no_dimensions() -> None:
    check(lambda x, i: [x.index_select(0, i), x.index_select(0, i[0])], torch.tensor(2.0), torch.tensor([0]))
    check(lambda x: [x.unfold(0, 1, 1) * 2, x.unfold(0, 0, 1)], torch.tensor(2.0))
    with pytest.raises(IndexError, match="out of bounds"):
        run(lambda x, i: x.index_select(0, i), torch.tensor(2.0), torch.tensor([1]))


NOTHING: dict[str, Callable[..., torch.Tensor]] = {
    "scatter_add": lambda x, i: x.scatter_add(0, i, x + 1),
    "scatter": lambda x, i: x.scatter(0, i, 2.0),
    "index_put": lambda x, i: x.index_put((i[0],), torch.tensor(3.0), accumulate=True),
    "index_put of a slice": lambda x, i: x.index_put((torch.tensor([0, 0]),), torch.tensor(3.0)),
    "gather": lambda x, i: x.gather(0, i),
}


@pytest.mark.parametrize("name", NOTHING)
def test_places_without_elements(name: str) -> None:
    check(NOTHING[name], torch.zeros(1, 0), torch.zeros(1, 0, dtype=torch.int64))


@pytest.mark.parametrize(
    ("function", "checks"),
    [
        (lambda x, i: x[i % 5], 0),
        (lambda x, i: x[i & 7], 1),
        (lambda x, i: x[i & 3], 0),
        (lambda x, i: x[i.clamp(0, 4)], 0),
        (lambda x, i: x[i.clamp(0, 5)], 1),
        (lambda x, i: x[(i > 0).to(torch.int64)], 0),
        (lambda x, i: x[i] // (i % 3 + 1)[:, None], 1),
    ],
)
def test_what_cannot_be_out_of_range_is_not_checked(
    function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], checks: int
) -> None:
    x, i = torch.arange(15).reshape(5, 3), torch.tensor([0, 2, 4, 1])
    check(function, x, i)
    graph, fallbacks = lower(trace(function, x, i))
    assert not fallbacks
    assert str(graph).count("= check_") == checks
