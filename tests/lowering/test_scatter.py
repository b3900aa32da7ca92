"""Writing by index tensors in all their kinds, against eager."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.lowering.execute import check, lower, run, trace

pytestmark = pytest.mark.filterwarnings("ignore:index_reduce", "ignore:The reduce argument")

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.uint8)
KINDS = ("sum", "prod", "mean", "amax", "amin")
AT = torch.tensor([0, 3, 1, 0, 0])
"""Places among 4: one is there several times, and one is not."""
NAN, INF = float("nan"), float("inf")


def _values(*size: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return (torch.randn(*size) * 3).to(dtype)


@pytest.mark.parametrize("dtype", [*DTYPES, torch.bool], ids=str)
@pytest.mark.parametrize("include_self", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_scatter_reduce(kind: str, include_self: bool, dtype: torch.dtype) -> None:
    def fn(x: torch.Tensor, i: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return x.scatter_reduce(0, i[:, None, None].expand(5, 5, 3), v, kind, include_self=include_self)

    if dtype is torch.bool and kind == "mean":
        _, fallbacks = lower(trace(fn, torch.ones(4, 5, 3).bool(), AT, torch.ones(5, 5, 3).bool()))
        assert fallbacks == ["aten.scatter_reduce.two: eager PyTorch refuses a mean of booleans"]
        return
    x, v = _values(4, 5, 3, dtype=dtype), _values(5, 5, 3, dtype=dtype)
    check(fn, x, AT, v)
    check(fn, x.transpose(0, 1).contiguous().transpose(0, 1), AT.repeat_interleave(2)[::2], v.flip(1))
    check(fn, x, AT, v, symbolic=True)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("include_self", [True, False])
@pytest.mark.parametrize("kind", KINDS[1:])
def test_index_reduce(kind: str, include_self: bool, dtype: torch.dtype) -> None:
    def fn(x: torch.Tensor, i: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return x.index_reduce(1, i, v, kind, include_self=include_self)

    x, v = _values(3, 4, 2, dtype=dtype), _values(3, 5, 2, dtype=dtype)
    check(fn, x, AT, v)
    check(fn, x, AT.int(), v.transpose(1, 2).contiguous().transpose(1, 2), symbolic=True)


@pytest.mark.parametrize("include_self", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_values_that_are_no_usual_numbers(kind: str, include_self: bool) -> None:
    x = torch.tensor([1.0, NAN, 3.0, -0.0, 7.0, -INF, 0.0])
    i = torch.tensor([0, 0, 1, 2, 3, 3, 5, 5, 6])
    v = torch.tensor([NAN, 5.0, 2.0, INF, 0.0, -0.0, -INF, -INF, -0.0])

    def fn(x: torch.Tensor, i: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return x.scatter_reduce(0, i, v, kind, include_self=include_self)

    check(fn, x, i, v)
    ours, theirs = torch.compile(fn, backend="braze", options={"strict": True})(x, i, v), fn(x, i, v)
    torch.testing.assert_close(ours, theirs, equal_nan=True)
    assert torch.equal(ours.nan_to_num().signbit(), theirs.nan_to_num().signbit())


def test_counts_of_a_mean_wrap_like_the_elements() -> None:
    many = torch.zeros(300, dtype=torch.int64)
    for dtype in (torch.int8, torch.uint8, torch.int64):
        check(
            lambda x, i, v: x.scatter_reduce(0, i, v, "mean"),
            torch.tensor([5, 6], dtype=dtype),
            many,
            torch.ones(300, dtype=dtype),
        )


Write = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
OF_NUMBERS: dict[str, Write] = {
    "index_add": lambda x, i, v: x.index_add(0, i, v, alpha=3),
    "index_copy": lambda x, i, v: x.index_copy(0, i, v),
    "index_reduce": lambda x, i, v: x.index_reduce(0, i, v, "prod"),
    "scatter": lambda x, i, v: x.scatter(0, i, v),
    "scatter number": lambda x, i, v: x.scatter(0, i, 4.0),
    "scatter_add": lambda x, i, v: x.scatter_add(0, i, v),
    "scatter_reduce": lambda x, i, v: x.scatter_reduce(0, i, v, "amin"),
    "put": lambda x, i, v: x.put(i, v),
}


@pytest.mark.parametrize("name", OF_NUMBERS)
def test_tensors_without_dimensions(name: str) -> None:
    fn, number, zero = OF_NUMBERS[name], torch.tensor(3.0), torch.tensor(0)
    check(fn, number, zero, torch.tensor(2.0))
    check(lambda x, i, v: fn(x * 2, i, v) + 1, number, zero, torch.tensor(2.0))
    if name.startswith("scatter"):
        check(fn, number, torch.tensor([0, 0]), torch.tensor([2.0, -5.0]))
        check(fn, torch.zeros(3), torch.tensor(2), torch.tensor([2.0, 5.0]))
    elif name != "put":
        check(fn, number, torch.tensor([0]), torch.tensor(2.0))
        check(fn, torch.zeros(3), torch.tensor(2), torch.tensor([2.0]))


@pytest.mark.parametrize("name", [*OF_NUMBERS])
def test_no_places(name: str) -> None:
    check(OF_NUMBERS[name], torch.randn(3), torch.zeros(0, dtype=torch.int64), torch.zeros(0))


def test_the_older_form_of_scatter_multiplies() -> None:
    i, v = torch.tensor([[0, 1, 1], [0, 2, 2]]), torch.randn(2, 3)
    check(lambda x, i, v: x.scatter(0, i, v, reduce="multiply"), torch.randn(3, 3), i, v)
    check(lambda x, i: x.scatter(1, i, 2.5, reduce="multiply"), torch.randn(3, 3), i)


@pytest.mark.parametrize("accumulate", [True, False])
def test_put(accumulate: bool) -> None:
    def fn(x: torch.Tensor, i: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return x.put(i, v, accumulate=accumulate)

    i = torch.tensor([[0, -1], [3, 4]])
    for dtype in (torch.float32, torch.bfloat16, torch.int32, torch.bool):
        check(fn, _values(3, 2, dtype=dtype), i, _values(2, 2, dtype=dtype))
        check(fn, _values(2, 3, dtype=dtype).t(), i, _values(2, 2, dtype=dtype).t())


MASK = torch.tensor([[True, False, True], [False, True, False]])
X = torch.zeros(2, 3, 2)
MASKED: dict[str, tuple[Any, ...]] = {
    "rows": ([MASK], torch.randn(3, 2)),
    "numbers of rows": ([MASK], torch.randn(3, 1)),
    "one row": ([MASK], torch.randn(1, 2)),
    "a row": ([MASK], torch.randn(2)),
    "everything": ([X == 0], torch.randn(12)),
    "nothing but one": ([X == 0], torch.randn(1)),
    "inside": ([None, MASK[0]], torch.randn(2, 2, 2)),
    "inside, for all": ([None, MASK[0]], torch.randn(2, 1)),
    "last": ([None, None, torch.tensor([True, True])], torch.randn(3, 2)),
    "last of one": ([None, None, torch.tensor([True, False])], torch.randn(2, 3, 1)),
}


@pytest.mark.parametrize("accumulate", [True, False])
@pytest.mark.parametrize("name", MASKED)
def test_masks_and_their_values(name: str, accumulate: bool) -> None:
    masks, values = MASKED[name]
    (place,) = [k for k, m in enumerate(masks) if m is not None]

    def fn(x: torch.Tensor, m: torch.Tensor, v: torch.Tensor) -> Any:
        return torch.ops.aten.index_put(x, [*masks[:place], m, *masks[place + 1 :]], v, accumulate)

    for dtype in (torch.float32, torch.bfloat16, torch.int64, torch.bool):
        check(fn, (X + 1).to(dtype), masks[place], values.to(dtype))
    check(fn, X.transpose(0, 1).contiguous().transpose(0, 1), masks[place], values, symbolic=True)


@pytest.mark.parametrize("count", [2, 4])
def test_masks_need_as_many_values_as_places(count: int) -> None:
    def fn(x: torch.Tensor, m: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return x.index_put((m,), v)

    with pytest.raises(RuntimeError, match="shape mismatch"):
        fn(X, MASK, torch.randn(count, 2))
    with pytest.raises(RuntimeError, match=rf"shape mismatch: value tensor of shape \[{count}, 2\]"):
        run(fn, X, MASK, torch.randn(count, 2))


@pytest.mark.parametrize(
    ("mask", "values"),
    [
        (torch.tensor([True, False, True]), torch.tensor(1.0)),
        (MASK, torch.randn(3, 3)),
        (torch.tensor([True, True]), torch.randn(2, 3, 3)),
        (MASK, torch.randn(1, 3, 2)),
    ],
)
def test_masks_and_values_of_other_shapes_are_left_to_eager(mask: torch.Tensor, values: torch.Tensor) -> None:
    def fn(x: torch.Tensor, m: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return x.index_put((m,), v)

    with pytest.raises((RuntimeError, IndexError)):
        fn(X, mask, values)
    try:
        gm = trace(fn, X, mask, values)
    except (RuntimeError, IndexError):
        return  # its fake version refuses it
    assert lower(gm)[1]


@pytest.mark.parametrize("index", [4, -1])
@pytest.mark.parametrize(
    ("fn", "error"),
    [
        (lambda x, i: x.index_reduce(0, i, torch.ones(2), "amax"), IndexError),
        (lambda x, i: x.index_add(0, i, torch.ones(2)), IndexError),
        (lambda x, i: torch.stack([x, x]).index_add(1, i, torch.ones(2, 2)), RuntimeError),
        (lambda x, i: x.scatter_reduce(0, i, torch.ones(2), "prod", include_self=False), RuntimeError),
        (lambda x, i: x.put(i * 2, torch.ones(2)), IndexError),
    ],
)
def test_places_out_of_range(fn: Any, error: type[Exception], index: int) -> None:
    bad = torch.tensor([0, index]) if index > 0 else torch.tensor([0, index * 4])
    with pytest.raises(error):
        fn(torch.zeros(4), bad)
    with pytest.raises(error):
        run(fn, torch.zeros(4), bad)


REFUSED: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "rows": lambda m: m.index_reduce(0, torch.tensor([0, 1]), torch.ones(3, 2), "amax"),
    "columns": lambda m: m.index_reduce(0, torch.tensor([0, 1]), torch.ones(2, 3), "amax"),
    "types": lambda m: m.index_reduce(0, torch.tensor([0, 1]), torch.ones(2, 2).double(), "amax"),
    "kind": lambda m: m.index_reduce(0, torch.tensor([0, 1]), torch.ones(2, 2), "sum"),
    "a number": lambda m: m[0].index_reduce(0, torch.tensor([0]), m[0, 0], "prod"),
    "a matrix of places": lambda m: m.index_reduce(0, torch.tensor([[0, 1]]), torch.ones(2, 2), "prod"),
    "booleans": lambda m: m[0].bool().index_reduce(0, torch.tensor([0]), m[0, :1].bool(), "amax"),
    "elements": lambda m: m.put(torch.tensor([0, 1]), torch.ones(3)),
    "an empty tensor": lambda m: m[:0].put(torch.tensor([0, 1]), torch.ones(2)),
    "another type": lambda m: m.put(torch.tensor([0, 1]), torch.ones(2).double()),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_eager_refuses_is_left_to_it(name: str) -> None:
    with pytest.raises((RuntimeError, IndexError, NotImplementedError)):
        REFUSED[name](torch.ones(3, 2))
    _, fallbacks = lower(trace(REFUSED[name], torch.ones(3, 2)))
    assert len(fallbacks) == 1


@pytest.mark.parametrize("alpha", [0, 1, 2])
def test_truth_values_are_added_times_whether_alpha_is_zero(alpha: int) -> None:
    x, values = torch.tensor([[True], [False], [False]]), torch.tensor([[True], [True]])
    check(lambda x, i, v: x.index_add(0, i, v, alpha=alpha), x, torch.tensor([2, 0]), values)
