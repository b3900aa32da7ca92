"""Requests to compile, as the frontend makes them, and a compiler that keeps what passes through it."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from typing import Any

import torch

from braze import config
from braze.artifact.output_code import OutputCode
from braze.compile.fx_compile import CompileRequest, FxCompile
from braze.frontend.backend import make_backend
from tests.frontend.recording import Recorder


def request_of(fn: Callable[..., Any], *inputs: Any, dynamic: bool = False, **options: Any) -> CompileRequest:
    """The request of a function's only graph."""
    recorder = Recorder()
    with config.patch(**options):
        recorder.optimize(fn, dynamic=dynamic)(*inputs)
    (request,) = recorder.requests
    return request


def wait_for(ready: Callable[[], object]) -> None:
    end = time.monotonic() + 60
    while not ready():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.01)


@dataclass
class Kept:
    """Compiles with ``inner``, and keeps what it gave."""

    inner: FxCompile
    codes: list[OutputCode] = field(default_factory=list)

    def compile(self, request: CompileRequest) -> OutputCode:
        self.codes.append(self.inner.compile(request))
        return self.codes[-1]

    def optimize(self, fn: Any, **keywords: Any) -> Any:
        return torch.compile(fn, backend=make_backend(self), **keywords)


class FakeExecutor(Executor):
    """Runs a function of its own on what is submitted: ``answer(job, payload)``, at once."""

    def __init__(self, answer: Callable[[Callable[[bytes], bytes], bytes], Any]) -> None:
        self.answer = answer
        self.payloads: list[bytes] = []

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        assert not kwargs and len(args) == 1 and type(args[0]) is bytes
        self.payloads.append(args[0])
        future: Future[Any] = Future()
        try:
            future.set_result(self.answer(fn, args[0]))
        except Exception as error:
            future.set_exception(error)
        return future
