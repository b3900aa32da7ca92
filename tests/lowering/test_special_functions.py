"""Special functions against eager, and in float64 against many digits."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import mpmath
import pytest
import torch

from braze.lowering import bessel_second, zeta
from braze.ops import scalar
from braze.ops.dag import Dag, Node, topological
from tests import support
from tests.lowering.execute import check, run
from tests.numerics import assert_agrees

Function = Callable[..., torch.Tensor]

INF, NAN = math.inf, math.nan


@pytest.fixture(autouse=True)
def many_digits() -> Iterator[None]:
    """References have more digits than they need."""
    with mpmath.workdps(40):
        yield


POINTS = [0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 2.0, 3.3, -2.5, 7.0, 9.5, 15.0, -7.25, 100.0, -100.0]
POINTS += [1e-3, -1e-3, 1e-30, 0.3, 0.8, 1 - 2**-20, 700.0, 1e10, -1e4, 1e30, INF, -INF, NAN]

UNARY: dict[str, Function] = {
    **{
        name: getattr(torch.special, name)
        for name in """airy_ai bessel_y0 bessel_y1 modified_bessel_k0 modified_bessel_k1 ndtri
        scaled_modified_bessel_k0 scaled_modified_bessel_k1""".split()
    },
    **{f"polygamma {n}": functools.partial(torch.polygamma, n) for n in (0, 1, 2, 3, 4, 7)},
}
OFF_IN_FLOAT64 = ("airy_ai", "bessel_y0", "bessel_y1")
"""Functions that eager does not know to within float64's tolerance."""


def compiled_function(fn: Function) -> Callable[..., Any]:
    """Machine code for a function, whatever the sizes."""
    support.reset()
    return support.compile_with(fn, strict=True)


def compiled(fn: Function, *inputs: Any) -> Any:
    """The result of machine code."""
    return compiled_function(fn)(*inputs)


def agrees(fn: Function, *inputs: torch.Tensor) -> None:
    """The interpreter agrees with eager, and machine code with the interpreter."""
    check(fn, *inputs)
    (expected,) = run(fn, *inputs, strict=True)
    torch.testing.assert_close(compiled(fn, *inputs), expected, equal_nan=True)


@pytest.mark.parametrize("name", UNARY)
def test_special_values(name: str) -> None:
    x = torch.tensor(POINTS)
    agrees(UNARY[name], x)
    if name not in OFF_IN_FLOAT64:
        agrees(UNARY[name], x.double())
    agrees(UNARY[name], torch.arange(-4, 9))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("n", [0, 1, 2, 3])
def test_polygamma_of_half_types(n: int, dtype: torch.dtype) -> None:
    x = torch.tensor([0.25, 0.5, 1, 2.5, 7, 60, -0.5, -1.25, INF, NAN], dtype=dtype)
    agrees(functools.partial(torch.polygamma, n), x)


@pytest.mark.parametrize("name", OFF_IN_FLOAT64)
def test_what_eager_does_not_know_in_float64_is_left_to_it(name: str) -> None:
    x = torch.tensor(POINTS, dtype=torch.float64)
    (found,) = run(UNARY[name], x)
    torch.testing.assert_close(found, UNARY[name](x), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_zeta(dtype: torch.dtype) -> None:
    s = torch.tensor([1, 0.5, -2, 2, 3, 1.5, INF, -INF, NAN, 1e3, 2.5, 5, 60], dtype=dtype)[:, None]
    q = torch.tensor([*POINTS, 1.5, -20.3], dtype=dtype)
    agrees(torch.special.zeta, s, q)
    agrees(lambda q: torch.special.zeta(3, q), q)
    agrees(lambda s: torch.special.zeta(s, 0.75), s)


def _evaluated(fn: Callable[[Node], Node], x: torch.Tensor) -> torch.Tensor:
    """A function of nodes at ``x``, in float64."""
    dag = Dag()
    root = fn(dag.load("x", 0, torch.float64))
    values: dict[int, torch.Tensor] = {}
    for node in topological([root]):
        operands = [values[a.id] for a in node.args]
        if node.op == "constant":
            values[node.id] = torch.tensor(node.attrs[0], dtype=node.dtype)
        else:
            values[node.id] = x if node.op == "load" else scalar.FUNCTIONS[node.op](*operands)
    return values[root.id]


def _error(found: torch.Tensor, exact: Sequence[Any], absolute: bool = False) -> float:
    """The largest error, relative to the exact value or not."""
    errors = [abs(mpmath.mpf(v) - e) / (1 if absolute else abs(e)) for v, e in zip(found.tolist(), exact)]
    return float(max(errors))


def _spread(low: float, high: float, count: int = 150) -> torch.Tensor:
    """Numbers from ``low`` to ``high`` (both above zero), as many in each octave."""
    return torch.logspace(math.log2(low), math.log2(high), count, base=2, dtype=torch.float64)


BESSEL_K: dict[str, tuple[Function, Callable[[Any], Any]]] = {
    "modified_bessel_k0": (torch.special.modified_bessel_k0, lambda x: mpmath.besselk(0, x)),
    "modified_bessel_k1": (torch.special.modified_bessel_k1, lambda x: mpmath.besselk(1, x)),
    "scaled_modified_bessel_k0": (
        torch.special.scaled_modified_bessel_k0,
        lambda x: mpmath.besselk(0, x) * mpmath.exp(x),
    ),
    "scaled_modified_bessel_k1": (
        torch.special.scaled_modified_bessel_k1,
        lambda x: mpmath.besselk(1, x) * mpmath.exp(x),
    ),
}


@pytest.mark.parametrize("name", BESSEL_K)
def test_precision_of_modified_bessel_functions(name: str) -> None:
    function, exact = BESSEL_K[name]
    x = torch.cat([_spread(1e-8, 600), torch.tensor([1.999999, 2, 2.000001], dtype=torch.float64)])
    assert _error(compiled(function, x), [exact(mpmath.mpf(v)) for v in x.tolist()]) < 4e-15


WAVES: dict[str, tuple[Callable[[Node], Node], Callable[[Any], Any]]] = {
    "y0": (lambda v: bessel_second.second_kind(v, 0), lambda x: mpmath.bessely(0, x)),
    "y1": (lambda v: bessel_second.second_kind(v, 1), lambda x: mpmath.bessely(1, x)),
    "airy": (bessel_second.airy, mpmath.airyai),
    "airy of negative numbers": (lambda v: bessel_second.airy(-v), lambda x: mpmath.airyai(-x)),
}


@pytest.mark.parametrize("name", WAVES)
def test_precision_of_waves(name: str) -> None:
    function, exact = WAVES[name]
    x = torch.cat([_spread(0.1, 60), torch.linspace(6, 12, 61, dtype=torch.float64)])
    assert _error(_evaluated(function, x), [exact(mpmath.mpf(v)) for v in x.tolist()], absolute=True) < 2e-11


@pytest.mark.parametrize("n", [1, 2, 3, 6, 20])
def test_precision_of_polygamma(n: int) -> None:
    x = torch.cat([_spread(0.01, 1e4, 60), -torch.linspace(0.03, 30.03, 61, dtype=torch.float64)])
    exact = [mpmath.polygamma(n, mpmath.mpf(v)) for v in x.tolist()]
    found = compiled(functools.partial(torch.polygamma, n), x)
    near = [e for e in exact if abs(e) > 1e-6]
    assert _error(found[[abs(e) > 1e-6 for e in exact]], near) < 1e-12


@pytest.mark.parametrize("s", [1.01, 1.5, 2.5, 7, 33.3])
def test_precision_of_zeta(s: float) -> None:
    q = _spread(0.01, 1e3, 60)
    with mpmath.workdps(160):  # its sums have an absolute error
        exact = [mpmath.zeta(mpmath.mpf(s), mpmath.mpf(v)) for v in q.tolist()]
    assert _error(compiled(torch.special.zeta, torch.full_like(q, s), q), exact) < 2e-13


def test_coefficients_of_the_expansion_of_zeta() -> None:
    exact = [mpmath.bernoulli(2 * k) / mpmath.factorial(2 * k) for k in range(1, zeta.CORRECTIONS + 1)]
    assert _error(torch.tensor(zeta.CORRECTION, dtype=torch.float64), exact) < 1e-15


def test_precision_of_quantiles() -> None:
    t = torch.linspace(-37, 8, 181, dtype=torch.float64)
    p = [mpmath.ncdf(mpmath.mpf(v)) for v in t.tolist()]
    found = compiled(torch.special.ndtri, torch.tensor([float(v) for v in p], dtype=torch.float64))
    # what rounding the probability did to the quantile
    moved = [(float(v) - v) / mpmath.npdf(x) for v, x in zip(p, t.tolist())]
    exact = [mpmath.mpf(x) + m for x, m in zip(t.tolist(), moved)]
    keep = [i for i, x in enumerate(t.tolist()) if x < 5 and x != 0]
    assert _error(found[keep], [exact[i] for i in keep]) < 1e-14


GRADIENTS: dict[str, Function] = {
    "lgamma": torch.lgamma,
    "digamma": torch.digamma,
    "polygamma 1": functools.partial(torch.polygamma, 1),
    "polygamma 2": functools.partial(torch.polygamma, 2),
    "ndtri": lambda x: torch.special.ndtri(torch.sigmoid(x)),
    "zeta": lambda x: torch.special.zeta(torch.full_like(x, 2.5), x),
}


@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients(name: str) -> None:
    x = torch.tensor([0.1, 0.5, 0.75, 1.0, 2.5, 7.0, 30.0])

    def gradient(fn: Function) -> torch.Tensor:
        leaf = x.clone().requires_grad_()
        fn(leaf).sum().backward()
        assert leaf.grad is not None
        return leaf.grad

    support.reset()
    found = gradient(support.compile_with(GRADIENTS[name], strict=True))
    torch.testing.assert_close(found, gradient(GRADIENTS[name]), equal_nan=True)


POLYNOMIALS = """chebyshev_polynomial_t chebyshev_polynomial_u chebyshev_polynomial_v chebyshev_polynomial_w
shifted_chebyshev_polynomial_t shifted_chebyshev_polynomial_u shifted_chebyshev_polynomial_v
shifted_chebyshev_polynomial_w hermite_polynomial_h hermite_polynomial_he laguerre_polynomial_l
legendre_polynomial_p""".split()
ARGUMENTS = [-1.0, 1.0, 0.0, -0.0, -0.5, 0.5, 1.5, -2.0, 0.999, -0.9999, 0.25, 3.7, -0.1, 12.0, INF, -INF]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", POLYNOMIALS)
def test_polynomials_of_degrees_in_a_tensor(name: str, dtype: torch.dtype) -> None:
    x = torch.tensor(ARGUMENTS[:14], dtype=dtype)
    degrees = [-1, 0, 1, 2, 3, 6, 7, 8, 9, 10, 20, -0.5, 2.7, 100, NAN, INF]
    agrees(getattr(torch.special, name), x, torch.tensor(degrees, dtype=dtype)[:, None])


@pytest.mark.parametrize("n", [-2, 0, 1, 2, 3, 8, 9, 12, 13, 2.9])
@pytest.mark.parametrize("name", POLYNOMIALS)
def test_polynomials_of_a_degree(name: str, n: float) -> None:
    function = getattr(torch.special, name)
    check(lambda x: function(x, n), torch.tensor(ARGUMENTS))
    check(lambda x: function(x, n), torch.arange(-3, 5))


@pytest.mark.parametrize("name", POLYNOMIALS)
def test_polynomials_of_a_number(name: str) -> None:
    function = getattr(torch.special, name)
    check(lambda n: function(0.75, n), torch.arange(-1, 30))


def test_no_degree_depends_on_the_degrees_beside_it() -> None:
    x, n = torch.linspace(-2, 2, 64), torch.arange(64.0)
    function = compiled_function(torch.special.legendre_polynomial_p)
    alone = torch.cat([function(x[k : k + 1], n[k : k + 1]) for k in range(0, 64, 9)])
    torch.testing.assert_close(function(x, n)[::9], alone, rtol=0, atol=0)


INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
@pytest.mark.parametrize("function", [torch.gcd, torch.lcm])
def test_divisors(function: Function, dtype: torch.dtype) -> None:
    low, high = torch.iinfo(dtype).min, torch.iinfo(dtype).max
    # eager divides the least int32 by -1, and ends the process
    low += dtype.itemsize >= 4
    values = [low, low + 1, high - 1, high, 0, 1, 6, 12, 97, *([-1, -4, -97] if low < 0 else [])]
    x = torch.tensor(values, dtype=dtype)
    agrees(function, x[:, None].contiguous(), x)
    small = torch.arange(200).to(dtype)
    agrees(function, small, small.flip(0) // 3)


def test_the_divisor_of_least_integers() -> None:
    least = torch.tensor([torch.iinfo(torch.int64).min] * 2)
    other = torch.tensor([0, -1])
    assert compiled(torch.gcd, least, other).tolist() == [least[0].item(), 1]


HALVES = (torch.float16, torch.bfloat16)


def _every_half(dtype: torch.dtype) -> torch.Tensor:
    return torch.arange(-(2**15), 2**15, dtype=torch.int16).view(dtype)


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_the_next_number_of_half_types(dtype: torch.dtype) -> None:
    x = _every_half(dtype)
    function = compiled_function(torch.nextafter)
    for y in (x.flip(0), x.roll(1), torch.zeros_like(x), -torch.zeros_like(x), torch.ones_like(x)):
        found, expected = function(x, y), torch.nextafter(x, y)
        torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)
        assert ((found.signbit() == expected.signbit()) | found.isnan()).all()


@pytest.mark.parametrize("dtype", [*HALVES, torch.float32, torch.float64], ids=str)
def test_mantissas_and_exponents(dtype: torch.dtype) -> None:
    values = [*POINTS, 1e-45, -1e-40, 1e-38, 3e38, 5e-324, -1e-310, 1e308, 6e-8, 6e4]
    x = _every_half(dtype) if dtype in HALVES else torch.tensor(values, dtype=dtype)
    check(torch.frexp, x)
    mantissa, exponent = compiled(torch.frexp, x)
    torch.testing.assert_close((mantissa, exponent), tuple(torch.frexp(x)), rtol=0, atol=0, equal_nan=True)
    assert (mantissa.signbit() == x.signbit())[x == 0].all()


FIRST = [0.0, -0.0, -1, 1e-10, 1e-3, 0.1, 0.49, 0.5, 1, 1.5, 3, 10, 30, 49, 50, 51, 80, 200, 1e3, 1e10]
FIRST += [INF, NAN]
SECOND = [0.0, -1, 1e-30, 1e-8, 1e-3, 0.1, 0.5, 1.1, 1.11, 2, 10, 30, 35, 48, 50, 55, 64, 66, 70, 100]
SECOND += [150, 190, 200, 260, 900, 1e3, 1030, 1500, 1e10, 1.00001e10, 1e30, INF, NAN]
GAMMA = {
    "igamma": (torch.igamma, lambda a, x: mpmath.gammainc(a, 0, x, regularized=True)),
    "igammac": (torch.igammac, lambda a, x: mpmath.gammainc(a, x, mpmath.inf, regularized=True)),
}


@pytest.mark.parametrize("dtype", [*HALVES, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", GAMMA)
def test_incomplete_gamma_functions(name: str, dtype: torch.dtype) -> None:
    function, _ = GAMMA[name]
    a, x = torch.tensor(FIRST, dtype=dtype)[:, None], torch.tensor(SECOND, dtype=dtype)
    check(function, a, x)
    wide = lambda: function(a.double(), x.double())  # noqa: E731
    assert_agrees(compiled(function, a, x), function(a, x), wide)


@pytest.mark.parametrize("name", GAMMA)
def test_precision_of_incomplete_gamma_functions(name: str) -> None:
    function, exact = GAMMA[name]
    pairs = [(a, x) for a in FIRST for x in SECOND if 0 < a <= 1e3 and 0 < x <= 2e3]
    references = [exact(mpmath.mpf(a), mpmath.mpf(x)) for a, x in pairs]
    kept = [k for k, value in enumerate(references) if abs(value) > 1e-290]
    both = torch.tensor([pairs[k] for k in kept], dtype=torch.float64)
    found = compiled(function, both[:, 0].contiguous(), both[:, 1].contiguous())
    assert _error(found, [references[k] for k in kept]) < 4e-13


def test_no_incomplete_gamma_function_depends_on_those_beside_it() -> None:
    a, x = torch.meshgrid(torch.tensor(FIRST), torch.tensor(SECOND), indexing="ij")
    a, x = a.reshape(-1), x.reshape(-1)
    function = compiled_function(torch.igammac)
    alone = torch.cat([function(a[k : k + 1], x[k : k + 1]) for k in range(0, a.numel(), 11)])
    torch.testing.assert_close(function(a, x)[::11], alone, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("name", GAMMA)
def test_gradients_of_incomplete_gamma_functions(name: str) -> None:
    function, _ = GAMMA[name]
    a, x = torch.tensor([0.3, 1.0, 4.0, 30.0]), torch.tensor([0.2, 1.5, 3.0, 33.0])

    def gradient(fn: Function) -> torch.Tensor:
        leaf = x.clone().requires_grad_()
        fn(a, leaf).sum().backward()
        assert leaf.grad is not None
        return leaf.grad

    torch.testing.assert_close(gradient(compiled_function(function)), gradient(function))
