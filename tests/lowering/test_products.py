"""Products that oneDNN multiplies: which, and that they are right whatever the strides."""

from __future__ import annotations

import pytest
import torch

from braze._torch.onednn import linear_operator
from braze.ir.externs import ExternKernel
from tests.lowering.execute import lower, trace


def targets(fn: object, *inputs: torch.Tensor) -> list[str]:
    graph, fallbacks = lower(trace(fn, *inputs))  # type: ignore[arg-type]
    assert not fallbacks
    return [op.qualified_name for op in graph.operations if isinstance(op, ExternKernel)]


ONEDNN = ["mkldnn._linear_pointwise.default"]
AVAILABLE = linear_operator() is not None
X, Y, B = torch.randn(256, 128), torch.randn(128, 256), torch.randn(256)
OPERANDS = {
    "rows": (X, Y),
    "columns": (X.t().contiguous().t(), Y.t().contiguous().t()),
    "gaps": (torch.randn(256, 200)[:, :128], torch.randn(200, 300)[:128, 7:263]),
    "steps": (torch.randn(512, 128)[::2], Y),
}


@pytest.mark.parametrize("name", OPERANDS)
@pytest.mark.parametrize("bias", [None, B])
def test_large_products(name: str, bias: torch.Tensor | None) -> None:
    x, y = OPERANDS[name]
    inputs = (x, y) if bias is None else (x, y, bias)

    def fn(x: torch.Tensor, y: torch.Tensor, *b: torch.Tensor) -> torch.Tensor:
        return torch.addmm(b[0], x, y) if b else x @ y

    assert (targets(fn, *inputs) == ONEDNN) is AVAILABLE
    torch._dynamo.reset()
    compiled = torch.compile(fn, backend="braze")
    exact = fn(*[t.double() for t in inputs])
    error = (compiled(*inputs).double() - exact).abs().max()
    assert error <= 2 * (fn(*inputs).double() - exact).abs().max()


OTHERS = {
    "small": (lambda x, y: x @ y, (torch.randn(32, 16), torch.randn(16, 32))),
    "few rows": (lambda x, y: x @ y, (torch.randn(4, 1024), torch.randn(1024, 1024))),
    "double": (lambda x, y: x @ y, (X.double(), Y.double())),
    "scaled": (lambda x, y, b: torch.addmm(b, x, y, alpha=2), (X, Y, B)),
    "bias of rows": (lambda x, y, b: torch.addmm(b, x, y), (X, Y, torch.randn(256, 256))),
    "repeated": (lambda x, y: x.expand(256, 128) @ y, (torch.randn(1, 128), Y)),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_products_are_aten_s(name: str) -> None:
    fn, inputs = OTHERS[name]
    assert not set(targets(fn, *inputs)) & set(ONEDNN)
    torch._dynamo.reset()
    torch.testing.assert_close(torch.compile(fn, backend="braze")(*inputs), fn(*inputs))


def test_sizes_that_may_change_are_aten_s() -> None:
    graph, _ = lower(trace(lambda x, y: x @ y, X, Y, symbolic=True))
    assert not any(op.qualified_name in ONEDNN for op in graph.operations if isinstance(op, ExternKernel))
