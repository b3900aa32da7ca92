"""Eager operators at once, compiled code when it is ready."""

from __future__ import annotations

import logging
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import nn

from braze import config, inspect
from braze.artifact.compiled_graph import CompiledFxGraph
from braze.compile import background, out_of_process
from braze.compile import workers as pool
from braze.compile.background import AsyncFxCompile
from braze.compile.messages import Answer, Failure, pack_answer
from braze.compile.switching import SwitchingCode
from braze.errors import BrazeWarning, LoweringError, WorkerError
from braze.frontend.backend import make_backend
from tests.compile.requests import Kept, wait_for


class Held(Executor):
    """An executor that starts its jobs when it is told to."""

    def __init__(self) -> None:
        self._inner = ThreadPoolExecutor(2)
        self.go = threading.Event()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        def wait() -> Any:
            assert self.go.wait(60)
            return fn(*args, **kwargs)

        return self._inner.submit(wait)


class Says(Executor):
    """An executor that gives the same answer to everything, or raises it."""

    def __init__(self, answer: bytes | Exception) -> None:
        self.answer = answer

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        if isinstance(self.answer, Exception):
            future.set_exception(self.answer)
        else:
            future.set_result(self.answer)
        return future


class Watched(Kept):
    """Knows whether compiled code has taken over everywhere."""

    @property
    def switched(self) -> bool:
        return all(isinstance(code, SwitchingCode) and code.final is not None for code in self.codes)


@pytest.fixture
def held() -> Iterator[Held]:
    executor = Held()
    yield executor
    executor.go.set()


def _f(x: torch.Tensor) -> torch.Tensor:
    return torch.softmax(x.sin() * 2, -1)


def test_eager_first_then_compiled(held: Held) -> None:
    kept = Watched(AsyncFxCompile(held))
    compiled = torch.compile(_f, backend=make_backend(kept))
    x = torch.randn(9, 70)
    before = inspect.stats().kernels
    torch.testing.assert_close(compiled(x), _f(x))
    assert not kept.switched and inspect.stats().kernels == before
    held.go.set()
    wait_for(lambda: kept.switched)
    torch.testing.assert_close(compiled(x), _f(x))
    assert inspect.stats().kernels == before + 1


def test_random_numbers_are_the_same_before_and_after(held: Held) -> None:
    kept = Watched(AsyncFxCompile(held))
    compiled = torch.compile(lambda x: nn.functional.dropout(x, 0.5) + 1, backend=make_backend(kept))
    x = torch.ones(1000)
    found = []
    for _ in range(2):
        torch.manual_seed(11)
        found += [compiled(x), compiled(x)]
        held.go.set()
        wait_for(lambda: kept.switched)
    assert torch.equal(found[0], found[2]) and torch.equal(found[1], found[3])
    assert not torch.equal(found[0], found[1])


def test_mutation_and_running_statistics_survive_the_switch(held: Held) -> None:
    torch.manual_seed(1)
    module, reference = nn.BatchNorm1d(5), nn.BatchNorm1d(5)
    kept = Watched(AsyncFxCompile(held))
    compiled = torch.compile(module, backend=make_backend(kept))
    for step in range(4):
        x = torch.randn(16, 5, requires_grad=True)
        y = x.detach().clone().requires_grad_()
        compiled(x).pow(2).sum().backward()
        reference(y).pow(2).sum().backward()
        torch.testing.assert_close(x.grad, y.grad)
        if step == 1:
            held.go.set()
            wait_for(lambda: kept.switched)
    assert len(kept.codes) == 2
    assert module.running_mean is not None and reference.running_mean is not None
    torch.testing.assert_close(module.running_mean, reference.running_mean)
    torch.testing.assert_close(module.weight.grad, reference.weight.grad)


def test_sizes_that_the_code_does_not_admit_stay_with_eager(held: Held) -> None:
    kept = Watched(AsyncFxCompile(held))
    compiled = torch.compile(_f, backend=make_backend(kept), dynamic=True)
    held.go.set()
    for n in (2, 5, 64, 1):
        x = torch.randn(n, 33)
        torch.testing.assert_close(compiled(x), _f(x))
        wait_for(lambda: kept.switched)
        torch.testing.assert_close(compiled(x), _f(x))


def test_a_failure_is_reported_once_and_eager_goes_on() -> None:
    failure = pack_answer(Answer(failure=Failure.of(LoweringError("no such thing"))))
    kept = Watched(AsyncFxCompile(Says(failure)))
    compiled = torch.compile(_f, backend=make_backend(kept))
    x = torch.randn(4, 4)
    before = inspect.stats().eager_graphs
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        compiled(x)
        wait_for(lambda: inspect.stats().eager_graphs > before)
        for _ in range(3):
            torch.testing.assert_close(compiled(x), _f(x))
        wait_for(lambda: any(w.category is BrazeWarning for w in caught))
    assert len([w for w in caught if "no such thing" in str(w.message)]) == 1


def test_strict_mode_raises_from_the_next_call_on() -> None:
    failure = pack_answer(Answer(failure=Failure.of(LoweringError("no such thing"))))
    kept = Watched(AsyncFxCompile(Says(failure)))
    x = torch.randn(4, 4)

    def raises() -> bool:
        try:
            compiled(x)
        except LoweringError as error:
            return "no such thing" in str(error)
        return False

    with config.patch(strict=True):
        compiled = torch.compile(_f, backend=make_backend(kept))
        wait_for(raises)


def test_no_worker_means_a_thread_of_this_process() -> None:
    kept = Watched(AsyncFxCompile(Says(WorkerError("they all died"))))
    compiled = torch.compile(_f, backend=make_backend(kept))
    x = torch.randn(4, 4)
    compiled(x)
    wait_for(lambda: kept.switched)
    torch.testing.assert_close(compiled(x), _f(x))


def test_what_an_executor_refuses_is_compiled_in_a_thread() -> None:
    kept = Watched(AsyncFxCompile(Says(pack_answer(Answer(refused="it was sent to another compiler")))))
    compiled = torch.compile(_f, backend=make_backend(kept))
    x = torch.randn(4, 4)
    compiled(x)
    wait_for(lambda: kept.switched)
    torch.testing.assert_close(compiled(x), _f(x))


def test_rubbish_is_a_failure() -> None:
    kept = Watched(AsyncFxCompile(Says(b"rubbish")))
    compiled = torch.compile(_f, backend=make_backend(kept))
    x = torch.randn(4, 4)
    before = inspect.stats().eager_graphs
    compiled(x)
    wait_for(lambda: inspect.stats().eager_graphs > before)
    torch.testing.assert_close(compiled(x), _f(x))


def test_threads_that_call_while_it_switches(held: Held) -> None:
    kept = Watched(AsyncFxCompile(held))
    compiled = torch.compile(_f, backend=make_backend(kept))
    x = torch.randn(32, 32)
    want = _f(x)
    compiled(x)
    wrong: list[str] = []

    def call() -> None:
        for _ in range(400):
            try:
                torch.testing.assert_close(compiled(x), want)
            except AssertionError as error:
                wrong.append(str(error))

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    held.go.set()
    for thread in threads:
        thread.join()
    wait_for(lambda: kept.switched)
    assert not wrong


def test_a_thread_of_this_process_is_the_default_and_leaves_no_trace() -> None:
    usual = sys.getswitchinterval()
    kept = Watched(AsyncFxCompile())
    compiled = torch.compile(_f, backend=make_backend(kept))
    x = torch.randn(7, 9)
    torch.testing.assert_close(compiled(x), _f(x))
    wait_for(lambda: kept.switched)
    torch.testing.assert_close(compiled(x), _f(x))
    assert sys.getswitchinterval() == usual


def test_without_a_thread_a_graph_is_compiled_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "start", lambda *_, **__: None)
    kept = Watched(AsyncFxCompile())
    x = torch.randn(4, 4)
    torch.testing.assert_close(torch.compile(_f, backend=make_backend(kept))(x), _f(x))
    assert len(kept.codes) == 1 and isinstance(kept.codes[0], CompiledFxGraph)


def test_when_the_process_ends_eager_operators_are_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "start", lambda *_, **__: None)
    monkeypatch.setattr(background, "ending", lambda: True)
    kept = Watched(AsyncFxCompile())
    x = torch.randn(4, 4)
    before = inspect.stats().kernels
    torch.testing.assert_close(torch.compile(_f, backend=make_backend(kept))(x), _f(x))
    assert isinstance(kept.codes[0], SwitchingCode) and inspect.stats().kernels == before


def test_when_the_process_ends_no_worker_is_asked(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(out_of_process, "ending", lambda: True)
    monkeypatch.setattr(pool, "shared", lambda: pytest.fail("a worker is asked"))
    kept = Watched(out_of_process.OutOfProcessFxCompile())
    x = torch.randn(4, 4)
    torch.testing.assert_close(torch.compile(_f, backend=make_backend(kept))(x), _f(x))
    assert isinstance(kept.codes[0], CompiledFxGraph)
    assert not [
        record for record in caplog.records if record.name == "braze" and record.levelno > logging.INFO
    ]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_child_takes_turns_as_usual() -> None:
    """The thread for whose sake turns are short is the parent's."""
    usual = sys.getswitchinterval()
    with background._in_the_background():
        assert sys.getswitchinterval() < usual
        pid = os.fork()
        if pid == 0:
            os._exit(int(sys.getswitchinterval() != usual))
        assert os.waitpid(pid, 0)[1] == 0
    assert sys.getswitchinterval() == usual
