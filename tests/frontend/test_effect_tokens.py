"""Operators with effects (the check that a decomposition succeeded, a print) in graphs with gradients: what
is kept for the backward, and what the caller sees, lie in memory as AOTAutograd was told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, linalg

from tests.frontend.memory_entries import real

pytestmark = pytest.mark.filterwarnings("error::braze.errors.BrazeWarning")

Fn = Callable[..., Any]


def _positive(a: Tensor) -> Tensor:
    return a @ a.mT + 4 * torch.eye(4)


def _four(a: Tensor) -> Tensor:
    return a.reshape(-1, 4, 4)[0]


FUNCTIONS: dict[str, Fn] = {
    "inv": lambda a, b: linalg.inv(a),
    "inv transposed": lambda a, b: (linalg.inv(a * 2) + 1).mT @ a,
    "inv_ex": lambda a, b: linalg.inv_ex(a)[0],
    "cholesky": lambda a, b: linalg.cholesky(_positive(a)),
    "upper cholesky": lambda a, b: linalg.cholesky(_positive(a), upper=True),
    "cholesky_inverse": lambda a, b: torch.cholesky_inverse(linalg.cholesky(_positive(a))),
    "cholesky_solve": lambda a, b: torch.cholesky_solve(b, linalg.cholesky(_positive(a))),
    "matrix_power": lambda a, b: linalg.matrix_power(a, -2) + linalg.matrix_power(b, 3),
    "solve": lambda a, b: linalg.solve(a, b),
    "solve, vector": lambda a, b: linalg.solve(a, b[..., 0]),
    "solve, right": lambda a, b: linalg.solve(a, b, left=False),
    "two solves": lambda a, b: linalg.solve(linalg.inv(a), linalg.solve(a, b)),
    "lu_factor": lambda a, b: linalg.lu_factor(a)[0],
    "lu": lambda a, b: linalg.lu(a)[1:],
    "lu_solve": lambda a, b: linalg.lu_solve(*linalg.lu_factor(a), b),
    "lu_unpack": lambda a, b: torch.lu_unpack(*linalg.lu_factor(a))[1:],
    "tensorsolve": lambda a, b: linalg.tensorsolve(_four(a).reshape(2, 2, 2, 2), _four(b)[:2, :2]),
    "tensorinv": lambda a, b: linalg.tensorinv(_four(a).reshape(2, 2, 4)),
    "qr": lambda a, b: linalg.qr(a),
    "eigh": lambda a, b: linalg.eigh(_positive(a))[1].abs(),
    "svd": lambda a, b: linalg.svd(a)[0].abs(),
    "pinv": lambda a, b: linalg.pinv(a),
    "det": lambda a, b: linalg.det(a),
    "slogdet": lambda a, b: linalg.slogdet(a),
    "logdet": lambda a, b: torch.logdet(_positive(a)),
    "triangular_solve": lambda a, b: torch.triangular_solve(b, a)[0],
    "solve_triangular": lambda a, b: linalg.solve_triangular(a, b, upper=True),
}


def _inputs(*batch: int, transposed: bool = False) -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    a = torch.randn(*batch, 4, 4, generator=generator) + 3 * torch.eye(4)
    b = torch.randn(*batch, 4, 4, generator=generator)
    return [x.mT.contiguous().mT if transposed else x for x in (a, b)]


def _results(fn: Fn, inputs: list[Tensor]) -> list[tuple[Any, ...]]:
    """Results and gradients, and how they lie."""
    leaves = [x.clone(memory_format=torch.preserve_format).requires_grad_() for x in inputs]
    returned = fn(*leaves)
    tensors = [returned] if isinstance(returned, Tensor) else list(returned)
    roots = [t for t in tensors if t.requires_grad]
    weights = [torch.linspace(-1, 1, t.numel()).reshape(t.shape) for t in roots]
    gradients = torch.autograd.grad(roots, leaves, weights, allow_unused=True)
    return [(t, t.stride()) for t in (*tensors, *gradients) if t is not None]


def _check(found: list[tuple[Any, ...]], wanted: list[tuple[Any, ...]]) -> None:
    assert [strides for _, strides in found] == [strides for _, strides in wanted]
    for (one, _), (other, _) in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_gradients_of_decompositions_of_matrices(name: str, dynamic: bool) -> None:
    fn = FUNCTIONS[name]
    compiled = torch.compile(fn, backend="braze", dynamic=dynamic, fullgraph=True)
    for inputs in (_inputs(), _inputs(3, transposed=True)):
        _check(_results(compiled, inputs), _results(fn, inputs))


@pytest.mark.parametrize("name", ["inv", "cholesky", "solve", "lu_solve", "tensorinv"])
def test_the_second_level_keeps_graphs_with_effects(name: str) -> None:
    fn, entries = FUNCTIONS[name], real()
    wanted = _results(fn, _inputs(3))
    for _ in range(2):
        torch.compiler.reset()
        _check(_results(torch.compile(fn, backend=entries), _inputs(3)), wanted)
    assert sum(entries.loads.values()) > 0


def test_through_bytes() -> None:
    fn, options = FUNCTIONS["solve"], {"fx_compile_mode": "serialized"}
    compiled = torch.compile(fn, backend="braze", options=options)
    _check(_results(compiled, _inputs(3)), _results(fn, _inputs(3)))


def test_the_last_result_beside_an_effect_lies_as_eagers_does() -> None:
    def fn(image: Tensor, weight: Tensor, matrix: Tensor) -> tuple[Tensor, Tensor]:
        return linalg.inv(matrix), F.conv2d(F.conv2d(image, weight, padding=1), weight, padding=1)

    generator = torch.Generator().manual_seed(3)
    inputs = [
        torch.randn(2, 16, 32, 32, generator=generator),
        torch.randn(16, 16, 3, 3, generator=generator) / 12,
        _inputs()[0],
    ]
    _check(_results(torch.compile(fn, backend="braze"), inputs), _results(fn, inputs))


def test_a_second_derivative_beside_an_effect() -> None:
    def fn(a: Tensor, b: Tensor) -> Tensor:
        torch.ops.aten._linalg_check_errors(torch.zeros((), dtype=torch.int32), "here", is_matrix=True)
        return a * b.detach()

    a, b = (x.requires_grad_() for x in _inputs())
    (first,) = torch.autograd.grad(torch.compile(fn, backend="braze")(a, b).sum(), a, create_graph=True)
    torch.testing.assert_close(first, b.detach())


def test_a_failed_check_raises_with_gradients_too() -> None:
    compiled = torch.compile(FUNCTIONS["inv"], backend="braze")
    with pytest.raises(linalg.LinAlgError, match="singular"):
        compiled(torch.zeros(4, 4, requires_grad=True), torch.zeros(4, 4))
