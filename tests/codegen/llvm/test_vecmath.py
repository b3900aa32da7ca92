"""Vector math: error bounds and special values on float32; results do not depend on lanes or neighbours."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable

import llvmlite.binding as llvm
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from braze.codegen.llvm.builder import F32, I32, FunctionBuilder, ModuleBuilder, constant
from braze.codegen.llvm.types import VOID
from braze.codegen.llvm.vecmath import FUNCTIONS, MissingFunctionError, emit, supports
from tests.codegen.llvm.machine import VECTOR_BITS, array_function, loop_module, target_machine, ulp_errors

ELSEWHERE = frozenset("igamma igammac chebyshev hermite_h hermite_he laguerre legendre".split())
"""Functions of two and three arguments that tests of their lowerings compare with eager and float64."""
OF_SEVERAL = ELSEWHERE | {"pow", "atan2", "hypot"}
UNARY: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    name: getattr(torch, name) for (name, elem) in FUNCTIONS if elem == "float" and name not in OF_SEVERAL
}
BINARY: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "pow": torch.pow,
    "atan2": torch.atan2,
    "hypot": torch.hypot,
}
BOUNDS = {"sigmoid": 2.5, "tan": 2.5, "rsqrt": 2.5, "pow": 2.0, "atan2": 2.0}
"""Largest errors allowed, in ULP; 1.0 where nothing else is said."""

RANGES = [(-1, 1), (-0.01, 0.01), (-5, 5), (-20, 20), (-110, 110), (-1e6, 1e6)]

SPECIALS = np.array(
    [
        0.0,
        1.0,
        0.5,
        2.0,
        3.0,
        2.5,
        math.inf,
        math.nan,
        1e-45,
        1e-39,
        1.1754944e-38,
        1e-20,
        3.4028235e38,
        88.722839,
    ]
    + [
        88.73,
        103.97,
        104.0,
        87.34,
        126.0,
        127.9,
        128.0,
        149.0,
        150.0,
        0.99999994,
        1.0000001,
        16777216.0,
        3e10,
    ],
    np.float32,
)
SPECIALS = np.concatenate([SPECIALS, -SPECIALS])


@functools.cache
def compiled(name: str, lanes: int, arity: int = 1) -> Callable[..., list[np.ndarray]]:
    return array_function(lambda fb, *xs: emit(fb, name, *xs), ["float"] * arity, ["float"], lanes)


def samples(seed: int) -> np.ndarray:
    """Random bit patterns (every exponent, NaN and infinity too), several ranges, and the special values."""
    rng = np.random.default_rng(seed)
    patterns = rng.integers(0, 2**32, 1 << 17, dtype=np.uint32).view(np.float32)
    ranges = [rng.uniform(low, high, 1 << 15).astype(np.float32) for low, high in RANGES]
    x = np.concatenate([SPECIALS, *ranges, patterns])
    return x[: x.size // 16 * 16]


@pytest.mark.parametrize("name", sorted(UNARY))
def test_error_bound(name: str) -> None:
    x = samples(len(name))
    (got,) = compiled(name, VECTOR_BITS // 32)(x)
    errors = ulp_errors(got, UNARY[name](torch.from_numpy(x).double()).numpy())
    worst = int(errors.argmax())
    assert errors[worst] <= BOUNDS.get(name, 1.0), f"{name}({x[worst]!r}) = {got[worst]!r}"


@pytest.mark.parametrize("name", sorted(BINARY))
def test_error_bound_of_two_arguments(name: str) -> None:
    rng = np.random.default_rng(3)
    corners = np.array(list(itertools.product(SPECIALS, SPECIALS)), np.float32)
    patterns = rng.integers(0, 2**32, (1 << 16, 2), dtype=np.uint32).view(np.float32)
    near = np.stack([np.exp(rng.normal(0, 1, 1 << 16)), rng.uniform(-60, 60, 1 << 16)], 1).astype(np.float32)
    integers = np.stack([rng.uniform(-9, 9, 1 << 16), rng.integers(-9, 9, 1 << 16)], 1).astype(np.float32)
    pairs = np.concatenate([corners, patterns, near, integers])
    pairs = pairs[: len(pairs) // 16 * 16]
    x, y = pairs[:, 0].copy(), pairs[:, 1].copy()
    (got,) = compiled(name, VECTOR_BITS // 32, 2)(x, y)
    reference = BINARY[name](torch.from_numpy(x).double(), torch.from_numpy(y).double())
    errors = ulp_errors(got, reference.numpy())
    worst = int(errors.argmax())
    assert errors[worst] <= BOUNDS.get(name, 1.0), f"{name}({x[worst]!r}, {y[worst]!r}) = {got[worst]!r}"


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("exp", (0.0, -math.inf, math.inf, 89.0, -104.0), (1.0, 0.0, math.inf, math.inf, 0.0)),
        ("expm1", (0.0, -0.0, -math.inf, math.inf), (0.0, -0.0, -1.0, math.inf)),
        ("log", (1.0, 0.0, -0.0, math.inf, -1.0), (0.0, -math.inf, -math.inf, math.inf, math.nan)),
        ("log1p", (0.0, -0.0, -1.0, -1.5, math.inf), (0.0, -0.0, -math.inf, math.nan, math.inf)),
        ("log2", (8.0, 2.0**-149, 1.0), (3.0, -149.0, 0.0)),
        ("log10", (1000.0, 1e10, 1.0), (3.0, 10.0, 0.0)),
        ("exp2", (10.0, -149.0, 128.0, -150.0), (1024.0, 2.0**-149, math.inf, 0.0)),
        ("sigmoid", (0.0, math.inf, -math.inf, -100.0), (0.5, 1.0, 0.0, 3.783506e-44)),
        ("tanh", (0.0, -0.0, math.inf, -math.inf, 20.0), (0.0, -0.0, 1.0, -1.0, 1.0)),
        ("erf", (-0.0, math.inf, -math.inf), (-0.0, 1.0, -1.0)),
        ("erfinv", (1.0, -1.0, 1.1, -0.0), (math.inf, -math.inf, math.nan, -0.0)),
        ("sin", (-0.0, math.inf), (-0.0, math.nan)),
        ("tan", (-0.0, -math.inf), (-0.0, math.nan)),
        ("cos", (-0.0, math.inf), (1.0, math.nan)),
        ("rsqrt", (0.0, -0.0, -1.0, math.inf), (math.inf, -math.inf, math.nan, 0.0)),
        ("acosh", (1.0, 0.5, -5.0, math.inf), (0.0, math.nan, math.nan, math.inf)),
        ("atanh", (1.0, -1.0, 2.0, -0.0), (math.inf, -math.inf, math.nan, -0.0)),
        ("lgamma", (0.0, -1.0, 1.0, -math.inf), (math.inf, math.inf, 0.0, math.inf)),
    ],
)
def test_special_values(name: str, arguments: tuple[float, ...], expected: tuple[float, ...]) -> None:
    (got,) = compiled(name, 1)(np.array(arguments, np.float32))
    want = np.array(expected, np.float32)
    np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal(np.signbit(got[want == 0]), np.signbit(want[want == 0]))


@pytest.mark.parametrize(
    ("x", "y", "expected"),
    [
        (math.nan, 0.0, 1.0),
        (1.0, math.nan, 1.0),
        (-1.0, math.inf, 1.0),
        (-1.0, math.nan, math.nan),
        (0.0, -3.0, math.inf),
        (-0.0, -3.0, -math.inf),
        (-0.0, 3.0, -0.0),
        (-0.0, 2.5, 0.0),
        (-math.inf, 3.0, -math.inf),
        (-math.inf, 0.5, math.inf),
        (-8.0, 1 / 3, math.nan),
        (-3.0, 3.0, -27.0),
        (-3.0, 16777216.0, math.inf),
        (0.5, math.inf, 0.0),
        (2.0, -149.0, 2.0**-149),
    ],
)
def test_special_values_of_pow(x: float, y: float, expected: float) -> None:
    (got,) = compiled("pow", 1, 2)(np.array([x], np.float32), np.array([y], np.float32))
    np.testing.assert_array_equal(got, np.array([expected], np.float32))
    assert math.isnan(expected) or np.signbit(got[0]) == (math.copysign(1.0, expected) < 0)


@pytest.mark.parametrize(("name", "elem"), sorted(FUNCTIONS))
def test_results_do_not_depend_on_lanes_or_neighbours(name: str, elem: str) -> None:
    arity = 2 if name in BINARY or name.startswith("igamma") else 3 if name in ELSEWHERE else 1
    dtype = np.float32 if elem == "float" else np.float64
    rng = np.random.default_rng(7)
    patterns = rng.integers(0, 2**32, 512, dtype=np.uint32).view(np.float32)
    with np.errstate(invalid="ignore"):
        x = np.concatenate([SPECIALS, patterns, *[rng.uniform(a, b, 64) for a, b in RANGES]]).astype(dtype)
    x = x[: x.size // 16 * 16]
    degrees = (np.arange(x.size) % 9).astype(dtype)
    arrays = [x, np.roll(x, 5), degrees][:arity]
    order = rng.permutation(x.size)
    integers = np.int32 if elem == "float" else np.int64

    def bits(lanes: int) -> np.ndarray:
        function = array_function(lambda fb, *xs: emit(fb, name, *xs), [elem] * arity, [elem], lanes)
        (got,) = function(*arrays)
        (shuffled,) = function(*[a[order] for a in arrays])
        np.testing.assert_array_equal(shuffled, got[order])
        return np.where(np.isnan(got), integers(-1), got.view(integers))

    expected = bits(16)
    for lanes in (1, 4, 8):
        np.testing.assert_array_equal(bits(lanes), expected)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(width=32, allow_nan=False), min_size=4, max_size=4))
def test_symmetry(values: list[float]) -> None:
    x = np.array(values, np.float32)
    for name in ("tanh", "erf", "sin", "tan", "atan", "asinh", "sinh"):
        (plus,), (minus,) = compiled(name, 4)(x), compiled(name, 4)(-x)
        np.testing.assert_array_equal(plus, -minus)
    for name in ("cos", "cosh"):
        np.testing.assert_array_equal(compiled(name, 4)(x), compiled(name, 4)(-x))


@settings(max_examples=200, deadline=None)
@given(st.floats(width=32, min_value=-100, max_value=100), st.integers(1, 4))
def test_monotonic_between_neighbours(start: float, exponent: int) -> None:
    """Rising functions may not fall by more than their error bounds: two ULP together."""
    x = np.float32(start) + np.arange(16, dtype=np.float32) * np.float32(2.0**-exponent)
    for name in ("exp", "tanh", "sigmoid", "erf", "atan"):
        (y,) = compiled(name, 4)(x.astype(np.float32))
        finite = y[np.isfinite(y)]
        assert np.all(np.diff(finite) >= -2 * np.spacing(np.abs(finite[1:])))


def test_vectors_use_the_whole_width() -> None:
    ir = loop_module(lambda fb, x: emit(fb, "exp", x), ["float"], ["float"], VECTOR_BITS // 32)
    assembly = target_machine().emit_assembly(llvm.parse_assembly(ir))
    assert ("zmm" if VECTOR_BITS == 512 else "ymm") in assembly
    assert "call" not in assembly


def test_unknown_operations_are_refused() -> None:
    assert supports("exp", "float")
    assert not supports("exp", "i32")
    assert not supports("frobnicate", "float")
    fb = FunctionBuilder(ModuleBuilder(), "f", [("x", F32)], VOID)
    with pytest.raises(MissingFunctionError, match="frobnicate on float"):
        emit(fb, "frobnicate", fb.params["x"])
    with pytest.raises(MissingFunctionError, match="exp on i32"):
        emit(fb, "exp", constant(I32, 1))
