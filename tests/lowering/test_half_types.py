"""Half types: numbers beside them have eager's precision, and what jumps sees values as they are stored."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

HALF_TYPES = (torch.float16, torch.bfloat16)
NUMBERS = (0.1, 3.14, -0.7)


def draw(dtype: torch.dtype, *size: int, seed: int = 0) -> Tensor:
    return (torch.randn(*size, generator=torch.Generator().manual_seed(seed)) * 3).to(dtype)


def compiled(program: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    torch._dynamo.reset()
    return torch.compile(program, backend="braze", options={"strict": True, **options})


def same(found: Tensor, wanted: Tensor) -> None:
    assert found.dtype is wanted.dtype
    torch.testing.assert_close(found, wanted, rtol=0, atol=0, equal_nan=True)


BESIDE_NUMBERS: dict[str, Callable[[Tensor, Any], Tensor]] = {
    "add": lambda x, s: x + s,
    "sub": lambda x, s: x - s,
    "sub from": lambda x, s: s - x,
    "mul": lambda x, s: x * s,
    "div": lambda x, s: x / s,
    "floor_divide": lambda x, s: x // s,
    "floor_divide of": lambda x, s: s // x,
    "truncated": lambda x, s: torch.div(x, s, rounding_mode="trunc"),
    "remainder": lambda x, s: x % s,
    "fmod": lambda x, s: torch.fmod(x, s),
    "eq": lambda x, s: x == s,
    "ne": lambda x, s: x != s,
    "lt": lambda x, s: x < s,
    "le": lambda x, s: x <= s,
    "gt": lambda x, s: x > s,
    "ge": lambda x, s: x >= s,
    "clamp": lambda x, s: x.clamp(max=s),
    "where": lambda x, s: torch.where(x > 0, x, s),
    "masked_fill": lambda x, s: x.masked_fill(x > 0, s),
    "copysign": lambda x, s: torch.copysign(x, s),
    "in place": lambda x, s: x.clone().mul_(s),
}


@pytest.mark.parametrize("dtype", HALF_TYPES, ids=str)
@pytest.mark.parametrize("name", ["add", "sub", "sub from", "mul", "div", "remainder", "lt", "where"])
def test_beside_one_integer(name: str, dtype: torch.dtype) -> None:
    """Beside a tensor of one element as well, whatever its rank, where a half type cannot hold it."""
    program, x = BESIDE_NUMBERS[name], torch.tensor([1.0, 2.5, 0.0, -3.0, 2048.0, 2052.0]).to(dtype)
    for one in (torch.tensor(2051), torch.tensor([2051]), torch.tensor([[77777]])):
        same(compiled(program)(x, one), program(x, one))


ONLY_NUMBERS: dict[str, Callable[[Tensor, float], Tensor]] = {
    "hardshrink": lambda x, s: F.hardshrink(x, s),
    "threshold": lambda x, s: F.threshold(x, s, s),
    "hardtanh": lambda x, s: F.hardtanh(x, -abs(s), abs(s)),
    "leaky_relu": lambda x, s: F.leaky_relu(x, s),
    "alpha": lambda x, s: torch.add(x, x * 2, alpha=s),
    "full_like": lambda x, s: torch.full_like(x, s),
    "pad": lambda x, s: F.pad(x, (1, 1), value=s),
    "fill": lambda x, s: x.clone().fill_(s),
}


@pytest.mark.parametrize("dtype", HALF_TYPES, ids=str)
@pytest.mark.parametrize("kind", ["number", "float32", "float64"])
def test_numbers_and_tensors_without_dimensions(dtype: torch.dtype, kind: str) -> None:
    def program(x: Tensor, s: Tensor) -> list[Tensor]:
        results = []
        for position, value in enumerate(NUMBERS):
            operand = value if kind == "number" else s[position]
            results += [f(x, operand) for f in BESIDE_NUMBERS.values()]
            if kind == "number":
                results += [f(x, value) for f in ONLY_NUMBERS.values()]
        return results

    x = draw(dtype, 64)  # eager rounds its last few elements otherwise than all others
    x[: len(NUMBERS)] = torch.tensor(NUMBERS).to(dtype)
    s = torch.tensor(NUMBERS, dtype=torch.float32 if kind == "float32" else torch.float64)
    names = [*BESIDE_NUMBERS, *(ONLY_NUMBERS if kind == "number" else ())]
    for position, (found, wanted) in enumerate(zip(compiled(program)(x, s), program(x, s))):
        value, name = NUMBERS[position // len(names)], names[position % len(names)]
        try:
            same(found, wanted)
        except AssertionError as error:
            raise AssertionError(f"{name} with {value}: {error}") from None


STEPS: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "equal to its maximum": lambda x, w: (x * w) == (x * w).amax(1, True),
    "gradient of the maximum": lambda x, w: torch.where((y := x * w) == y.amax(0), 1.0, 0.0),
    "first maximum": lambda x, w: (x * w).argmax(1),
    "maximum and where": lambda x, w: (x * w).max(1).indices,
    "floor": lambda x, w: (x * w).floor(),
    "ceil": lambda x, w: (x * w).ceil(),
    "round": lambda x, w: (x * w).round(),
    "round to a place": lambda x, w: (x * w).round(decimals=1),
    "trunc": lambda x, w: (x / w).trunc(),
    "frac": lambda x, w: (x * w).frac(),
    "remainder": lambda x, w: (x * w) % w,
    "fmod": lambda x, w: torch.fmod(x * w, w),
    "floor_divide": lambda x, w: (x * w) // w,
    "sign": lambda x, w: ((x * w) - (x * w).to(torch.float32).to(x.dtype)).sign(),
    "difference of equals": lambda x, w: (x * w) > (x * w).clone(),
    "to int": lambda x, w: (x * w).to(torch.int32),
    "to bool": lambda x, w: (x * 1e-8).bool(),
    "to float32": lambda x, w: (x * w).float(),
    "to float64": lambda x, w: (x * w).double() * 3,
    "beside float32": lambda x, w: (x * w) + w.float(),
    "joined with float32": lambda x, w: torch.cat([x * w, w.float()], 1),
    "counted": lambda x, w: (x * 1e-8).count_nonzero(),
    "any": lambda x, w: (x * 1e-8).any(1),
    "not": lambda x, w: torch.logical_not(x * 1e-8),
    "infinite": lambda x, w: (x * 60000).isinf(),
    "searched": lambda x, w: torch.bucketize(x * w, (w[0] * w[0]).sort().values),
    "summed as float64": lambda x, w: (x * w).sum(1, dtype=torch.float64),
    "chosen by a condition": lambda x, w: torch.where((x * w).round() == (x * w), x, w),
    "hard shrink": lambda x, w: F.hardshrink(x * w, 0.7),
    "item": lambda x, w: torch.full((2,), 1.0) * (x * w)[0, 0].float(),
}


@pytest.mark.parametrize("dtype", HALF_TYPES, ids=str)
@pytest.mark.parametrize("name", STEPS)
def test_what_jumps_takes_stored_values(name: str, dtype: torch.dtype) -> None:
    program = STEPS[name]
    x, w = draw(dtype, 64, 37), draw(dtype, 64, 37, seed=1)
    if name in ("searched",):
        x, w = x[:40], w[:40]
    same(compiled(program)(x, w), program(x, w))


@pytest.mark.parametrize("dtype", HALF_TYPES, ids=str)
def test_the_gradient_of_a_maximum(dtype: torch.dtype) -> None:
    def program(x: Tensor, w: Tensor) -> Tensor:
        return (x * w).amax(0)

    theirs, ours = (draw(dtype, 64, 37).requires_grad_() for _ in range(2))
    w = draw(dtype, 64, 37, seed=1)
    program(theirs, w).sum().backward()
    compiled(program)(ours, w).sum().backward()
    same(ours.grad, theirs.grad)


def chain(x: Tensor, y: Tensor) -> list[Tensor]:
    a = x * y + 1.1
    b = (a - y) * 0.3 + torch.maximum(x, a)
    c = torch.where(b > y, b * b, -b).clamp(-100, 100)
    d = c.neg() + x / 3 - y * 0.7 + (a * c).abs()
    return [a, b, c, d, d * d + c, (d + 0.1).relu() * 1.7]


@pytest.mark.parametrize("dtype", HALF_TYPES, ids=str)
def test_emulated_casts_give_eagers_bits(dtype: torch.dtype) -> None:
    x, y = draw(dtype, 33, 65), draw(dtype, 33, 65, seed=1)
    found = compiled(chain, emulate_precision_casts=True)(x, y)
    for have, want in zip(found, chain(x, y)):
        same(have, want)
    # it is the option that does it
    assert any(not torch.equal(a, b) for a, b in zip(compiled(chain)(x, y), chain(x, y)))


@pytest.mark.parametrize("eps", [1e-6, 1e-3, 0.25])
@pytest.mark.parametrize("dtype", HALF_TYPES, ids=str)
def test_the_bounds_of_a_logit_are_of_the_type(dtype: torch.dtype, eps: float) -> None:
    """1 - 1e-6 is 1 in half types, and the logit of 1 infinite."""
    x = torch.tensor([-1.0, 0.0, 0.5, 1.0, 2.0, torch.nan]).to(dtype)
    torch.testing.assert_close(
        compiled(lambda x: torch.logit(x, eps))(x), torch.logit(x, eps), rtol=0.02, atol=1e-3, equal_nan=True
    )
