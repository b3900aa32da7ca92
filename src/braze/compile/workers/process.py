"""One compile worker as its parent sees it: the process, its pipes, its job."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from concurrent.futures import Future
from dataclasses import dataclass

import msgspec

from braze.compile.workers import launch
from braze.compile.workers.frames import Frame, FrameError, FrameReader, Kind, pack
from braze.compile.workers.worker import Setup
from braze.errors import WorkerError
from braze.runtime import engines
from braze.runtime.processes import describe_exit, enlarge_pipe, last_words

__all__ = ["Job", "JobFuture", "WorkerProcess"]

_READ_BYTES = 1 << 20
_WORDS_BYTES = 8192
_WHERE_SECONDS = 0.3
_REAP_SECONDS = 2.0


class JobFuture(Future[bytes]):
    """The future of a job. A process forked from the one that submitted the job gets `WorkerError` for what
    was not finished at that time, instead of waiting for an answer that others receive."""

    def __init__(self) -> None:
        super().__init__()
        self._owner = os.getpid()
        self._settled = False

    def settle(self, outcome: bytes | WorkerError) -> None:
        """Set the result or the exception."""
        self._settled = True
        if isinstance(outcome, bytes):
            self.set_result(outcome)
        else:
            self.set_exception(outcome)

    def _must_be_ours(self) -> None:
        if not self._settled and self._owner != os.getpid():
            raise WorkerError(
                "this job was submitted by a process that forked this one, which gets no answer to it",
                hint="submit the job again in this process",
            )

    def result(self, timeout: float | None = None) -> bytes:
        self._must_be_ours()
        return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        self._must_be_ours()
        return super().exception(timeout)


@dataclass(eq=False)
class Job:
    """One job. ``limit``: seconds that a worker may take for it; ``attempts``: workers that were lost with
    it."""

    number: int
    name: str
    payload: bytes
    limit: float
    future: JobFuture
    attempts: int = 0


class WorkerProcess:
    """A running worker. Nothing here blocks for long, and one thread makes all calls: the kernel ends a
    worker with the thread that started it.

    ``job`` is what it works on; ``answered`` how many it has done; ``deadline`` when the job (or, before
    hello, the start) is late; ``idle_since`` when it had its last work; times are those of
    ``time.monotonic``. ``lost`` says why this worker cannot be used any more. Raises `OSError` where no
    process can be started.
    """

    def __init__(self, jobs: str, memory_mb: int, start_seconds: float, max_answer: int) -> None:
        self.job: Job | None = None
        self.answered = 0
        self.hello = False
        self.lost: str | None = None
        self.idle_since = time.monotonic()
        self.deadline = self.idle_since + start_seconds
        self._asked_where = False
        self._unsent = memoryview(b"")
        self._reader = FrameReader(max_answer)
        self._words = bytearray()
        self.requests = self.answers = self.errors = -1
        theirs: list[int] = []
        try:
            request_read, self.requests = os.pipe()
            theirs.append(request_read)
            self.answers, answer_write = os.pipe()
            theirs.append(answer_write)
            self.errors, error_write = os.pipe()
            theirs.append(error_write)
            for pipe in (self.requests, self.answers):
                enlarge_pipe(pipe)
            for pipe in (self.requests, self.answers, self.errors):
                os.set_blocking(pipe, False)
            self._process = subprocess.Popen(
                launch.command(json.dumps(launch.module_path())),
                stdin=request_read,
                stdout=answer_write,
                stderr=error_write,
                env=launch.environment(os.environ),
                start_new_session=True,  # Ctrl-C is for the parent; and it can be killed whole
            )
        except BaseException:
            self.close()
            raise
        finally:
            for fd in theirs:
                os.close(fd)
        self.pid = self._process.pid
        self._queue(
            pack(
                Kind.SETUP,
                body=msgspec.msgpack.encode(Setup(os.getpid(), jobs, memory_mb, engines.modules())),
            )
        )

    @property
    def idle(self) -> bool:
        return self.hello and self.job is None and self.lost is None

    @property
    def sending(self) -> bool:
        return len(self._unsent) > 0

    def give(self, job: Job) -> None:
        """Send a job to an idle worker."""
        self.job = job
        self._asked_where = False
        self.deadline = time.monotonic() + job.limit
        self._queue(pack(Kind.JOB, job.number, job.name, job.payload))

    def _queue(self, data: bytes) -> None:
        self._unsent = memoryview(data)
        self.send()

    def send(self) -> None:
        """Write what the pipe takes of what is unsent."""
        while self._unsent:
            try:
                written = os.write(self.requests, self._unsent)
            except BlockingIOError:
                return
            except BrokenPipeError:  # its other pipe tells of its end, after what it said before that
                self._unsent = memoryview(b"")
                return
            self._unsent = self._unsent[written:]

    def receive(self) -> list[Frame]:
        """The frames that have arrived. Notes in `lost` the end of the worker, and rubbish."""
        frames: list[Frame] = []
        while self.lost is None:
            try:
                data = os.read(self.answers, _READ_BYTES)
            except BlockingIOError:
                break
            if not data:
                self.lost = "died"
                break
            try:
                frames += self._reader.feed(data)
            except FrameError as error:
                self.lost = f"answered rubbish ({error})"
        return frames

    def listen(self) -> None:
        """Keep the end of what it wrote to its standard error."""
        while True:
            try:
                data = os.read(self.errors, _READ_BYTES)
            except BlockingIOError:
                return
            if not data:
                os.close(self.errors)
                self.errors = -1
                return
            self._words += data
            del self._words[:-_WORDS_BYTES]

    def late(self) -> None:
        """The deadline has passed: ask it where it is, and a moment later give it up."""
        if self.hello and not self._asked_where and hasattr(signal, "SIGUSR1"):
            self._asked_where = True
            self.deadline += _WHERE_SECONDS
            self._signal(signal.SIGUSR1)
        elif self.job is not None:
            self.lost = f"did not answer for {self.job.limit:g} s"
        else:
            self.lost = "did not start in time"

    def _signal(self, number: int, *, group: bool = False) -> None:
        if self._process.poll() is None:
            try:
                (os.killpg if group else os.kill)(self.pid, number)
            except ProcessLookupError:  # it ended this very moment
                return

    def end(self) -> str:
        """End the process with all that it started, and close everything. Its exit and last words."""
        died = self.lost == "died"
        if died:  # it is closing down: its own exit status says more than a signal of ours
            self._reap()
        self._signal(signal.SIGKILL, group=True)
        code = self._reap()
        if self.errors >= 0:
            self.listen()
        self.close()
        text = bytes(self._words)
        _, found, place = text.decode(errors="replace").rpartition("(most recent call first):")
        if self._asked_where and found:
            return "it was at " + " < ".join(line.strip() for line in place.strip().splitlines()[:4])
        how = f"{describe_exit(code)}: " if died and code is not None else ""
        return how + last_words(text)

    def _reap(self) -> int | None:
        try:
            return self._process.wait(timeout=_REAP_SECONDS)
        except subprocess.TimeoutExpired:  # stuck in the kernel; `subprocess` waits for it some other time
            return None

    def forget(self) -> None:
        """In a forked child: close our ends of the pipes; the process is our parent's."""
        for fd in (self.requests, self.answers, self.errors):
            with contextlib.suppress(
                OSError
            ):  # the thread that is not here any more may have been closing it
                os.close(fd)
        self._process.returncode = 0

    def close(self) -> None:
        """Close the pipes: the worker ends by itself when it sees that."""
        for fd in (self.requests, self.answers, self.errors):
            if fd >= 0:
                os.close(fd)
        self.requests = self.answers = self.errors = -1
