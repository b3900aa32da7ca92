"""One LLVM worker as its parent sees it: the process, its pipes, the jobs it has been given."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

from braze.runtime import llvm_worker
from braze.runtime.llvm_worker import FrameReader, pack_frame
from braze.runtime.processes import enlarge_pipe, last_words

__all__ = ["CompiledObject", "Job", "WorkerProcess"]

_START_SECONDS = 60.0
_PIPE_BYTES = 1 << 20
_WORDS_BYTES = 4096


@dataclass(frozen=True)
class CompiledObject:
    """What LLVM made of one module: a relocatable object file, and on request the assembly and the optimised
    IR (empty otherwise); ``seconds`` is the time LLVM took."""

    object: bytes
    asm: str
    opt_ir: str
    seconds: float

    @property
    def nbytes(self) -> int:
        return len(self.object) + len(self.asm) + len(self.opt_ir)


@dataclass
class Job:
    """One module to compile; ``key`` identifies the text and every option."""

    key: bytes
    text: str
    cpu: str
    features: str
    opt_level: int
    codegen_level: int
    emit: frozenset[str]
    future: Future[CompiledObject]
    number: int = -1
    attempts: int = 0

    def frame(self) -> bytes:
        """The request, as `llvm_worker.py` reads it."""
        numbers = [str(self.opt_level), str(self.codegen_level), " ".join(sorted(self.emit)), self.text]
        head = [str(self.number), self.cpu, self.features]
        return pack_frame([text.encode() for text in head + numbers])


class WorkerProcess:
    """A running worker. Nothing here blocks, and the pool's lock is held at every call.

    ``jobs`` are those sent and not answered, the first of them being compiled now; ``deadline`` is when that
    one (or, before the first word of the worker, its start) is late; times are those of ``time.monotonic``.
    ``last_words`` is what a worker that is no more wrote last to its standard error, on one line.
    """

    def __init__(self, llvmlite_folder: str) -> None:
        self.jobs: deque[Job] = deque()
        self.unsent = bytearray()
        self.hello = False
        self.gone = False
        self.idle_since = time.monotonic()
        self.deadline = self.idle_since + _START_SECONDS
        self.last_words = ""
        self._limit = 0.0
        self._reader = FrameReader()
        self.requests = self.answers = -1
        self._errors = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115  lives as long as the worker
        theirs: list[int] = []
        try:
            request_read, self.requests = os.pipe()
            theirs.append(request_read)
            self.answers, answer_write = os.pipe()
            theirs.append(answer_write)
            enlarge_pipe(self.requests)
            enlarge_pipe(self.answers)
            os.set_blocking(self.requests, False)
            os.set_blocking(self.answers, False)
            script = Path(llvm_worker.__file__)
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(script), llvmlite_folder, str(os.getpid())],
                stdin=request_read,
                stdout=answer_write,
                stderr=self._errors,
                start_new_session=True,  # a Ctrl-C at the terminal is for the parent
            )
        except BaseException:
            self._errors.close()
            self._close()
            raise
        finally:
            for fd in theirs:
                os.close(fd)
        self.pid = self._process.pid

    def give(self, job: Job, limit: float) -> None:
        """Send a job, which may take ``limit`` seconds once it is the first."""
        frame = job.frame()
        self._limit = limit
        if not self.jobs and self.hello:
            self.deadline = time.monotonic() + limit
        self.jobs.append(job)
        self.unsent += frame
        self.send()

    def send(self) -> None:
        """Write what the pipe takes of `unsent`."""
        while self.unsent:
            try:
                written = os.write(self.requests, self.unsent)
            except BlockingIOError:
                return
            except BrokenPipeError:
                self.gone = True
                return
            del self.unsent[:written]

    def receive(self) -> list[tuple[Job, list[bytes]]]:
        """Read what is there: jobs with the fields of their answers. Notes the end of the worker in
        `gone`."""
        finished = []
        while True:
            try:
                data = os.read(self.answers, _PIPE_BYTES)
            except BlockingIOError:
                break
            if not data:
                self.gone = True
                break
            for frame in self._reader.feed(data):
                self.idle_since = time.monotonic()
                self.deadline = self.idle_since + self._limit
                if not self.hello:
                    self.hello = True
                    continue
                job = self.jobs.popleft()
                if int(frame[0]) != job.number:
                    self.jobs.appendleft(job)
                    self.gone = True
                    break
                finished.append((job, frame[1:]))
        return finished

    def kill(self) -> int:
        """End the process, keep its `last_words`, and close everything; the exit status."""
        if not self.gone:
            self._process.kill()
        try:
            code = self._process.wait(timeout=2.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        with self._errors:
            size = self._errors.seek(0, os.SEEK_END)
            self._errors.seek(max(0, size - _WORDS_BYTES))
            self.last_words = last_words(self._errors.read())
        self._close()
        return code

    def forget(self) -> None:
        """In a forked child: close our ends of the pipes, so that the parent's workers see when it ends."""
        self._errors.close()
        self._close()
        self._process.returncode = 0  # not our child: it must not be waited for

    def _close(self) -> None:
        for fd in (self.requests, self.answers):
            if fd >= 0:
                os.close(fd)
        self.requests = self.answers = -1
