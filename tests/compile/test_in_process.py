"""The failure policy for a whole graph, and the graph run by eager operators."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.fx import GraphModule

from braze import config
from braze.cache.store import open_store
from braze.codegen.llvm import native
from braze.compile import in_process
from braze.compile.eager_graph import run_eagerly
from braze.compile.fx_compile import CompileRequest
from braze.config import Config
from braze.errors import BrazeWarning, FallbackError, LoweringError, WorkerError
from tests.frontend.passes.graphs import trace


def request_for(gm: GraphModule, options: Config | None = None) -> CompileRequest:
    inputs = tuple(n.meta["val"] for n in gm.graph.find_nodes(op="placeholder"))
    outputs: Any = gm.graph.output_node().args[0]
    return CompileRequest(gm, inputs, frozenset(), len(outputs), options or Config(), "inference", 7)


def sine(*inputs: torch.Tensor) -> CompileRequest:
    return request_for(trace(lambda x: x.sin() + 1, torch.randn(3)))


def test_a_failure_is_one_warning_that_says_why_and_the_graph_runs() -> None:
    error = LoweringError("no lowering for it", node="aten.sin.default", where="model.py:3: x.sin()")
    with pytest.warns(BrazeWarning) as caught:
        code = in_process.eager_or_raise(sine(), error)
    assert len(caught) == 1
    text = str(caught[0].message)
    for part in ("graph7_inference", "no lowering for it", "aten.sin.default", "model.py:3"):
        assert part in text
    x = torch.randn(3)
    torch.testing.assert_close(code.run([x])[0], x.sin() + 1)


def test_strict_raises_what_went_wrong() -> None:
    request = request_for(trace(lambda x: x + 1, torch.randn(3)), Config(strict=True))
    error = LoweringError("no lowering for it", node="aten.sin.default")
    with pytest.raises(LoweringError) as caught:
        in_process.eager_or_raise(request, error)
    assert caught.value is error
    with pytest.raises(
        FallbackError, match="graph7_inference could not be compiled: KeyError: 'x'"
    ) as wrapped:
        in_process.eager_or_raise(request, KeyError("x"))
    assert isinstance(wrapped.value.__cause__, KeyError)


def test_an_exception_of_any_kind_is_met_by_the_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    from braze.compile import pipeline

    def broken(request: CompileRequest) -> Any:
        raise ZeroDivisionError("in a pass")

    monkeypatch.setattr(pipeline, "compile_graph", broken)
    with pytest.warns(BrazeWarning, match="ZeroDivisionError: in a pass"):
        code = in_process.InProcessFxCompile().compile(sine())
    torch.testing.assert_close(code.run([torch.zeros(3)])[0], torch.ones(3))


def test_inputs_are_taken_from_the_list() -> None:
    inputs = [torch.randn(3)]
    run_eagerly(sine(), None).run(inputs)
    assert inputs == []


def test_outputs_lie_as_the_trace_said() -> None:
    gm = trace(lambda x: (x + 1, x * 2), torch.randn(3, 4))
    first, second = gm.graph.output_node().args[0]
    first.meta["val"] = first.meta["val"].t().contiguous().t()  # a promise that the operator does not keep
    x = torch.randn(3, 4)
    outputs = run_eagerly(request_for(gm), None).run([x])
    assert outputs[0].stride() == (1, 3)
    assert outputs[1].stride() == (4, 1)
    torch.testing.assert_close(list(outputs), [x + 1, x * 2])
    assert second.meta["val"].stride() == (4, 1)


def test_strides_of_dimensions_of_size_one_are_nobodys_business() -> None:
    gm = trace(lambda x: x.view(3, 1), torch.randn(3))
    node = gm.graph.output_node().args[0][0]
    node.meta["val"] = node.meta["val"].as_strided([3, 1], [1, 99])
    x = torch.randn(3)
    (result,) = run_eagerly(request_for(gm), None).run([x])
    assert result.data_ptr() == x.data_ptr()


def test_missing_and_constant_outputs_pass_through() -> None:
    gm = trace(lambda x: (x + 1, None), torch.randn(3))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result, none = run_eagerly(request_for(gm), None).run([torch.zeros(3)])
    assert none is None
    torch.testing.assert_close(result, torch.ones(3))


def test_what_a_dying_worker_cost_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel is a fallback in this process only: the next one compiles it."""
    real = native.compile_ir

    seen: list[str] = []

    def dying(text: str, **options: Any) -> Any:
        seen.append(text)
        if len(seen) > 1:
            return real(text, **options)
        future: Future[Any] = Future()
        future.set_exception(WorkerError("it died"))
        return future

    def f(x: torch.Tensor) -> torch.Tensor:
        return torch.sin(x) * 2

    x = torch.randn(50)
    with config.patch(cache=True, cache_dir=str(tmp_path)):
        monkeypatch.setattr(native, "compile_ir", dying)
        with pytest.warns(BrazeWarning, match="it died"):
            torch.testing.assert_close(torch.compile(f, backend="braze")(x), f(x))
        store = open_store(config.current())
        assert store is not None and not store.entries()
        monkeypatch.setattr(native, "compile_ir", real)
        torch.compiler.reset()
        with config.patch(strict=True):
            torch.testing.assert_close(torch.compile(f, backend="braze")(x), f(x))
        assert len(store.entries()) == 2
        store.close()


@pytest.mark.parametrize(
    "fn",
    [
        lambda z: z.conj().imag * 2 + 1,
        lambda z: z.conj().imag[1:].sum(),
        lambda z: z.imag.add_(1) * 2,
    ],
    ids=["view", "slice", "written"],
)
@pytest.mark.filterwarnings("ignore::braze.errors.BrazeWarning")
def test_what_is_negated_lazily_has_its_sign(fn: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """The memory of such a tensor holds the numbers with the other sign."""
    z = torch.randn(8, dtype=torch.complex64)
    torch.compiler.reset()
    with config.patch(cache=False):
        compiled = torch.compile(fn, backend="braze")
        for given in (z, z.conj()):
            torch.testing.assert_close(compiled(given.clone()), fn(given.clone()))

        def scaled(x: torch.Tensor) -> torch.Tensor:
            return x * 2 + 1

        y = z.conj().imag
        assert y.is_neg()
        torch.testing.assert_close(torch.compile(scaled, backend="braze")(y), scaled(y))


def _halves(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    x.add_(1)
    return x.chunk(2, 1)


def _repeats(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    x.add_(1)
    return x.expand(2, *x.shape), x[:1].expand(3, x.shape[1]), x


@pytest.mark.parametrize("fn", [_halves, _repeats])
@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("grad", [False, True])
def test_views_of_what_was_written_have_eagers_strides(
    fn: Callable[[torch.Tensor], tuple[torch.Tensor, ...]], dynamic: bool, grad: bool
) -> None:
    """AOTAutograd makes them again from the strides of what the graph returns."""
    x = torch.randn(4, 6, requires_grad=grad)
    torch.compiler.reset()
    with config.patch(cache=False, strict=True):
        ours = torch.compile(fn, backend="braze", dynamic=dynamic)(x * 1)
    theirs = fn(x * 1)
    torch.testing.assert_close(ours, theirs)
    assert [a.stride() for a in ours] == [a.stride() for a in theirs]


def test_a_result_that_repeats_itself_is_stored_once() -> None:
    torch.compiler.reset()
    with config.patch(cache=False, strict=True):
        fn = torch.compile(lambda x: (x * 2)[:1].expand(1000, 6), backend="braze")
    result = fn(torch.ones(4, 6))
    assert result.stride() == (0, 1)
    assert result.untyped_storage().nbytes() < 1000
    torch.testing.assert_close(result, torch.full((1000, 6), 2.0))
