"""`braze.extern`: operators that are called whole by design, with an out-variant into planned memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

import braze
from braze.artifact.compiled_graph import CompiledFxGraph
from braze.artifact.output_code import OutputCode
from braze.compile.fx_compile import CompileRequest
from braze.compile.in_process import InProcessFxCompile
from braze.errors import FallbackError
from braze.frontend.backend import make_backend
from tests.extensions.library import OUT_CALLS, ops
from tests.support import watch

STRICT = {"strict": True}


@pytest.fixture(autouse=True)
def _taken_back() -> Iterator[None]:
    OUT_CALLS.clear()
    yield
    braze.unregister(ops.scaled)
    braze.unregister(ops.middle)


def compiled_with_plan(function: Callable[..., Any], *args: Any) -> tuple[Any, str]:
    codes: list[CompiledFxGraph] = []

    class Kept:
        def compile(self, request: CompileRequest) -> OutputCode:
            code = InProcessFxCompile().compile(request)
            assert isinstance(code, CompiledFxGraph)
            codes.append(code)
            return code

    result = torch.compile(function, backend=make_backend(Kept()), options=STRICT)(*args)
    return result, str(codes[0].info.variants[0].plan)


def chain(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return ops.scaled(ops.scaled(x + 1, y) * 2, y).sin()


def test_it_is_no_fallback() -> None:
    x, y = torch.randn(2, 8, 8)
    with pytest.raises(Exception, match="would run as eager PyTorch") as caught:
        torch.compile(chain, backend="braze", options=STRICT)(x, y)
    assert isinstance(getattr(caught.value, "inner_exception", caught.value), FallbackError)
    braze.extern(ops.scaled, reason="the library's own kernel")
    with watch() as stats:
        got = torch.compile(chain, backend="braze", options=STRICT)(x, y)
    torch.testing.assert_close(got, chain(x, y))
    assert not stats.fallbacks and sum(stats.externs.values()) == 2


def test_the_out_variant_writes_to_planned_memory() -> None:
    braze.extern(ops.scaled, out=ops.scaled_out)
    x, y = torch.randn(2, 128, 256)
    got, plan = compiled_with_plan(chain, x, y)
    assert OUT_CALLS == ["scaled_out"] * 2
    torch.testing.assert_close(got, chain(x, y))
    calls = [line for line in plan.splitlines() if "braze_tests_extensions" in line]
    assert len(calls) == 2 and all("scaled_out" in line and "out=" in line for line in calls), plan


def test_small_results_and_dynamic_sizes() -> None:
    braze.extern(ops.scaled, out=ops.scaled_out)
    compiled = torch.compile(chain, backend="braze", options=STRICT, dynamic=True)
    for n in (3, 200, 400):
        x, y = torch.randn(2, n, n + 1)
        torch.testing.assert_close(compiled(x, y), chain(x, y))


def test_beside_a_lowering_that_declines() -> None:
    braze.extern(ops.middle)

    @braze.lowering(ops.middle)
    def middle(x: Any) -> Any:
        raise NotImplementedError("never")

    x = torch.randn(4, 6)
    got = torch.compile(lambda x: ops.middle(x + 1) * 2, backend="braze", options=STRICT)(x)
    torch.testing.assert_close(got, ops.middle(x + 1) * 2)
