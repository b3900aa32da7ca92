"""Elementwise operators against eager: types, broadcasting, special values, layouts."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from tests.lowering.execute import check, run

INTEGERS = (torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8)
FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
EVERY = (*FLOATS, *INTEGERS, torch.bool)

SPECIAL = [0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 1.5, 2.5, -2.5, 3.0, 100.0, -100.0, math.inf, -math.inf, math.nan]


def sample(dtype: torch.dtype, *size: int, low: int = -9, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    if dtype is torch.bool:
        return torch.randint(0, 2, size, generator=generator).bool()
    if dtype.is_floating_point:
        return (torch.randn(size, generator=generator) * 2).to(dtype)
    low = max(low, torch.iinfo(dtype).min)
    return torch.randint(low, 10, size, generator=generator).to(dtype)


UNARY_FLOAT: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    name: getattr(torch, name)
    for name in """sqrt rsqrt exp exp2 expm1 sigmoid tanh log log1p log2 log10 erf erfc sin cos tan asin
    acos atan
    sinh cosh asinh acosh atanh lgamma digamma floor ceil trunc round frac neg abs sign sgn reciprocal
    square isnan
    isinf isfinite signbit logical_not deg2rad nan_to_num relu sinc erfinv angle logit""".split()
} | {
    "i0": torch.special.i0,
    "i0e": torch.special.i0e,
    "i1": torch.special.i1,
    "i1e": torch.special.i1e,
    "j0": torch.special.bessel_j0,
    "j1": torch.special.bessel_j1,
    "spherical_j0": torch.special.spherical_bessel_j0,
    "erfcx": torch.special.erfcx,
    "log_ndtr": torch.special.log_ndtr,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
    "softplus": F.softplus,
    "mish": F.mish,
    "hardswish": F.hardswish,
    "hardsigmoid": F.hardsigmoid,
    "hardtanh": F.hardtanh,
    "leaky_relu": F.leaky_relu,
    "elu": F.elu,
    "celu": F.celu,
    "selu": F.selu,
    "relu6": F.relu6,
    "logsigmoid": F.logsigmoid,
    "hardshrink": F.hardshrink,
    "softshrink": F.softshrink,
    "softsign": F.softsign,
    "tanhshrink": F.tanhshrink,
    "threshold": lambda x: F.threshold(x, 0.1, 5.0),
    "pow2": lambda x: x**2,
    "pow3": lambda x: x**3,
    "pow half": lambda x: x**0.5,
    "pow -half": lambda x: x**-0.5,
    "pow -1": lambda x: x**-1,
    "pow 2.5": lambda x: x**2.5,
    "2 ** x": lambda x: 2**x,
    "0.9 ** x": lambda x: 0.9**x,
    "clamp": lambda x: x.clamp(-1, 1.5),
    "clamp low": lambda x: x.clamp(min=0.5),
    "clamp crossed": lambda x: x.clamp(2, 1),
    "clamp nan": lambda x: x.clamp(min=math.nan),
    "round 2": lambda x: torch.round(x, decimals=2),
    "round -1": lambda x: torch.round(x, decimals=-1),
    "scalar arithmetic": lambda x: (2 - x) * 3 / 4 + 1.5,
    "where": lambda x: torch.where(x > 0, x, -1),
    "masked_fill": lambda x: x.masked_fill(x > 0, 7.0),
    "heaviside": lambda x: torch.heaviside(x, torch.ones_like(x)),
    "softmax": lambda x: torch.softmax(x, 0),
    "log_softmax": lambda x: torch.log_softmax(x, 0),
}


@pytest.mark.parametrize("name", UNARY_FLOAT)
def test_special_values(name: str) -> None:
    check(UNARY_FLOAT[name], torch.tensor(SPECIAL))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize(
    "name", ["gelu", "silu", "exp", "pow 2.5", "scalar arithmetic", "clamp", "round 2", "softmax"]
)
def test_float_types(name: str, dtype: torch.dtype) -> None:
    check(UNARY_FLOAT[name], sample(dtype, 3, 7).abs())


BINARY: dict[str, Callable[[Any, Any], torch.Tensor]] = {
    "add": torch.add,
    "add alpha": lambda a, b: torch.add(a, b, alpha=2),
    "mul": torch.mul,
    "div": torch.div,
    "maximum": torch.maximum,
    "minimum": torch.minimum,
    "fmax": torch.fmax,
    "fmin": torch.fmin,
    "eq": torch.eq,
    "ne": torch.ne,
    "lt": torch.lt,
    "le": torch.le,
    "gt": torch.gt,
    "ge": torch.ge,
    "logical_and": torch.logical_and,
    "logical_or": torch.logical_or,
    "logical_xor": torch.logical_xor,
    "where": lambda a, b: torch.where(a > b, a, b),
    "atan2": torch.atan2,
}


@pytest.mark.parametrize("dtype", EVERY, ids=str)
@pytest.mark.parametrize("name", BINARY)
def test_binary_types(name: str, dtype: torch.dtype) -> None:
    if "alpha" in name and dtype is torch.bool:
        name = "add"  # a boolean takes no other factor than True
    check(BINARY[name], sample(dtype, 4, 5), sample(dtype, 5, seed=1))


@pytest.mark.parametrize("other", EVERY, ids=str)
@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.bfloat16, torch.int32, torch.uint8, torch.bool], ids=str
)
def test_promotion(dtype: torch.dtype, other: torch.dtype) -> None:
    def fn(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> list[torch.Tensor]:
        return [
            a + b,
            a * c,
            a / b,
            a < b,
            torch.where(a > 0, a, c),
            c + 1,
            a * 2,
            a > 1.5,
            torch.maximum(a, b),
        ]

    check(fn, sample(dtype, 2, 3), sample(other, 3, low=1), torch.tensor(3).to(other))


DIVISIONS: dict[str, Callable[[Any, Any], torch.Tensor]] = {
    "floor": lambda a, b: torch.div(a, b, rounding_mode="floor"),
    "trunc": lambda a, b: torch.div(a, b, rounding_mode="trunc"),
    "floor_divide": torch.floor_divide,
    "remainder": torch.remainder,
    "fmod": torch.fmod,
    "true": torch.true_divide,
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, *INTEGERS], ids=str)
@pytest.mark.parametrize("name", DIVISIONS)
def test_division_signs(name: str, dtype: torch.dtype) -> None:
    values = torch.tensor([-7, -6, -1, 0, 1, 5, 6, 7] if dtype is not torch.uint8 else [0, 1, 5, 7]).to(dtype)
    divisors = torch.tensor([-3, -2, 1, 2, 3] if dtype is not torch.uint8 else [1, 2, 3]).to(dtype)
    check(DIVISIONS[name], values[:, None], divisors)
    check(lambda a: DIVISIONS[name](a, 3), values)


@pytest.mark.parametrize("name", DIVISIONS)
def test_division_of_special_values(name: str) -> None:
    values = torch.tensor(SPECIAL)
    check(DIVISIONS[name], values[:, None], values)


@pytest.mark.parametrize("name", [n for n in DIVISIONS if n != "true"])
def test_integer_division_by_zero(name: str) -> None:
    fn, a, b = DIVISIONS[name], torch.tensor([1, 2, 3]), torch.tensor([1, 0, 2])
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        fn(a, b)
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        run(fn, a, b)


@pytest.mark.parametrize("dtype", [*INTEGERS, torch.bool], ids=str)
def test_bit_operations(dtype: torch.dtype) -> None:
    def fn(a: torch.Tensor, b: torch.Tensor) -> list[torch.Tensor]:
        results = [a & b, a | b, a ^ b, ~a]
        if a.dtype is not torch.bool:
            results += [a << (b & 3), a >> (b & 3), a & 5]
        return results

    check(fn, sample(dtype, 3, 4), sample(dtype, 4, seed=1))


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_integer_functions(dtype: torch.dtype) -> None:
    def fn(a: torch.Tensor) -> list[torch.Tensor]:
        return [
            a.abs(),
            a.sign(),
            a**3,
            a**2,
            a.clamp(1, 5),
            a.sqrt(),
            a.exp(),
            a.floor(),
            a - 3,
            2 * a,
            a / 2,
        ]

    check(fn, sample(dtype, 6, low=0))


@pytest.mark.parametrize("dtype", FLOATS)
def test_products_are_added_to_the_last_bit_as_in_eager(dtype: torch.dtype) -> None:
    a, b, c = (sample(dtype, 64, 4, seed=k) for k in range(3))  # whole vectors: eager rounds a rest otherwise
    weights = sample(dtype, 64, 4, seed=4).sigmoid()

    def results(x: Any, y: Any, z: Any, w: Any) -> list[torch.Tensor]:
        return [
            torch.addcmul(x, y, z),
            torch.addcmul(x, y, z, value=0.3),
            torch.addcmul(x, y, y[0, 0].double()),
            *(torch.lerp(x, y, weight) for weight in (0.0, 0.2, 0.5, 0.9, 1.0, -0.7)),
            torch.lerp(x, y, w),
            torch.lerp(x, y, w[0]),
        ]

    for ours, eager in zip(run(results, a, b, c, weights), results(a, b, c, weights), strict=True):
        assert torch.equal(ours, eager)
    if dtype in (
        torch.float32,
        torch.float64,
    ):  # eager rounds the products of half types, too, in some places

        def scaled(x: Any, y: Any) -> list[torch.Tensor]:
            return [torch.add(x, y, alpha=0.3), torch.sub(x, y, alpha=0.3), torch.rsub(x, y, alpha=3)]

        assert all(map(torch.equal, run(scaled, a, b), scaled(a, b)))


def test_no_overflow_between_a_product_and_its_sum() -> None:
    least, most = torch.full((16,), -math.inf), torch.full((16,), torch.finfo(torch.float32).max)
    check(lambda x, y: torch.addcmul(x, y, y), least, most)


def test_the_scale_of_a_product_of_integers_is_an_integer() -> None:
    x = torch.arange(5)
    for value in (0.5, 2.7, -1.5, 3):
        check(lambda x, value=value: torch.addcmul(x, x, x, value=value), x)


def test_three_operands() -> None:
    a, b, c = (sample(torch.float32, 4, 5, seed=k) for k in range(3))
    check(lambda x, y, z: torch.addcmul(x, y, z, value=0.3), a, b, c)
    check(lambda x, y, z: torch.addcdiv(x, y, z, value=0.3), a, b, c)
    check(lambda x, y, z: torch.lerp(x, y, z), a, b, c)
    check(lambda x, y: torch.lerp(x, y, 0.7), a, b)
    check(lambda x, y, z: torch.clamp(x, y, z), a, b, c)
    check(
        lambda x, y: [
            torch.copysign(x, y),
            torch.hypot(x, y),
            torch.nextafter(x, y),
            torch.xlogy(x, y.abs()),
        ],
        a,
        b,
    )
    check(
        lambda x, y: [torch.logaddexp(x, y), torch.ldexp(x, torch.full_like(y, 3)), torch.pow(x.abs(), y)],
        a,
        b,
    )


@pytest.mark.parametrize("size", [(), (1,), (0,), (3, 0, 2), (1, 1), (2, 1, 3)], ids=str)
def test_sizes(size: tuple[int, ...]) -> None:
    check(lambda x: [x * 2 + 1, x.exp(), x > 0, x + torch.ones(3, 1) if x.ndim < 3 else x], torch.randn(size))


def test_layouts() -> None:
    x = torch.randn(4, 6, 8)
    check(lambda a, b: a.exp() + b, x.permute(2, 0, 1), torch.randn(8, 1, 6))
    check(lambda a: a * 2, x[:, ::2, 1:])
    check(lambda a: a + 1, x.as_strided((3, 3), (1, 1)))
    check(lambda a: a * 2, torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last))
    check(lambda a: a.expand(3, 4) * 2, torch.randn(4))


def test_casts() -> None:
    x = torch.tensor([-1.5, 0.0, 0.4, 1.0, 1.00390625, 3.7, 250.0])
    for dtype in EVERY:
        source = x.abs() if dtype is torch.uint8 else x.clamp(max=100)
        check(lambda a, t=dtype: [a.to(t), a.to(t).to(torch.float32) * 2], source)
        check(lambda a, t=dtype: a.to(t), sample(torch.int64, 5, low=0))


def test_a_cast_to_a_half_type_rounds() -> None:
    x = torch.tensor([1.0009765625, 1.00390625, 3.1415926])
    (ours,) = run(lambda a: a.to(torch.bfloat16).to(torch.float32) * 1.0, x)
    assert torch.equal(ours, x.to(torch.bfloat16).to(torch.float32))


def test_bits() -> None:
    check(lambda a: [a.view(torch.int32) & 0xFF, a.view(torch.int32).view(torch.float32)], torch.randn(5))
    check(lambda a: a.view(torch.int16), torch.randn(5).bfloat16())


CREATION: dict[str, Callable[[torch.Tensor], Any]] = {
    "full": lambda x: torch.full((2, 3), 2.5),
    "full bf16": lambda x: torch.full((2,), 0.1, dtype=torch.bfloat16).float(),
    "full like": lambda x: torch.full_like(x, 3),
    "zeros": lambda x: torch.zeros(3, dtype=torch.int32),
    "arange": lambda x: torch.arange(7),
    "arange steps": lambda x: torch.arange(2, 11, 3, dtype=torch.float32),
    "arange fractions": lambda x: torch.arange(0.1, 2.0, 0.3),
    "arange backwards": lambda x: torch.arange(5, -5, -2),
    "linspace": lambda x: torch.linspace(-1, 1, 7),
    "eye": lambda x: torch.eye(3, 4),
    "tril": lambda x: x.tril(),
    "tril diagonal": lambda x: x.tril(-1),
    "triu": lambda x: x.triu(1),
    "scalar": lambda x: x + torch.tensor(2.0),
    "tril_indices": lambda x: torch.tril_indices(4, 3),
    "ones like": lambda x: torch.ones_like(x, dtype=torch.int64),
}


@pytest.mark.parametrize("name", CREATION)
def test_creation(name: str) -> None:
    check(CREATION[name], torch.randn(4, 5))


@pytest.mark.parametrize("name", ["i0", "i0e", "i1", "i1e", "erfcx"])
def test_series_and_expansion_meet(name: str) -> None:
    x = torch.cat(
        [torch.linspace(-40, 40, 801, dtype=torch.float64), torch.tensor([0.0, 1e-9, 24.999, 200.0])]
    )
    check(UNARY_FLOAT[name], x)


@pytest.mark.parametrize("order", [0, 1])
def test_bessel_functions_against_their_integral(order: int) -> None:
    single = torch.linspace(-40, 40, 801)
    x = single.double()
    angle = (torch.arange(400, dtype=torch.float64) + 0.5) * (math.pi / 400)
    integral = torch.cos(order * angle - x[:, None] * torch.sin(angle)).mean(1)  # exact but for rounding
    (ours,) = run(UNARY_FLOAT[f"j{order}"], single)
    torch.testing.assert_close(ours.double(), integral, rtol=6e-8, atol=1e-9)


def test_integer_powers() -> None:
    for dtype in (torch.int8, torch.int32, torch.int64):
        base = torch.tensor([-3, -2, -1, 0, 1, 2, 3, 7]).to(dtype)
        exponent = torch.tensor([-3, -2, -1, 0, 1, 2, 5, 31, 32, 63, 64, 101]).to(dtype)
        check(lambda a, b: torch.pow(a[:, None], b), base, exponent)
        check(lambda b: torch.pow(3, b), exponent)
    check(
        lambda a, b: torch.pow(a, b),
        torch.tensor([2, 3, 255], dtype=torch.uint8),
        torch.tensor([3], dtype=torch.uint8),
    )
