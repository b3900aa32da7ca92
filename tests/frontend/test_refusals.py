"""What eager PyTorch refuses, a compiled function refuses, with the same type of error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from tests import support

Case = tuple[Callable[..., Any], tuple[torch.Tensor, ...]]

LONG, INT, BYTE, HALF = torch.int64, torch.int32, torch.uint8, torch.float16


def _x(*size: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    values = torch.linspace(0.05, 0.95, int(torch.Size(size).numel())).reshape(size)
    return values.to(dtype) if dtype.is_floating_point else (values * 10).to(dtype)


def _zeros(n: int, dtype: torch.dtype = LONG) -> torch.Tensor:
    return torch.zeros(n, dtype=dtype)


def _bags(indices: list[int], offsets: list[int]) -> tuple[torch.Tensor, ...]:
    return torch.tensor(indices), _x(10, 3), torch.tensor(offsets)


TYPES: dict[str, Case] = {
    "softmax of integers": (lambda x: torch.softmax(x, 0), (_x(4, dtype=LONG),)),
    "log_softmax of integers": (lambda x: torch.log_softmax(x, 0), (_x(4, dtype=INT),)),
    "gelu of integers": (F.gelu, (_x(4, dtype=LONG),)),
    "hardswish of integers": (F.hardswish, (_x(4, dtype=INT),)),
    "frac of integers": (torch.frac, (_x(4, dtype=LONG),)),
    "hypot of integers": (lambda x: torch.hypot(x, x), (_x(4, dtype=LONG),)),
    "logaddexp of integers": (lambda x: torch.logaddexp(x, x), (_x(4, dtype=BYTE),)),
    "abs of booleans": (torch.abs, (_x(4) > 0,)),
    "pow of booleans": (lambda x: torch.pow(x, x), (_x(4) > 0,)),
    "addcmul of booleans": (lambda x: torch.addcmul(x, x, x), (_x(4) > 0,)),
    "bitwise_and of floats": (lambda x: torch.bitwise_and(x, x), (_x(4),)),
    "a shift of floats": (lambda x: torch.bitwise_left_shift(x, x), (_x(4),)),
    "log_ndtr of bfloat16": (torch.special.log_ndtr, (_x(4, dtype=torch.bfloat16),)),
    "bessel_j0 of float16": (torch.special.bessel_j0, (_x(4, dtype=HALF),)),
    "a gradient of integers": (
        lambda x: torch.ops.aten.softplus_backward(x, x, 1, 20),
        (_x(4, dtype=LONG),),
    ),
    "pooling of integers": (lambda x: F.adaptive_avg_pool2d(x, 2), (_x(1, 1, 4, 4, dtype=LONG),)),
    "std of integers": (torch.std, (_x(4, dtype=LONG),)),
    "a search among booleans": (lambda x: torch.bucketize(x, x), (_x(4) > 0,)),
    "vectors of two types": (torch.dot, (_x(4), _x(4).double())),
    "a mixed matrix product": (torch.mv, (_x(4, 4), _x(4).double())),
    "a mixed layer_norm": (lambda x, w: torch.layer_norm(x, (4,), w), (_x(2, 4), _x(4).double())),
    "a mixed heaviside": (torch.heaviside, (_x(4), _x(4).double())),
    "a mixed lerp": (lambda x, y: torch.lerp(x, y, 0.5), (_x(4), _x(4).double())),
    "a mixed grid_sample": (F.grid_sample, (_x(1, 1, 4, 4), _x(1, 2, 2, 2).double())),
    "a mixed binary_cross_entropy": (F.binary_cross_entropy, (_x(4), _x(4).double())),
    "a range of booleans": (lambda x: torch.arange(3, dtype=torch.bool) & x, (_x(1) > 0,)),
    "targets of int32": (F.nll_loss, (_x(4, 4), _zeros(4, INT))),
    "indices of int32": (lambda x, i: x.index_copy(0, i, x[:2]), (_x(4), _zeros(2, INT))),
    "take with int32": (torch.take, (_x(4), _zeros(2, INT))),
    "index_add of another type": (lambda x, i, s: x.index_add(0, i, s), (_x(4), _zeros(2), _x(2).double())),
    "index_put of another type": (
        lambda x, i, s: torch.index_put(x, (i,), s),
        (_x(4), _zeros(2), _x(2).double()),
    ),
}

NUMBERS: dict[str, Case] = {
    "celu": (lambda x: F.celu(x, 0.0), (_x(4),)),
    "smooth_l1_loss": (lambda x: F.smooth_l1_loss(x, x, beta=-1.0), (_x(4),)),
    "huber_loss": (lambda x: F.huber_loss(x, x, delta=0.0), (_x(4),)),
    "mvlgamma": (lambda x: torch.mvlgamma(x + 4, 0), (_x(4),)),
    "dropout": (lambda x: torch.dropout(x, 1.5, True), (_x(4),)),
    "native_dropout": (lambda x: torch.native_dropout(x, 1.5, True), (_x(4),)),
    "bernoulli": (lambda x: torch.bernoulli(x, 1.5), (_x(4),)),
    "uniform_": (lambda x: x.clone().uniform_(3, -1), (_x(4),)),
    "exponential_": (lambda x: x.clone().exponential_(-1.0), (_x(4),)),
    "normal_": (lambda x: x.clone().normal_(0, -1.0), (_x(4),)),
    "randint": (lambda x: torch.randint(0, 300, (3,), dtype=BYTE) + x, (_x(1),)),
    "rand of integers": (lambda x: torch.rand(3, dtype=LONG) + x, (_x(1),)),
    "a power of integers": (lambda x: x**-1, (_x(4, dtype=LONG) + 1,)),
    "searchsorted": (lambda x: torch.searchsorted(x, x, side="left", right=True), (_x(4),)),
    "masked_fill": (lambda x: x.masked_fill(x > 0, -1e9), (_x(4, dtype=HALF),)),
    "clamp": (lambda x: x.clamp(max=300), (_x(4, dtype=BYTE),)),
    "pad": (lambda x: F.pad(x, (1, 1), value=1e9), (_x(4, dtype=HALF),)),
    "full": (lambda x: torch.full_like(x, 300), (_x(4, dtype=BYTE),)),
    "where": (lambda x: torch.where(x > 0, x, 1e60), (_x(4),)),
    "threshold": (lambda x: F.threshold(x, 0.5, 1e9), (_x(4, dtype=HALF),)),
    "a size in uint8": (lambda x: torch.full((), x.shape[0], dtype=BYTE), (_x(300),)),
    "a size in int8": (lambda x: torch.full((3,), x.shape[0], dtype=torch.int8), (_x(200),)),
    "a size as a bound": (lambda x, y: y.clamp(max=x.shape[0]), (_x(300), _x(4, dtype=BYTE))),
    "a size that is scattered": (
        lambda x, y, i: y.scatter(0, i, x.shape[0]),
        (_x(300), _x(4, dtype=BYTE), _zeros(1)),
    ),
    "a size that fills": (lambda x, y: y.masked_fill(y > 0, x.shape[0]), (_x(300), _x(4, dtype=BYTE))),
}

SIZES: dict[str, Case] = {
    "addmv": (lambda x, m, v: torch.addmv(x, m, v), (_x(2, 1), _x(1, 4), _x(4))),
    "index_add": (lambda x, i, s: x.index_add(0, i, s), (_x(4, 4), _zeros(2), _x(2, 3))),
    "index_put": (lambda x, i, s: torch.index_put(x, (i,), s), (_x(4), _zeros(2), _x(3))),
    "select_scatter": (lambda x, s: torch.select_scatter(x, s, 0, 1), (_x(4, 4), _x(3))),
    "select_scatter, index": (lambda x, s: torch.select_scatter(x, s, 0, 9), (_x(4, 4), _x(4))),
    "diagonal_scatter": (lambda x, s: torch.diagonal_scatter(x, s), (_x(4, 4), _x(3))),
    "index_put, too many": (lambda x, i, s: torch.index_put(x, (i,), s), (_x(4), _zeros(2), _x(1, 2))),
    "grid_sample": (F.grid_sample, (_x(1, 1, 0, 4), _x(1, 2, 2, 2))),
    "a gradient of embedding": (
        lambda g, i: torch.ops.aten.embedding_dense_backward(g, i, 10, -1, False),
        (_x(5, 5), _zeros(3)),
    ),
}

VALUES: dict[str, Case] = {
    "binary_cross_entropy, target": (F.binary_cross_entropy, (_x(40), _x(40) + 0.5)),
    "binary_cross_entropy, input": (F.binary_cross_entropy, (_x(40) - 0.5, _x(40))),
    "binary_cross_entropy, NaN": (F.binary_cross_entropy, (_x(40) * torch.nan, _x(40))),
    "binary_cross_entropy, none": (
        lambda x, y: F.binary_cross_entropy(x, y, reduction="none"),
        (_x(3, 7), _x(3, 7) + 0.5),
    ),
    "bernoulli": (lambda x: torch.bernoulli(x), (_x(40) + 0.5,)),
    "bernoulli, NaN": (lambda x: torch.bernoulli(x), (_x(40) * torch.nan,)),
    "normal": (lambda x: torch.normal(x, -x), (_x(40),)),
    "embedding_bag, first offset": (F.embedding_bag, _bags([0, 1, 2, 3], [1, 2])),
    "embedding_bag, last offset": (F.embedding_bag, _bags([0, 1, 2, 3], [0, 20])),
    "embedding_bag, row": (F.embedding_bag, _bags([0, 1, 12, 3], [0, 2])),
    "embedding_bag, negative row": (F.embedding_bag, _bags([0, 1, -2, 3], [0, 2])),
    "max_unpool": (
        lambda x, i: F.max_unpool1d(x, i, 2, output_size=[4]),
        (_x(1, 1, 2), torch.tensor([[[0, 9]]])),
    ),
}

CASES = {
    f"{kind}: {name}": case
    for kind, cases in (("types", TYPES), ("numbers", NUMBERS), ("sizes", SIZES), ("values", VALUES))
    for name, case in cases.items()
}


def _error_of(function: Callable[..., Any], inputs: tuple[torch.Tensor, ...]) -> Exception | None:
    try:
        function(*[t.clone() for t in inputs])
    except Exception as error:
        return error
    return None


RUNS = [(name, dynamic) for name in CASES for dynamic in (False, True) if not (dynamic and "types:" in name)]
"""Types are the same whatever sizes are."""


@pytest.mark.parametrize(("name", "dynamic"), RUNS)
def test_a_refused_call_is_refused(name: str, dynamic: bool) -> None:
    function, inputs = CASES[name]
    expected = _error_of(function, inputs)
    assert expected is not None, "eager PyTorch accepts it"
    support.reset()
    raised = _error_of(support.compile_with(function, "braze", dynamic=dynamic), inputs)
    assert raised is not None, f"accepted; eager PyTorch says {expected}"
    assert isinstance(raised, type(expected)), f"{type(raised).__name__}: {raised}"


@pytest.mark.parametrize(
    ("function", "inputs"),
    [
        (F.binary_cross_entropy, (_x(40), _x(40).flip(0))),
        (lambda x, y: F.binary_cross_entropy(x, y, y, reduction="sum"), (_x(3, 7), _x(3, 7).flip(0))),
        (lambda x, y: F.binary_cross_entropy(x, y, reduction="none"), (_x(40).round(), _x(40))),
        (lambda x, y: F.binary_cross_entropy(x, y), (_x(0), _x(0))),
        (lambda x: torch.full((3,), x.shape[0], dtype=BYTE), (_x(255),)),
        (lambda x: torch.full((3,), -x.shape[0], dtype=BYTE), (_x(200),)),
        (lambda x: torch.full((3,), x.shape[0], dtype=HALF), (_x(200),)),
        (lambda i, w, o: F.embedding_bag(i, w, o), _bags([0, 1, 2, 3], [0, 2])),
        (lambda x, i, s: torch.index_put(x, (i,), s), (_x(4, 3), _zeros(2), _x(1, 3))),
    ],
)
def test_what_is_checked_and_right_is_computed_natively(
    function: Callable[..., Any], inputs: tuple[torch.Tensor, ...]
) -> None:
    for dynamic in (False, True):
        support.reset()
        compiled = support.compile_with(function, "braze", dynamic=dynamic, strict=True)
        torch.testing.assert_close(compiled(*inputs), function(*inputs), equal_nan=True)


def test_a_refused_call_is_no_fallback_in_strict_mode() -> None:
    support.reset()
    compiled = support.compile_with(lambda x: torch.softmax(x, 0), "braze", strict=True)
    with pytest.raises(NotImplementedError, match="not implemented for 'Long'"):
        compiled(torch.arange(4))
