"""Code that gets better while it runs."""

from __future__ import annotations

import threading

import pytest
import torch

from braze import config
from braze.artifact.compiled_graph import CompiledFxGraph
from braze.codegen.llvm.backend import BETTER_LEVEL
from braze.compile import progressive
from braze.compile.in_process import InProcessFxCompile
from braze.compile.progressive import ProgressiveFxCompile
from braze.compile.switching import SwitchingCode
from braze.errors import LLVMError
from braze.frontend.backend import make_backend
from tests.compile.requests import Kept, wait_for


def _f(x: torch.Tensor) -> torch.Tensor:
    return torch.softmax(x.sin() * 2, -1)


def test_better_code_takes_over_and_agrees() -> None:
    kept = Kept(ProgressiveFxCompile(InProcessFxCompile()))
    compiled = torch.compile(_f, backend=make_backend(kept))
    x = torch.randn(33, 70)
    torch.testing.assert_close(compiled(x), _f(x))
    (code,) = kept.codes
    assert isinstance(code, SwitchingCode)
    wait_for(lambda: code.final is not None)
    torch.testing.assert_close(compiled(x), _f(x))
    assert code.final is not None
    levels = [m.opt_level for m in code.final.variant().modules]
    assert levels[:-1] == [BETTER_LEVEL] * (len(levels) - 1)
    again = CompiledFxGraph.after_deserialization(code.prepare_for_serialization(), trusted=True)
    again.post_compile()
    torch.testing.assert_close(again.run([x])[0], _f(x))


def test_what_has_no_kernels_stays_as_it_is() -> None:
    kept = Kept(ProgressiveFxCompile(InProcessFxCompile()))
    compiled = torch.compile(lambda x, y: x @ y, backend=make_backend(kept))
    x = torch.randn(3, 3)
    torch.testing.assert_close(compiled(x, x), x @ x)
    assert isinstance(kept.codes[0], CompiledFxGraph)


def test_the_first_code_stays_where_the_better_one_fails(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(graph: CompiledFxGraph, options: object) -> CompiledFxGraph:
        raise LLVMError("no")

    monkeypatch.setattr(progressive, "improved", refuse)
    kept = Kept(ProgressiveFxCompile(InProcessFxCompile()))
    compiled = torch.compile(_f, backend=make_backend(kept))
    x = torch.randn(8, 8)
    compiled(x)
    wait_for(lambda: "keeps its first code" in caplog.text)
    torch.testing.assert_close(compiled(x), _f(x))


def test_training_and_random_numbers_survive_the_switch() -> None:
    def step(x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.dropout(x.tanh(), 0.5).sum()

    kept = Kept(ProgressiveFxCompile(InProcessFxCompile()))
    compiled = torch.compile(step, backend=make_backend(kept))
    gradients = []
    for _ in range(2):
        torch.manual_seed(3)
        x = torch.linspace(-2, 2, 1000).requires_grad_()
        compiled(x).backward()
        gradients.append(x.grad)
        wait_for(lambda: all(c.final for c in kept.codes if isinstance(c, SwitchingCode)))
    assert len(kept.codes) == 2
    torch.testing.assert_close(*gradients)


def test_calls_from_many_threads_while_it_switches() -> None:
    kept = Kept(ProgressiveFxCompile(InProcessFxCompile()))
    with config.patch(min_parallel_work=1):
        compiled = torch.compile(_f, backend=make_backend(kept))
        x = torch.randn(64, 64)
        want = _f(x)
        compiled(x)
    wrong: list[Exception] = []

    def call() -> None:
        try:
            for _ in range(300):
                torch.testing.assert_close(compiled(x), want)
        except AssertionError as error:
            wrong.append(error)

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
