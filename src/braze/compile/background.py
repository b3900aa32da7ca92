"""Run eager operators at once, and compiled code as soon as there is some."""

from __future__ import annotations

import logging
import threading
import warnings
from concurrent.futures import Executor, Future
from dataclasses import dataclass, replace

from braze import config
from braze.artifact.compiled_graph import CompiledFxGraph
from braze.artifact.output_code import OutputCode
from braze.artifact.schema import Fallback
from braze.compile.eager_graph import run_eagerly
from braze.compile.fx_compile import CompileRequest
from braze.compile.messages import unpack_answer
from braze.compile.remote_job import compile_request
from braze.compile.report import ledger, warn_of
from braze.compile.round_trip import compile_here, printed
from braze.compile.switching import SwitchingCode
from braze.compile.workers import pool
from braze.errors import ArtifactError, BrazeError, BrazeWarning, UnserializableError, WorkerError

__all__ = ["AsyncFxCompile"]

_log = logging.getLogger("braze")


@dataclass(frozen=True)
class AsyncFxCompile:
    """Returns a graph that runs by eager operators, and has ``executor`` (None: this process's pool of
    compile workers) compile it meanwhile; compiled code takes over between two calls.

    A graph that has no printed form is compiled here and now. Where compilation fails, eager operators go on
    and one warning says so; in strict mode the calls that follow raise."""

    executor: Executor | None = None

    def compile(self, request: CompileRequest) -> OutputCode:
        try:
            # every output has to lie as eager operators leave it: what follows was compiled for that
            whole = replace(request, visible_outputs=len(request.gm.graph.output_node().args[0]))  # type: ignore[arg-type]
            payload = printed(whole).to_bytes()
        except UnserializableError as error:
            return compile_here(request, f"it has no printed form: {error.what}", logging.INFO)
        code = SwitchingCode(run_eagerly(request, None))
        threading.Thread(
            target=_Arrival(request, code, payload, self.executor).run,
            name=f"braze-compile-{request.name}",
            daemon=True,
        ).start()
        return code


@dataclass(frozen=True)
class _Arrival:
    """One compilation in the background; runs in a thread of its own, which mostly waits."""

    request: CompileRequest
    code: SwitchingCode
    payload: bytes
    executor: Executor | None

    def run(self) -> None:
        with config.using(self.request.config):
            try:
                final = self._loaded(self._answer())
            except Exception as error:
                self._failed(error)
                return
            warn_of(final.info.metrics.fallbacks)
            ledger.record_made(final.info)
            self.code.switch_to(final)
            _log.info("%s: compiled code takes over from eager operators", self.request.name)

    def _answer(self) -> bytes:
        try:
            return self._submitted().result()
        except WorkerError as error:
            # no process can do it: a thread can, at the price of this process's own time
            _log.warning("%s is compiled in this process: %s", self.request.name, error.what)
            return compile_request(self.payload)

    def _submitted(self) -> Future[bytes]:
        executor = self.executor or pool.shared()
        return executor.submit(compile_request, self.payload)

    def _loaded(self, data: bytes) -> CompiledFxGraph:
        answer, artifact = unpack_answer(data)
        answer.replay()
        if answer.failure is not None:
            raise answer.failure.error()
        if artifact is None:
            raise ArtifactError(answer.refused or "the answer is empty")
        final = CompiledFxGraph.after_deserialization(artifact, trusted=True)
        final.post_compile(min_parallel_work=self.request.config.min_parallel_work)
        return final

    def _failed(self, error: Exception) -> None:
        what = error.what if isinstance(error, BrazeError) else f"{type(error).__name__}: {error}"
        if self.request.config.strict:
            self.code.fail(error)
            return
        ledger.record_eager(Fallback(self.request.name, what))
        warnings.warn(f"{self.request.name} goes on as eager PyTorch: {what}", BrazeWarning, stacklevel=1)
