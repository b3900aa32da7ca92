"""Run eager operators at once, and compiled code as soon as there is some."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass, replace

from braze import config
from braze.artifact.compiled_graph import CompiledFxGraph
from braze.artifact.output_code import OutputCode
from braze.compile.eager_graph import run_eagerly
from braze.compile.failing import given_up
from braze.compile.fx_compile import CompileRequest
from braze.compile.messages import unpack_answer
from braze.compile.remote_job import compile_request, load_compiler
from braze.compile.report import ledger, warn_of
from braze.compile.round_trip import compile_here, printed
from braze.compile.switching import SwitchingCode
from braze.errors import ArtifactError, BrazeError, UnserializableError, WorkerError
from braze.runtime.ending import busy, ending, fork_lock, start

__all__ = ["AsyncFxCompile"]

_log = logging.getLogger("braze")


@dataclass(frozen=True)
class AsyncFxCompile:
    """Returns a graph that runs by eager operators, and has it compiled meanwhile; compiled code takes over
    between two calls. ``executor`` compiles it; None: a thread of this process, which is done long before a
    new process would have loaded PyTorch, with LLVM in its workers.

    A graph that has no printed form is compiled here and now, and so is one for which no thread can be
    started. Where compilation fails, eager operators go on and one warning says so; in strict mode the calls
    that follow raise. When the process ends, eager operators are all that there is."""

    executor: Executor | None = None

    def compile(self, request: CompileRequest) -> OutputCode:
        try:
            # every output has to lie as eager operators leave it: what follows was compiled for that
            whole = replace(request, visible_outputs=len(request.gm.graph.output_node().args[0]))  # type: ignore[arg-type]
            payload = printed(whole).to_bytes()
        except UnserializableError as error:
            return compile_here(request, f"it has no printed form: {error.what}", logging.INFO)
        code = SwitchingCode(run_eagerly(request, None))
        arrival = _Arrival(request, code, payload, self.executor)
        # a thread that waits for an executor may have to wait for ever
        thread = start(f"braze-compile-{request.name}", arrival.run, hold=self.executor is None)
        if thread is None and not ending():
            return compile_here(request, "no thread can be started", logging.INFO)
        return code


_PATIENCE = 1.0
"""Seconds that a thread waits for the first call before it begins to compile."""
_loading = fork_lock()
"""Python's own locks of modules that are being imported would be held in a child."""
_FINE_INTERVAL = 2e-4
_interval_lock = fork_lock()
_running = 0
_usual_interval = 0.0


@contextmanager
def _in_the_background() -> Iterator[None]:
    """Inside this block threads of Python take turns every 0.2 ms, and not every 5: an eager operator gives
    up the interpreter's lock while it runs, and would wait that long after each to get it back."""
    global _running, _usual_interval
    with _interval_lock:
        if _running == 0:
            _usual_interval = sys.getswitchinterval()
            sys.setswitchinterval(min(_usual_interval, _FINE_INTERVAL))
        _running += 1
    try:
        yield
    finally:
        with _interval_lock:
            _running -= 1
            if _running == 0:
                sys.setswitchinterval(_usual_interval)


def _after_fork() -> None:
    """The threads in the background are the parent's."""
    global _running
    if _running > 0:
        _running = 0
        sys.setswitchinterval(_usual_interval)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@dataclass(frozen=True)
class _Arrival:
    """One compilation in the background; runs in a thread of its own."""

    request: CompileRequest
    code: SwitchingCode
    payload: bytes
    executor: Executor | None

    def run(self) -> None:
        with config.using(self.request.config):
            answer = self._awaited()
            with busy():  # the end of the process would find PyTorch's frames in this thread
                try:
                    self._take(answer)
                except Warning as raised:  # the filters make errors of warnings: whoever calls gets it
                    self.code.fail(raised)

    def _awaited(self) -> bytes | Exception | None:
        """What the executor answers or raises; None where nobody but this thread is to compile."""
        if self.executor is None:
            return None
        try:
            return self.executor.submit(compile_request, self.payload).result()
        except WorkerError as error:
            _log.warning("%s is compiled in this process: %s", self.request.name, error.what)
            return None
        except Exception as error:
            return error

    def _take(self, answer: bytes | Exception | None) -> None:
        try:
            if isinstance(answer, Exception):
                raise answer
            final = self._loaded(self._compiled() if answer is None else answer)
            self.code.switch_to(final)
        except Warning:
            raise
        except Exception as error:
            self._failed(error)
            return
        ledger.record_made(final.info)
        _log.info("%s: compiled code takes over from eager operators", self.request.name)
        warn_of(final.info.metrics.fallbacks)

    def _compiled(self) -> bytes:
        # whoever compiles a graph calls it: that call comes first, and then it is our turn
        self.code.wait_for_a_call(_PATIENCE)
        with _loading:
            load_compiler()
        with _in_the_background():
            return compile_request(self.payload)

    def _loaded(self, data: bytes) -> CompiledFxGraph:
        answer, artifact = unpack_answer(data)
        if answer.refused is not None and self.executor is not None:
            # whoever it was may be another compiler, or lack an operator that there is here
            _log.info("%s is compiled in this process: %s", self.request.name, answer.refused)
            with _in_the_background():
                answer, artifact = unpack_answer(compile_request(self.payload))
        answer.replay()
        if answer.failure is not None:
            raise answer.failure.error()
        if artifact is None:
            raise ArtifactError(answer.refused or "the answer is empty")
        final = CompiledFxGraph.after_deserialization(artifact, trusted=True)
        final.post_compile(min_parallel_work=self.request.config.min_parallel_work)
        return final

    def _failed(self, error: Exception) -> None:
        try:
            given_up(
                self.request.name, error, self.request.gm, strict=self.request.config.strict, runs="goes on"
            )
        except BrazeError as final:
            self.code.fail(final)
