"""Have graphs compiled by way of bytes: by worker processes, our own or those of any
`concurrent.futures.Executor`; or here, for tests, and for whoever wants to know whether a graph can leave the
process.

A file of its own: strategies that ask in bytes.
"""

from __future__ import annotations

import logging
from concurrent.futures import Executor
from dataclasses import dataclass

from braze import config
from braze.artifact.output_code import OutputCode
from braze.compile import workers as pool
from braze.compile.fx_compile import CompileRequest
from braze.compile.remote_job import compile_request
from braze.compile.round_trip import compile_here, printed, through
from braze.runtime.ending import ending

__all__ = ["OutOfProcessFxCompile", "SerializedFxCompile"]


@dataclass(frozen=True)
class OutOfProcessFxCompile:
    """Sends each graph to ``executor`` and waits for its code; None: this process's pool of compile workers.

    An executor from elsewhere runs `braze.compile.remote_job.compile_request` where Braze, PyTorch and
    llvmlite have the versions that they have here; its answers are machine code, which this process will run.
    It may take ``config.compile_timeout`` seconds for a graph. Whatever goes wrong with it, the graph is then
    compiled in this process."""

    executor: Executor | None = None

    def compile(self, request: CompileRequest) -> OutputCode:
        if self.executor is None and ending():
            return compile_here(request, "the process is ending", logging.INFO)

        def exchange() -> bytes:
            payload = printed(request).to_bytes()
            with config.using(request.config):  # the pool looks at its options there
                executor = self.executor or pool.shared()
                future = executor.submit(compile_request, payload)
            if isinstance(executor, pool.CompilePool):
                return future.result()  # which has deadlines of its own, and counts from a job's start
            try:
                return future.result(request.config.compile_timeout)
            finally:
                future.cancel()

        return through(request, exchange)


@dataclass(frozen=True)
class SerializedFxCompile:
    """Request, bytes, request, artefact, bytes, artefact; all in the calling thread."""

    def compile(self, request: CompileRequest) -> OutputCode:
        return through(request, lambda: compile_request(printed(request).to_bytes()))
