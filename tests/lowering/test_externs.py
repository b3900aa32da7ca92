"""Operators that are called whole by design: allowed in strict mode, without a warning, and shown as what
they are; their results are eager's in values and strides, between kernels, of any size and type."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fft, linalg

import braze
from braze.errors import FallbackError
from braze.lowering.externs import BY_DESIGN
from braze.lowering.registry import always_whole, extern_of
from tests.lowering.execute import lower, trace
from tests.numerics import assert_agrees
from tests.support import watch

aten = torch.ops.aten

Program = Callable[..., Any]


def _positive(x: Tensor) -> Tensor:
    return x @ x.mT + 4 * torch.eye(x.shape[-1], dtype=x.dtype)


def _factors(x: Tensor) -> tuple[Tensor, Tensor]:
    a, tau = torch.geqrf(x.detach() + 1)
    return a * 2, tau * x.sum()


OF_REAL_MATRICES: dict[str, Program] = {
    # between kernels, whose memory is planned, and one after another
    "a chain": lambda x: (linalg.inv(linalg.inv(x * 2).tanh() + 3 * torch.eye(4, dtype=x.dtype)) * 2).exp(),
    "a dead part": lambda x: (linalg.qr(x + 1)[1] * 2, x.sum()),
    "values of eigh": lambda x: linalg.eigvalsh(_positive(x)) * 2,
    "ldl": lambda x: linalg.ldl_solve(*linalg.ldl_factor(_positive(x.detach())), x.detach()) * 2,
    "lu of a wide matrix": lambda x: linalg.lu((x * 2)[..., :2, :]),
    "matrix_exp": lambda x: linalg.matrix_exp(x / 3) + 1,
    "geqrf": _factors,
    "ormqr": lambda x: torch.ormqr(x.detach(), x[..., 0].detach(), x.detach() * 2),
    "householder_product": lambda x: linalg.householder_product(x / 3, x[..., 0] / 5),
    "solve_triangular": lambda x: linalg.solve_triangular(x.tril() + 3, x * 2, upper=False),
    "norm of singular values": lambda x: linalg.matrix_norm(x * 2, "nuc") + linalg.cond(x),
    "addbmm": lambda x: torch.addbmm(x.reshape(-1, 4, 4)[0] * 2, x.reshape(-1, 4, 4), x.reshape(-1, 4, 4)),
    "bilinear": lambda x: F.bilinear(x[..., 0, :], x[..., 1, :] * 2, x.reshape(-1, 4, 4)[:1]),
    "cdist, p=3": lambda x: torch.cdist(x, x * 2 + 1, p=3.0).sin(),
}
OF_ANY_MATRICES: dict[str, Program] = {
    "inv": linalg.inv,
    "solve": lambda x: linalg.solve(x, x.mT),
    "cholesky": lambda x: linalg.cholesky(x.detach() @ x.detach().mH),
    "qr": linalg.qr,
    "svd": lambda x: linalg.svd(x)[1],
    "eigh": lambda x: linalg.eigvalsh(x),
    "det": linalg.det,
    "lu_factor": lambda x: linalg.lu_factor(x),
}


def _matrices(*size: int, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(*size, 4, 4, generator=generator, dtype=dtype) + 3 * torch.eye(4, dtype=dtype)


def _run(program: Program, x: Tensor) -> tuple[Any, Any]:
    """Results, and the gradient of their sum."""
    x = x.clone().requires_grad_()
    result = program(x)
    results = [result] if isinstance(result, Tensor) else list(result)
    roots = [r.abs().sum() for r in results if r.requires_grad]
    gradients = torch.autograd.grad(roots, x, allow_unused=True) if roots else None
    return [r.detach() for r in results], gradients


def _check(program: Program, *inputs: Tensor, dynamic: bool | None = None) -> None:
    torch.compiler.reset()
    compiled = torch.compile(program, backend="braze", fullgraph=True, dynamic=dynamic)
    with watch() as seen, warnings.catch_warnings(), braze.config.patch(strict=True, cache=False):
        warnings.simplefilter("error", braze.errors.BrazeWarning)
        for x in inputs:
            (results, gradients), expected = _run(compiled, x), _run(program, x)
            reference = _run(program, x.to(torch.complex128 if x.is_complex() else torch.float64))
            assert_agrees(results, expected[0], lambda reference=reference: reference[0], check_strides=True)
            assert_agrees(gradients, expected[1], lambda reference=reference: reference[1])
    assert seen.externs and not seen.fallbacks and not seen.eager_graphs


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", OF_REAL_MATRICES)
def test_matrices(name: str, dtype: torch.dtype) -> None:
    _check(OF_REAL_MATRICES[name], _matrices(dtype=dtype))


@pytest.mark.parametrize("name", ["a chain", "lu of a wide matrix", "addbmm", "cdist, p=3"])
def test_matrices_of_many_sizes(name: str) -> None:
    _check(OF_REAL_MATRICES[name], _matrices(3), _matrices(5), _matrices(2).mT, dynamic=True)


@pytest.mark.parametrize("name", OF_ANY_MATRICES)
@pytest.mark.filterwarnings("ignore::braze.errors.BrazeWarning")
def test_complex_matrices(name: str) -> None:
    """What is no fallback because of their type; arithmetic on them is another matter."""
    torch.compiler.reset()
    program, x = OF_ANY_MATRICES[name], _matrices(2, dtype=torch.complex64)
    with watch() as seen, braze.config.patch(cache=False):
        compiled = torch.compile(program, backend="braze", fullgraph=True)
        assert_agrees(compiled(x), program(x), check_strides=True)
    assert any("linalg" in op for op in seen.externs)
    assert not [f for f in seen.fallbacks if "linalg" in f.op]


@pytest.mark.parametrize("dynamic", [False, True])
def test_fourier_transforms(dynamic: bool) -> None:
    def spectrum(x: Tensor) -> Tensor:
        return fft.rfft2(x * 2, norm="ortho")

    def back(x: Tensor) -> Tensor:
        return aten._fft_c2r(x, [0], 0, 6) + 1

    compiled = [torch.compile(f, backend="braze", dynamic=dynamic, fullgraph=True) for f in (spectrum, back)]
    with watch() as seen, braze.config.patch(strict=True, cache=False):
        for x in (torch.randn(3, 5, 8), torch.randn(4, 8, 5).mT):
            for function, its, given in zip((spectrum, back), compiled, (x, fft.rfft(x, 6, dim=0))):
                assert_agrees(its(given), function(given), check_strides=True)
    assert not seen.fallbacks
    assert seen.externs.keys() == {"aten._fft_r2c.default", "aten._fft_c2r.default"}


SAMPLERS: dict[str, Program] = {
    "multinomial": lambda p: torch.multinomial(p * 2, 3) + 1,
    "multinomial, replaced": lambda p: torch.multinomial(p * 2, 9, True) + 1,
    "randperm": lambda p: torch.randperm(6) + p,
    "poisson": lambda p: torch.poisson(p * 5) * 2,
    "binomial": lambda p: torch.binomial(torch.full_like(p, 9), p) * 2,
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_samplers_draw_as_eager_does(name: str) -> None:
    torch.compiler.reset()
    program, p = SAMPLERS[name], torch.linspace(0.1, 0.9, 24).reshape(4, 6)
    with watch() as seen, braze.config.patch(strict=True, cache=False):
        compiled = torch.compile(program, backend="braze", fullgraph=True)
        torch.manual_seed(5)
        found = [compiled(p), compiled(p)]
    torch.manual_seed(5)
    assert_agrees(found, [program(p), program(p)])
    assert not seen.fallbacks


def test_a_check_is_called_in_order() -> None:
    def program(x: Tensor) -> Tensor:
        torch._assert_async((x > 0).all(), "not positive")
        return x.sqrt() + 1

    compiled = torch.compile(program, backend="braze", options={"strict": True})
    torch.testing.assert_close(compiled(torch.ones(4)), torch.full((4,), 2.0))
    with pytest.raises(RuntimeError, match="not positive"):
        compiled(torch.zeros(4))


def test_explain_shows_calls_not_fallbacks() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", braze.errors.BrazeWarning)
        report = braze.explain(lambda x: linalg.svdvals(x * 2) + 1, torch.randn(4, 4))
    assert [(e.name, e.fallback) for e in report.externs] == [("_linalg_svd", False)]
    assert not report.fallbacks and "_linalg_svd" in str(report)


def test_another_reason_is_still_a_fallback() -> None:
    with pytest.raises(FallbackError, match="complex32 is not compiled"):
        lower(trace(lambda x: x * 2, torch.randn(3, dtype=torch.complex32)), strict=True)


def test_a_lowering_is_asked_first() -> None:
    x = torch.randn(3, 4)
    assert extern_of(aten._cdist_forward.default) and not always_whole(aten._cdist_forward.default)
    graph, _ = lower(trace(lambda x: torch.cdist(x, x), x), strict=True)
    assert "_cdist_forward" not in str(graph).split("#")[0]
    # rows without elements are none of its loops
    graph, _ = lower(trace(lambda x: aten._cdist_forward(x[:, :0], x[:, :0], 2.0, None), x), strict=True)
    assert "ExternKernelAlloc aten._cdist_forward.default" in str(graph)


def test_the_table_speaks_of_operators_that_there_are() -> None:
    names = [name for _, names in BY_DESIGN for name in names.split()]
    assert len(names) == len(set(names))
    if not torch.__version__.startswith("2.13."):
        return  # of which the table's names are
    assert not [name for name in names if "::" not in name and not hasattr(aten, name)]


def test_what_writes_to_an_argument_is_no_extern() -> None:
    assert extern_of(aten.cholesky.default) and not extern_of(aten.cholesky.out)
    assert extern_of(aten.sort.stable) and not extern_of(aten.sort.values_stable)
    assert not extern_of(aten.add.Tensor) and not extern_of(len)
