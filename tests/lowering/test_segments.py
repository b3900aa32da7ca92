"""Reductions of segments against eager."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.lowering.execute import check, lower, run, trace

NAN = float("nan")
X = torch.tensor([1.0, 2.0, NAN, 3.0, 0.0, 5.0, 0.0, 7.0])
LENGTHS = torch.tensor([2, 0, 1, 3, 2])
OFFSETS = torch.tensor([1, 3, 3, 7])
ROWS = torch.arange(24.0).reshape(4, 3, 2)


@pytest.mark.parametrize("initial", [None, 4])
@pytest.mark.parametrize("kind", ["sum", "prod", "mean", "max", "min"])
def test_kinds(kind: str, initial: float | None) -> None:
    def by_lengths(x: torch.Tensor, n: torch.Tensor) -> torch.Tensor:
        return torch.segment_reduce(x, kind, lengths=n, axis=n.ndim - 1, initial=initial)

    def by_offsets(x: torch.Tensor, n: torch.Tensor) -> torch.Tensor:
        return torch.segment_reduce(x, kind, offsets=n, axis=n.ndim - 1, initial=initial)

    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        check(by_lengths, X.to(dtype), LENGTHS)
        check(by_offsets, X.to(dtype), OFFSETS.int())
    check(by_lengths, ROWS, torch.tensor([[1, 2], [0, 3], [3, 0], [2, 1]]))
    check(by_offsets, ROWS.transpose(0, 1), torch.tensor([0, 1, 3]))
    check(lambda x, n: by_lengths(x * 2, n) + 1, ROWS, torch.tensor([4]))


@pytest.mark.parametrize("initial", [None, 2])
@pytest.mark.parametrize("kind", ["sum", "prod", "mean", "max", "min"])
def test_gradients(kind: str, initial: float | None) -> None:
    """Also of several zeros and NaN in one product, and of several extrema in one segment."""

    def fn(grad: torch.Tensor, x: torch.Tensor, n: torch.Tensor) -> torch.Tensor:
        y = torch.segment_reduce(x, kind, lengths=n, initial=initial)
        return torch.ops.aten._segment_reduce_backward(grad, y, x, kind, lengths=n, initial=initial)

    grad = torch.tensor([1.0, 2.0, 4.0, -3.0, 5.0])
    for values in ([3.0, 3, NAN, NAN, 0, 2, 2, 2], [0.0, 0, 2, 3, NAN, 0, 5, 0], [1.0, 2, 5, 0, 3, 4, 4, 0]):
        for dtype in (torch.float32, torch.float64, torch.bfloat16):
            check(fn, grad.to(dtype), torch.tensor(values, dtype=dtype), torch.tensor([2, 0, 2, 3, 1]))

    def rows(grad: torch.Tensor, x: torch.Tensor, n: torch.Tensor) -> torch.Tensor:
        y = torch.segment_reduce(x, kind, offsets=n)
        return torch.ops.aten._segment_reduce_backward(grad, y, x, kind, offsets=n)

    check(rows, torch.randn(2, 3, 2), torch.randn(6, 3, 2), torch.tensor([1, 2, 5]))


def test_lengths_that_nobody_checks() -> None:
    check(
        lambda x, n: torch.segment_reduce(x, "sum", lengths=n, unsafe=True),
        ROWS,
        torch.tensor([1, 2]),
    )


@pytest.mark.parametrize(
    ("lengths", "offsets", "text"),
    [
        ([2, 3], None, "Expected all rows of lengths along axis to sum to data.size"),
        ([-1, 9], None, "negative"),
        (None, [0, 5, 3], "segment_length >= 0"),
    ],
)
def test_lengths_that_do_not_fit(lengths: Any, offsets: Any, text: str) -> None:
    name, given = ("lengths", lengths) if offsets is None else ("offsets", offsets)

    def fn(x: torch.Tensor, n: torch.Tensor) -> torch.Tensor:
        return torch.segment_reduce(x, "sum", **{name: n})

    for call in (fn, lambda x, n: run(fn, x, n)):
        with pytest.raises(RuntimeError, match=text):
            call(X, torch.tensor(given))


REFUSED: dict[str, Any] = {
    "nothing": lambda x: torch.segment_reduce(x, "sum"),
    "integers": lambda x: torch.segment_reduce(x.long(), "sum", lengths=torch.tensor([8])),
    "kind": lambda x: torch.segment_reduce(x, "median", lengths=torch.tensor([8])),
    "axis": lambda x: torch.segment_reduce(x, "sum", lengths=torch.tensor([[8]]), axis=0),
    "indices": lambda x: torch.segment_reduce(x, "sum", indices=torch.tensor([8])),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_eager_refuses_is_left_to_it(name: str) -> None:
    with pytest.raises((RuntimeError, NotImplementedError)):
        REFUSED[name](X)
    try:
        gm = trace(REFUSED[name], X)
    except (RuntimeError, NotImplementedError, IndexError, AttributeError):
        return  # its fake version refuses it
    assert lower(gm)[1]
