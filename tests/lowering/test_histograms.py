"""Histograms against eager."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.lowering.execute import check, lower, run, trace

NAN, INF = float("nan"), float("inf")
FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
X = torch.tensor([1.0, 2.0, 2.5, NAN, 3.0, 5.0, -1.0, INF, 4.0, 0.0])


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_histc(dtype: torch.dtype) -> None:
    x = X.to(dtype)
    check(lambda x: torch.histc(x, 4, 0, 4), x)
    check(lambda x: torch.histc(x, 7), x[:3])
    check(lambda x: torch.histc(x, 7, 2, 2), x[:3])
    check(lambda x: torch.histc(x, 3), x[:1])
    check(lambda x: torch.histc(x, 3), x[:0])
    check(lambda x: torch.histc(x * 2, 10), torch.randn(5, 20).t().to(dtype), symbolic=True)


SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "density": {"density": True},
    "range": {"range": (-1.0, 1.0)},
    "range of one": {"range": (1.0, 1.0), "density": True},
}


@pytest.mark.parametrize("dtype", FLOATS[:2], ids=str)
@pytest.mark.parametrize("name", SETTINGS)
def test_histogram(name: str, dtype: torch.dtype) -> None:
    settings = SETTINGS[name]
    bare = {k: v for k, v in settings.items() if k != "range"}
    y, w = torch.randn(8, 5).to(dtype), torch.rand(40).to(dtype)
    edges = torch.tensor([-1.0, 0.0, 0.5, 2.0], dtype=dtype)
    check(lambda y: list(torch.histogram(y, 5, **settings)), y)
    check(lambda y: list(torch.histogram((y * 4).round(), 23, **settings)), y)
    check(lambda y, w: list(torch.histogram(y, 5, weight=w, **settings)), y, w)
    check(lambda y, b: list(torch.histogram(y, b, **bare)), y, edges)
    check(lambda y, b, w: list(torch.histogram(y, b, weight=w, **bare)), y.t(), edges, w)


def _both(result: Any) -> list[torch.Tensor]:
    return [result[0], *result[1]]


@pytest.mark.parametrize("name", SETTINGS)
def test_histograms_of_points(name: str) -> None:
    settings = dict(SETTINGS[name])
    if "range" in settings:
        settings["range"] = [*settings["range"], -2.0, 2.0]
    bare = {k: v for k, v in settings.items() if k != "range"}
    y, w = torch.randn(4, 10, 2), torch.rand(4, 10)
    edges = torch.tensor([-1.0, 0.0, 0.5, 2.0])
    check(lambda y: _both(torch.histogramdd(y, [5, 3], **settings)), y)
    check(lambda y, w: _both(torch.histogramdd(y, [5, 3], weight=w, **settings)), y, w)
    check(lambda y, a, b: _both(torch.histogramdd(y, [a, b], **bare)), y, edges, edges[:2])


def test_no_elements() -> None:
    check(lambda y: list(torch.histogram(y, 4)), torch.zeros(0))
    check(lambda y: list(torch.histogram(y, 4, density=True)), torch.zeros(0))
    check(lambda y: _both(torch.histogramdd(y, [4, 2])), torch.zeros(3, 0, 2))


@pytest.mark.parametrize("bad", [NAN, INF])
def test_a_range_that_is_not_finite(bad: float) -> None:
    x = torch.tensor([1.0, bad])
    for fn in (lambda x: torch.histc(x, 4), lambda x: list(torch.histogram(x, 4))):
        with pytest.raises(RuntimeError, match=r"range .*is not finite"):
            fn(x)
        with pytest.raises(RuntimeError, match=r"range .*is not finite"):
            run(fn, x)


REFUSED: dict[str, Any] = {
    "no bins": lambda x: torch.histc(x, 0),
    "a range": lambda x: torch.histc(x, 4, 3, 1),
    "NaN": lambda x: torch.histc(x, 4, NAN, 1),
    "integers": lambda x: torch.histc(x.long(), 4),
    "half types": lambda x: list(torch.histogram(x.half(), 4)),
    "no bins of a histogram": lambda x: list(torch.histogram(x, 0)),
    "one edge": lambda x: list(torch.histogram(x, x[0, :1])),
    "edges of another type": lambda x: list(torch.histogram(x, x[0].double())),
    "a matrix of edges": lambda x: list(torch.histogram(x, x)),
    "weights": lambda x: list(torch.histogram(x, 3, weight=x[0])),
    "weights of another type": lambda x: list(torch.histogram(x, 3, weight=x.double())),
    "a range of a histogram": lambda x: list(torch.histogram(x, 3, range=(1.0, 0.0))),
    "a range too few": lambda x: _both(torch.histogramdd(x, [2, 3], range=[0.0, 1.0])),
    "rows of bins": lambda x: _both(torch.histogramdd(x, [2, 3, 4])),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_eager_refuses_is_left_to_it(name: str) -> None:
    x = torch.rand(5, 2)
    with pytest.raises((RuntimeError, NotImplementedError)):
        REFUSED[name](x)
    try:
        gm = trace(REFUSED[name], x)
    except (RuntimeError, NotImplementedError):
        return  # its fake version refuses it
    assert lower(gm)[1]
