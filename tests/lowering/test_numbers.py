"""Numbers that only the running graph knows, read from tensors or computed from sizes, and their use.

Each program runs at several sizes with one compile; what it gives has the value and type that Python gives.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.numerics import assert_agrees

Program = Callable[[Tensor], Any]


@pytest.fixture(autouse=True)
def items_are_captured() -> Iterator[None]:
    torch._dynamo.reset()
    with torch._dynamo.config.patch(capture_scalar_outputs=True):
        yield


def mean(x: Tensor) -> float:
    return x.mean().item()


def spread(x: Tensor) -> float:
    return abs(mean(x)) + 0.1


def read_then_overwritten(x: Tensor) -> Tensor:
    y = x + 1
    value = y.sum().item()
    y.mul_(0)
    return y + value


def integer_read_then_overwritten(x: Tensor) -> Tensor:
    y = (x * 10).long()
    value = y[0].item()
    y.mul_(0)
    return y + value


OF_SIZES: dict[str, Program] = {
    "truth as a float": lambda x: x + float(x.shape[0] % 2 == 0),
    "truth as an int": lambda x: x * int(x.shape[0] > 4),
    "truth, negated": lambda x: x + float(x.shape[0] % 2 != 0),
    "symbolic not": lambda x: x + torch.sym_not(x.shape[0] % 3 == 0),
    "full of a truth": lambda x: torch.full((3,), x.shape[0] > 4),
    "quotient": lambda x: x / (x.shape[0] / 3),
    "remainder": lambda x: x + (x.shape[0] / 3) % 1,
    "root": lambda x: x * x.shape[0] ** 0.5,
    "inverse root": lambda x: x * x.shape[0] ** -0.5,
    "logarithm": lambda x: x * math.log(x.shape[0]),
    "powers": lambda x: x + x.shape[0] ** 2 + 2.0 ** x.shape[0],
    "integer power": lambda x: x * 2 ** x.shape[0],
    "floor": lambda x: x * math.floor(x.shape[0] / 3.0),
    "ceil": lambda x: x * math.ceil(x.shape[0] / 3.0),
    "cut": lambda x: x + int(x.shape[0] * 0.7),
    "round": lambda x: x + round(x.shape[0] * 0.7),
    "extremes": lambda x: x + min(x.shape[0] * 0.5, 2.0) + max(x.shape[0] / 7, 1),
    "bits": lambda x: x + (x.shape[0] << 2) + (x.shape[0] >> 1) + (x.shape[0] & 3) + (x.shape[0] ^ 5),
    "sign": lambda x: x + abs(2 - x.shape[0] / 3) - (-(x.shape[0] / 3)),
    "alpha": lambda x: torch.add(x, x, alpha=x.shape[0] / 2),
    "range by a fraction": lambda x: torch.arange(0, x.shape[0] / 2, 0.5),
    "range of fractions": lambda x: torch.arange(x.shape[0] / 3, x.shape[0] * 2, x.shape[0] / 7),
    "resized": lambda x: F.interpolate(x.view(1, 1, -1), scale_factor=1.5),
    "resized linearly": lambda x: F.interpolate(x.view(1, 1, -1), size=int(x.shape[0] * 1.7), mode="linear"),
    "norm of a fraction": lambda x: torch.linalg.vector_norm(x, x.shape[0] / 2),
    "deviation": lambda x: x.std(correction=x.shape[0] / 5),
    "loss": lambda x: F.huber_loss(x, x * 2, delta=x.shape[0] / 4),
    "products": lambda x: torch.addmm(
        x[:2, None] * x[:2], x[:2, None], x[None, :2], alpha=2 * x.shape[0] / 3
    ),
    "softplus": lambda x: F.softplus(x, beta=1 + x.shape[0] / 3),
    "returned": lambda x: (x.shape[0] / 3, x.shape[0] % 2 == 0, x.shape[0] ** 2, x),
}

OF_DATA: dict[str, Program] = {
    "clamp": lambda x: x.clamp(max=mean(x)),
    "clamp both": lambda x: x.clamp(x.min().item() / 2, x.max().item() / 2),
    "full": lambda x: torch.full((3,), x.max().item()),
    "full of doubles": lambda x: torch.full((3,), x.max().item(), dtype=torch.float64),
    "made a tensor": lambda x: torch.tensor([x.sum().item(), 1.0]) + x[:2],
    "returned": lambda x: x.sum().item(),
    "computed and returned": lambda x: (x.sum().item() * 2 + 1, x.sum().item() > 0, x + x.sum().item()),
    "compared": lambda x: x * (x.sum().item() > 0.5),
    "compared twice": lambda x: x * ((x.sum().item() > 0.5) & (x.shape[0] > 3)),
    "compared with a tensor": lambda x: x > mean(x),
    "chosen": lambda x: torch.where(x > 0, mean(x), x),
    "chosen of numbers": lambda x: torch.where(x > 0, mean(x), 0.0),
    "filled": lambda x: x.masked_fill(x > 0, mean(x)),
    "padded": lambda x: F.pad(x, (1, 2), value=mean(x)),
    "scattered": lambda x: x.scatter(0, torch.tensor([0, 1]), mean(x)),
    "index filled": lambda x: x.index_fill(0, torch.tensor([0, 1]), mean(x)),
    "interpolated": lambda x: torch.lerp(x, x * 2, mean(x)),
    "scaled product": lambda x: torch.addcmul(x, x, x, value=mean(x)),
    "scaled quotient": lambda x: torch.addcdiv(x, x, x + 10, value=mean(x)),
    "added twice": lambda x: torch.add(x, mean(x), alpha=2),
    "subtracted by size": lambda x: torch.sub(x, mean(x), alpha=x.shape[0] / 2),
    "subtracted from": lambda x: torch.rsub(x, mean(x), alpha=x.shape[0] / 2),
    "added in place": lambda x: (x + 0).add_(mean(x), alpha=2),
    "power": lambda x: x.abs() ** mean(x),
    "base": lambda x: spread(x) ** x,
    "threshold": lambda x: F.threshold(x, mean(x), x.max().item()),
    "hard tanh": lambda x: F.hardtanh(x, -spread(x), spread(x)),
    "celu": lambda x: F.celu(x, spread(x)),
    "shrunk": lambda x: F.hardshrink(x, spread(x)),
    "shrunk softly": lambda x: F.softshrink(x, spread(x)),
    "layer norm": lambda x: F.layer_norm(x, x.shape, eps=spread(x)),
    "group norm": lambda x: F.group_norm(x[:4].view(1, 4, 1), 2, eps=spread(x)),
    "loss": lambda x: F.smooth_l1_loss(x, x * 2, beta=spread(x)),
    "not a number": lambda x: torch.nan_to_num(
        x / 0, nan=mean(x), posinf=x.max().item(), neginf=x.min().item()
    ),
    "line": lambda x: torch.linspace(x.min().item(), x.max().item(), x.shape[0]),
    "half": lambda x: x.half() * mean(x),
    "integers": lambda x: (x * 10).long() * mean(x),
    "whole part": lambda x: x + int(x.sum().item()) + math.floor(x.sum().item()),
    "rounded": lambda x: x + round(x.sum().item(), 2),
    "length": lambda x: torch.ones(math.ceil(x.abs().sum().item())) * 2,
    "slice": lambda x: x[: int(x.abs().sum().item()) % 3 + 1] * 2,
    "counted": lambda x: x + (x * 10).long().sum().item() // 3,
    "overwritten": read_then_overwritten,
    "integer overwritten": integer_read_then_overwritten,
}


@pytest.mark.parametrize("name", OF_SIZES)
def test_numbers_of_sizes(name: str) -> None:
    _same_at_every_size(OF_SIZES[name])


@pytest.mark.parametrize("name", OF_DATA)
def test_numbers_of_data(name: str) -> None:
    _same_at_every_size(OF_DATA[name])


@pytest.mark.filterwarnings("ignore::braze.errors.BrazeWarning")
def _same_at_every_size(program: Program) -> None:
    compiled = torch.compile(program, backend="braze", dynamic=True)
    for n in (5, 8, 13):
        x = torch.randn(n, generator=torch.Generator().manual_seed(n))
        theirs, ours = _listed(program(x)), _listed(compiled(x))
        assert [type(v) for v in ours] == [type(v) for v in theirs]
        exact = [v.double() if isinstance(v, Tensor) and v.is_floating_point() else v for v in theirs]
        tensors = [(a, b, c) for a, b, c in zip(ours, theirs, exact) if isinstance(a, Tensor)]
        assert_agrees(*map(list, zip(*tensors))) if tensors else None
        for mine, yours in zip(ours, theirs):
            if not isinstance(mine, Tensor):
                assert mine == pytest.approx(yours, rel=1e-6)


@pytest.mark.parametrize("name", ["compared", "rounded", "slice", "clamp both", "half", "line"])
def test_gradients_beside_numbers_of_data(name: str) -> None:
    program = OF_DATA[name]
    compiled = torch.compile(program, backend="braze", dynamic=True)
    for n in (5, 8):
        theirs = torch.randn(n, generator=torch.Generator().manual_seed(n)).requires_grad_()
        ours = theirs.detach().clone().requires_grad_()
        for x, function in ((theirs, program), (ours, compiled)):
            result = function(x)
            if result.requires_grad:
                (result.float() * torch.arange(1.0, 1 + len(result))).sum().backward()
        if theirs.grad is None:
            assert ours.grad is None
        else:
            torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-3)


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (tuple, list)) else [value]


def resized_and_averaged(x: Tensor) -> tuple[Tensor, ...]:
    y = F.interpolate(x.view(1, 1, -1), scale_factor=1.5, mode="linear")
    return y * 2, y.mean(-1)


def of_places(x: Tensor) -> tuple[Tensor, ...]:
    total = (x * 2).sum()
    y = ((x > 0).nonzero().float() * total / 100).exp()
    return (y - y.mean()).abs().sum(0) + total, y.cumsum(0)


@pytest.mark.parametrize("program", [resized_and_averaged, of_places], ids=lambda value: value.__name__)
def test_memory_whose_size_is_known_late(program: Program) -> None:
    """What comes before in the graph has its workspace, too: nothing falls back as a whole."""
    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True), warnings.catch_warnings():
        warnings.filterwarnings("error", message="graph")
        _same_at_every_size(program)
