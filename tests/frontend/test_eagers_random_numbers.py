"""`fallback_random`: every random operator gives eager PyTorch's numbers, in its order, without a warning
and without an error in strict mode: it is an extern that was asked for."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

Fn = Callable[..., Any]
F = nn.functional
OPTIONS = {"fallback_random": True, "strict": True}


def _written(method: str, *numbers: Any, dtype: torch.dtype = torch.float32) -> Fn:
    """A method that fills a tensor with random numbers."""
    return lambda x: getattr(torch.empty(3, 4, dtype=dtype), method)(*numbers) + x[0, 0]


DRAWS: dict[str, Fn] = {
    "rand": lambda x: torch.rand(3, 4) + x[0, 0],
    "rand_float64": lambda x: torch.rand(3, 4, dtype=torch.float64) + x[0, 0],
    "rand_half": lambda x: torch.rand(3, 4, dtype=torch.bfloat16) + x[0, 0],
    "randn": lambda x: torch.randn(40) * x[0, 0],
    "randint": lambda x: torch.randint(9, (3, 4)) + x[0, 0],
    "randint_low": lambda x: torch.randint(-5, 9, (3, 4), dtype=torch.int32) + x[0, 0],
    "randperm": lambda x: torch.randperm(12) + x[0, 0],
    "rand_like": lambda x: torch.rand_like(x) * x,
    "randn_like": lambda x: torch.randn_like(x) * x,
    "randint_like": lambda x: torch.randint_like(x, 9) * x,
    "bernoulli": lambda x: torch.bernoulli(x.sigmoid()) * x,
    "bernoulli_p": lambda x: torch.bernoulli(x.detach(), 0.3) * x,
    "normal_tensors": lambda x: torch.normal(x, x.exp()),
    "normal_tensor_number": lambda x: torch.normal(x, 2.0),
    "normal_number_tensor": lambda x: torch.normal(1.5, x.exp()),
    "normal_numbers": lambda x: torch.normal(1.0, 2.0, (3, 4)) * x[0, 0],
    "multinomial": lambda x: torch.multinomial(x.detach().sigmoid(), 2) + x[0, 0],
    "multinomial_replaced": lambda x: torch.multinomial(x.detach().sigmoid(), 9, True) + x[0, 0],
    "poisson": lambda x: torch.poisson(x.exp()) * x,
    "binomial": lambda x: torch.binomial(torch.full_like(x, 9.0), x.detach().sigmoid()) * x,
    "standard_gamma": lambda x: torch._standard_gamma(x.exp()),
    "sample_dirichlet": lambda x: torch._sample_dirichlet(x.detach().exp()) * x,
    "uniform_": _written("uniform_", -1.0, 3.0),
    "normal_": _written("normal_", 1.0, 3.0),
    "exponential_": _written("exponential_", 1.5),
    "geometric_": _written("geometric_", 0.3),
    "log_normal_": _written("log_normal_", 0.5, 0.25),
    "cauchy_": _written("cauchy_", 1.0, 2.0),
    "random_": _written("random_"),
    "random_to_": _written("random_", 9, dtype=torch.int64),
    "random_from_": _written("random_", 2, 9, dtype=torch.int64),
    "bernoulli_": _written("bernoulli_", 0.4),
    "bernoulli_tensor_": lambda x: torch.empty_like(x).bernoulli_(x.detach().sigmoid()) * x,
    "dropout": lambda x: F.dropout(x, 0.3),
    "dropout_": lambda x: F.dropout(x * 2, 0.3, inplace=True),
    "native_dropout": lambda x: torch.native_dropout(x, 0.3, True),
    "dropout1d": lambda x: F.dropout1d(x, 0.4),
    "dropout2d": lambda x: F.dropout2d(x[None, :, :, None], 0.4),
    "dropout3d": lambda x: F.dropout3d(x[None, :, :, None, None], 0.4),
    "alpha_dropout": lambda x: F.alpha_dropout(x, 0.3, True),
    "feature_alpha_dropout": lambda x: F.feature_alpha_dropout(x[None, :, :, None], 0.3, True),
    "rrelu": lambda x: F.rrelu(x, 0.1, 0.4, True),
    "rrelu_": lambda x: F.rrelu(x * 1.0, 0.1, 0.4, True, inplace=True),
    "gumbel_softmax": lambda x: F.gumbel_softmax(x, 0.7),
    "gumbel_softmax_hard": lambda x: F.gumbel_softmax(x, 0.7, hard=True),
    "fractional_max_pool": lambda x: F.fractional_max_pool2d(x[None, None], 2, (2, 2)),
    "attention": lambda x: F.scaled_dot_product_attention(
        x[None, None], x[None, None], x[None, None], None, 0.3
    ),
    "attention_causal": lambda x: F.scaled_dot_product_attention(
        x[None, None], x[None, None], x[None, None], None, 0.3, True
    ),
    "several": lambda x: F.dropout(torch.rand(3, 4) + torch.randn_like(x), 0.2) * x + torch.randperm(4),
    "unused": lambda x: (torch.randperm(3), torch.rand(5), F.dropout(x), torch.rand(4) * x)[-1],
    "conditional": lambda x: torch.where(x > 0, torch.rand_like(x), torch.randn_like(x)) * x,
}
LAYERS: dict[str, Callable[[], nn.Module]] = {
    "dropout": lambda: nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.3), nn.ReLU(), nn.Dropout(0.5)),
    "transformer": lambda: nn.TransformerEncoderLayer(4, 2, 8, dropout=0.2, batch_first=True),
    "attention": lambda: _Attention(),
    "recurrent": lambda: _First(nn.LSTM(4, 4, 2, dropout=0.3, batch_first=True)),
}


class _Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.MultiheadAttention(4, 2, dropout=0.4, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.inner(x, x, x, need_weights=False)[0]
        return result


class _First(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.inner(x)[0]
        return result


def _seen(fn: Fn, sizes: tuple[tuple[int, int], ...], grad: bool) -> list[Any]:
    """Results and gradients of calls with tensors of these sizes, with what the generator gives between them
    and behind."""
    seen: list[Any] = []
    torch.manual_seed(11)
    for rows, columns in sizes:
        x = torch.linspace(-2, 2, rows * columns).reshape(rows, columns).requires_grad_(grad)
        result = fn(x)
        if isinstance(result, torch.Tensor):
            result = (result,)
        seen += [torch.rand(2), *[r.detach() for r in result]]
        differentiable = [r for r in result if r.requires_grad]
        if differentiable:
            sum(r.float().square().sum() for r in differentiable).backward()
            seen += [x.grad, torch.rand(2)]
    return seen


def _check(fn: Fn, compiled: Fn, sizes: tuple[tuple[int, int], ...], grad: bool) -> None:
    expected = _seen(fn, sizes, grad)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        found = _seen(compiled, sizes, grad)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("grad", [False, True], ids=["inference", "training"])
@pytest.mark.parametrize("draw", DRAWS)
def test_an_operator_gives_eagers_numbers(draw: str, grad: bool) -> None:
    fn = DRAWS[draw]
    _check(fn, torch.compile(fn, backend="braze", options=OPTIONS), ((3, 4), (3, 4)), grad)


@pytest.mark.parametrize(
    "draw",
    [
        "rand_like",
        "bernoulli",
        "normal_tensors",
        "dropout",
        "dropout2d",
        "rrelu",
        "attention",
        "alpha_dropout",
    ],
)
def test_with_dynamic_shapes(draw: str) -> None:
    fn = DRAWS[draw]
    compiled = torch.compile(fn, backend="braze", options=OPTIONS, dynamic=True)
    _check(fn, compiled, ((3, 4), (5, 6), (2, 9)), grad=True)


@pytest.mark.parametrize("layer", LAYERS)
def test_a_layer_gives_eagers_numbers(layer: str) -> None:
    module = LAYERS[layer]()

    def use(fn: Fn) -> list[Any]:
        seen: list[Any] = []
        torch.manual_seed(3)
        for _ in range(2):
            module.zero_grad()
            result = fn(torch.linspace(-1, 1, 24).reshape(2, 3, 4))
            result.square().sum().backward()
            seen += [result.detach(), *[p.grad.clone() for p in module.parameters() if p.grad is not None]]
        return [*seen, torch.rand(3)]

    expected = use(module)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        torch.testing.assert_close(use(torch.compile(module, backend="braze", options=OPTIONS)), expected)


@pytest.mark.parametrize(
    "draw",
    [
        lambda x, g: torch.rand(3, 4, generator=g) + x,
        lambda x, g: torch.randperm(4, generator=g) + x,
        lambda x, g: torch.bernoulli(x.sigmoid(), generator=g),
        lambda x, g: torch.multinomial(x.sigmoid(), 2, generator=g),
        lambda x, g: torch.empty(3, 4).exponential_(generator=g) + x,
        lambda x, g: torch.randint(9, (3, 4), generator=g) + torch.rand_like(x),
    ],
    ids=["rand", "randperm", "bernoulli", "multinomial", "exponential_", "beside_the_usual_one"],
)
def test_a_generator_that_is_given(draw: Fn) -> None:
    def use(fn: Fn) -> list[torch.Tensor]:
        torch.manual_seed(5)
        generator = torch.Generator().manual_seed(6)
        x = torch.linspace(-1, 1, 12).reshape(3, 4)
        return [fn(x, generator), fn(x, generator), torch.rand(2), torch.rand(2, generator=generator)]

    compiled = torch.compile(draw, backend="braze", options=OPTIONS)
    torch.testing.assert_close(use(compiled), use(draw))


def test_a_seed_that_is_set_inside() -> None:
    def seeded(x: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(9)
        return torch.rand_like(x) + torch.rand(4)

    x = torch.ones(3, 4)
    torch.testing.assert_close(torch.compile(seeded, backend="braze", options=OPTIONS)(x), seeded(x))


def test_a_recomputed_region_draws_its_numbers_again() -> None:
    from torch.utils.checkpoint import checkpoint

    def block(x: torch.Tensor) -> torch.Tensor:
        return F.dropout(x.sin(), 0.4) * torch.rand_like(x)

    def fn(x: torch.Tensor) -> Any:
        return checkpoint(block, x, use_reentrant=False)

    _check(fn, torch.compile(fn, backend="braze", options=OPTIONS), ((3, 4), (3, 4)), grad=True)
