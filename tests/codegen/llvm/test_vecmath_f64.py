"""Vector math on float64 against high precision, and integer division."""

from __future__ import annotations

import math
from collections.abc import Callable

import mpmath as mp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from braze.codegen.llvm.builder import F64, FunctionBuilder, ModuleBuilder
from braze.codegen.llvm.vecmath import FUNCTIONS, emit
from braze.codegen.llvm.vecmath.integer import divide, floor_divide
from tests.codegen.llvm.machine import VECTOR_BITS, array_function

LANES = VECTOR_BITS // 64

EXACT: dict[str, tuple[Callable[..., mp.mpf], tuple[float, float]]] = {
    "exp": (mp.exp, (-20, 20)),
    "exp2": (lambda x: mp.mpf(2) ** x, (-20, 20)),
    "expm1": (mp.expm1, (-5, 5)),
    "log": (mp.log, (0, 100)),
    "log1p": (mp.log1p, (-1, 5)),
    "log2": (lambda x: mp.log(x, 2), (0, 100)),
    "log10": (mp.log10, (0, 100)),
    "sqrt": (mp.sqrt, (0, 100)),
    "rsqrt": (lambda x: 1 / mp.sqrt(x), (0, 100)),
    "sin": (mp.sin, (-1000, 1000)),
    "cos": (mp.cos, (-1000, 1000)),
    "tan": (mp.tan, (-1000, 1000)),
    "asin": (mp.asin, (-1, 1)),
    "acos": (mp.acos, (-1, 1)),
    "atan": (mp.atan, (-5, 5)),
    "sinh": (mp.sinh, (-10, 10)),
    "cosh": (mp.cosh, (-10, 10)),
    "tanh": (mp.tanh, (-5, 5)),
    "asinh": (mp.asinh, (-10, 10)),
    "acosh": (mp.acosh, (1, 10)),
    "atanh": (mp.atanh, (-1, 1)),
    "sigmoid": (lambda x: 1 / (1 + mp.exp(-x)), (-10, 10)),
    "erf": (mp.erf, (-4, 4)),
    "erfc": (mp.erfc, (-4, 8)),
    "erfinv": (mp.erfinv, (-1, 1)),
    "lgamma": (mp.loggamma, (0, 20)),
}


def function(name: str, arity: int = 1) -> Callable[..., list[np.ndarray]]:
    return array_function(lambda fb, *xs: emit(fb, name, *xs), ["double"] * arity, ["double"], LANES)


@pytest.mark.parametrize("name", sorted(EXACT))
def test_error_bound(name: str) -> None:
    exact, (low, high) = EXACT[name]
    rng = np.random.default_rng(len(name))
    x = rng.uniform(low, high, 160)
    if low <= 0:
        x[:40] *= 10.0 ** rng.uniform(-12, 0, 40)
    (got,) = function(name)(x)
    with mp.workdps(40):
        for value, result in zip(x, got, strict=True):
            reference = exact(mp.mpf(float(value)))
            error = abs(mp.mpf(float(result)) - reference) / math.ulp(float(reference))
            assert error <= 2.5, f"{name}({value!r}) = {result!r}, off by {float(error)} ULP"


@pytest.mark.parametrize("name", sorted(EXACT))
def test_whole_range_and_special_values(name: str) -> None:
    """Every exponent, infinities, NaN, zeros with their sign: the same as eager's to a few ULP."""
    rng = np.random.default_rng(5)
    special = [
        0.0,
        math.inf,
        math.nan,
        1.0,
        5e-324,
        2.3e-308,
        1e308,
        709.8,
        745.2,
        0.5,
        1e-16,
        36.8,
        1023.99,
        2.0,
        3.0,
    ]
    x = np.concatenate(
        [special, -np.array(special), rng.integers(0, 2**64, 2018, dtype=np.uint64).view(np.float64)]
    )
    (got,) = function(name)(x)
    expected = getattr(torch, name)(torch.from_numpy(x)).numpy()
    if name == "log1p":
        # Eager loses subnormal numbers; log(1 + x) = x there.
        expected = np.where(np.abs(x) < 1e-300, x, expected)
    if name == "sigmoid":
        # Eager drops to 0 where e**-x overflows; the true value is subnormal or close to it.
        expected = np.where((x < -708) & (x > -746), got, expected)
    with np.errstate(all="ignore"):
        close = np.abs(got - expected) <= 8 * np.spacing(np.abs(expected))
    same = close | (got == expected) | (np.isnan(got) & np.isnan(expected))
    same &= (expected != 0) | (np.signbit(got) == np.signbit(expected))
    assert same.all(), f"{name}({x[~same][0]!r}) = {got[~same][0]!r}, eager {expected[~same][0]!r}"


@pytest.mark.parametrize("name", ["pow", "atan2", "hypot"])
def test_two_arguments(name: str) -> None:
    rng = np.random.default_rng(6)
    special = np.array([0.0, -0.0, 1.0, -1.0, 2.5, -2.5, 3.0, -3.0, math.inf, -math.inf, math.nan])
    x, y = (a.ravel() for a in np.meshgrid(special, special))
    x = np.concatenate([x, rng.uniform(0, 10, 1031)])
    y = np.concatenate([y, rng.uniform(-10, 10, 1031)])
    (got,) = function(name, 2)(x, y)
    expected = getattr(torch, name)(torch.from_numpy(x), torch.from_numpy(y)).numpy()
    np.testing.assert_allclose(got, expected, rtol=1e-15, atol=0)


def test_sleef_is_called_at_the_width_of_the_module() -> None:
    for bits, symbol in ((128, "@atan(double"), (256, "@Sleef_atand4_u10("), (512, "@Sleef_atand8_u10(")):
        module = ModuleBuilder(vector_bits=bits)
        fb = FunctionBuilder(module, "f", [("x", F64)], F64)
        fb.ret(emit(fb, "atan", fb.params["x"]))
        assert symbol in module.text()


def test_float32_and_float64_have_the_same_functions() -> None:
    assert {op for op, elem in FUNCTIONS if elem == "float"} == {
        op for op, elem in FUNCTIONS if elem == "double"
    }


LIMITS = {"i8": 2**7, "i16": 2**15, "i32": 2**31, "i64": 2**63}
DIVISIONS = {
    (elem, lanes): array_function(
        lambda fb, a, b: [*divide(fb, a, b), *floor_divide(fb, a, b), *divide(fb, a, b, signed=False)],
        [elem, elem],
        [elem] * 6,
        lanes,
    )
    for elem in LIMITS
    for lanes in (1, 8)
}


@settings(max_examples=150, deadline=None)
@given(st.data(), st.sampled_from(sorted(LIMITS)))
def test_integer_division(data: st.DataObject, elem: str) -> None:
    limit = LIMITS[elem]
    number = st.integers(-limit, limit - 1) | st.sampled_from([-limit, limit - 1, -1, 1, 0])
    a = data.draw(st.lists(number, min_size=8, max_size=8))
    b = data.draw(st.lists(number.filter(bool), min_size=8, max_size=8))
    dtype = np.dtype(f"int{elem[1:]}")
    for lanes in (1, 8):
        results = DIVISIONS[elem, lanes](np.array(a, dtype), np.array(b, dtype))
        for i, (p, q) in enumerate(zip(a, b, strict=True)):
            towards_zero = abs(p) // abs(q) * (1 if (p < 0) == (q < 0) else -1)
            up, uq = p % (2 * limit), q % (2 * limit)
            expected = [towards_zero, p - towards_zero * q, p // q, p % q, up // uq, up % uq]
            wrapped = [(v + limit) % (2 * limit) - limit for v in expected]
            assert [int(r[i]) for r in results] == wrapped
