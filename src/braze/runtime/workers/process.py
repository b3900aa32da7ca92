"""One worker as its parent sees it: how it is started, its pipes, its jobs, its end.

A worker is a new interpreter of the same Python (``-I``: no user's site folder, no ``PYTHON*`` variables, not
the folder of a script). The parent's ``__main__`` is never imported.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

from braze.errors import WorkerError
from braze.runtime.workers.worker import Frame, FrameError, FrameReader, Kind, Setup, pack

__all__ = [
    "PACKAGE",
    "Job",
    "JobFuture",
    "WorkerProcess",
    "describe_exit",
    "module_path",
    "no_processes_reason",
]

PACKAGE = Path(__file__).absolute().parents[2]
"""The folder of the package `braze`."""

_READ_BYTES = 1 << 20
_WORDS_BYTES = 8192
_WHERE_SECONDS = 0.3
_REAP_SECONDS = 2.0
_PIPE_BYTES = 1 << 20
_SET_PIPE_SIZE = 1031  # F_SETPIPE_SZ, which fcntl does not name on every Python
_TELLING = ("Assertion", "LLVM ERROR", "Fatal Python error", "terminate called", "what():")

_BOOTSTRAP = "import sys; sys.path.insert(0, sys.argv[1]); from worker import main; main(sys.argv[2])"

# Options and log settings come with each job. Coverage and TorchInductor have no business in a worker.
_DROPPED = (
    "BRAZE_",
    "PYTHON",
    "TORCH_LOGS",
    "TORCH_TRACE",
    "TORCHINDUCTOR_",
    "TORCH_COMPILE_DEBUG",
    "COV_",
    "COVERAGE_",
)


def no_processes_reason() -> str | None:
    """Why this interpreter can start no worker at all; None where it can."""
    if os.name != "posix":
        return f"worker processes are not supported on {sys.platform}"
    if not sys.executable or getattr(sys, "frozen", False):
        return "Python's executable is not known"
    return None


def module_path() -> list[str]:
    """``sys.path`` in absolute terms, and the folders from which Braze and torch were really loaded: with it
    a worker finds the same ones in a virtual environment, an editable installation, under pytest, in a
    notebook, or by ``PYTHONPATH``."""
    path = [os.path.abspath(entry) for entry in sys.path if isinstance(entry, str)]
    path.append(str(PACKAGE.parent))
    torch = sys.modules.get("torch")
    if torch is not None and torch.__file__ is not None:
        path.append(str(Path(torch.__file__).absolute().parents[1]))
    return list(dict.fromkeys(path))


def command(setup: Setup) -> list[str]:
    """What to run. Where the worker needs no path but an interpreter's own, it starts without ``site``."""
    flags = ["-I"] if setup.path is not None else ["-I", "-S"]
    if sys.dont_write_bytecode:
        flags.append("-B")
    if sys.pycache_prefix is not None:
        flags += ["-X", f"pycache_prefix={sys.pycache_prefix}"]
    return [sys.executable, *flags, "-c", _BOOTSTRAP, str(Path(__file__).parent), json.dumps(setup._asdict())]


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The parent's variables, less those that could change what a worker does unnoticed."""
    kept = {name: value for name, value in environ.items() if not name.startswith(_DROPPED)}
    kept["OMP_NUM_THREADS"] = "1"  # a worker's torch computes next to nothing; compiled code does not know it
    return kept


def describe_exit(code: int) -> str:
    """An exit status of `subprocess`'s in words: ``SIGKILL``, ``exit status 3``."""
    if code >= 0:
        return f"exit status {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


def _last_words(errors: str) -> str:
    """On one line, what of the end of a process's standard error says why it ended."""
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    telling = [line for line in lines if any(word in line for word in _TELLING)]
    return " ".join(telling or lines[-3:]) or "it said nothing"


def _enlarge(pipe: int) -> None:
    """Ask for a pipe that holds 1 MiB, so that large messages take fewer turns."""
    if sys.platform == "linux":
        import fcntl  # noqa: PLC0415  not there on every platform

        with contextlib.suppress(OSError):  # the user's share of pipe memory is used up: a smaller one works
            fcntl.fcntl(pipe, _SET_PIPE_SIZE, _PIPE_BYTES)


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
    """A running worker. Nothing here blocks for long, and the pool's lock is held at every call.

    ``jobs`` are those sent and not answered, of which it does the first; ``answered`` how many it has done;
    ``deadline`` when the first job (or, before hello, the start) is late; ``idle_since`` when it had its last
    work; times are those of ``time.monotonic``. ``lost`` says why this worker cannot be used any more, and
    ``code``, once it has ended, how it exited. Raises `OSError` where no process can be started.
    """

    def __init__(self, setup: Setup, start_seconds: float, max_answer: int) -> None:
        self.jobs: deque[Job] = deque()
        self.answered = 0
        self.hello = False
        self.lost: str | None = None
        self.code: int | None = None
        self.idle_since = time.monotonic()
        self.deadline = self.idle_since + start_seconds
        self._asked_where = False
        self._unsent = bytearray()
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
                _enlarge(pipe)
            for pipe in (self.requests, self.answers, self.errors):
                os.set_blocking(pipe, False)
            self._process = subprocess.Popen(
                command(setup),
                stdin=request_read,
                stdout=answer_write,
                stderr=error_write,
                env=environment(os.environ),
                start_new_session=True,  # Ctrl-C is for the parent; and it can be killed whole
            )
        except BaseException:
            self._close()
            raise
        finally:
            for fd in theirs:
                os.close(fd)
        self.pid = self._process.pid

    @property
    def idle(self) -> bool:
        return self.hello and not self.jobs and self.lost is None

    @property
    def sending(self) -> bool:
        return len(self._unsent) > 0

    def give(self, job: Job) -> None:
        """Send a job."""
        self.jobs.append(job)
        if self.hello and len(self.jobs) == 1:
            self._begin()
        self._unsent += pack(Kind.JOB, job.number, job.name, job.payload)
        self.send()

    def _begin(self) -> None:
        """The time of the first job runs from now on."""
        self.idle_since = time.monotonic()
        self._asked_where = False
        if self.jobs:
            self.deadline = self.idle_since + self.jobs[0].limit

    def greeted(self) -> None:
        """It has said hello."""
        self.hello = True
        self._begin()

    def finished(self) -> None:
        """It has answered its first job."""
        self.jobs.popleft()
        self.answered += 1
        self._begin()

    def send(self) -> None:
        """Write what the pipe takes of what is unsent."""
        while self._unsent:
            try:
                written = os.write(self.requests, self._unsent)
            except BlockingIOError:
                return
            except BrokenPipeError:  # its other pipe tells of its end, after what it said before that
                self._unsent.clear()
                return
            del self._unsent[:written]

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
        elif self.hello:
            self.lost = f"did not answer for {self.jobs[0].limit:g} s"
        else:
            self.lost = "did not start in time"

    def _signal(self, number: int, *, group: bool = False) -> None:
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # it ended this very moment
                (os.killpg if group else os.kill)(self.pid, number)

    def end(self) -> str:
        """End the process with all that it started, and close everything. Its exit and last words."""
        died = self.lost == "died"
        if died:  # it is closing down: its own exit status says more than a signal of ours
            self._reap()
        self._signal(signal.SIGKILL, group=True)
        self.code = self._reap()
        if self.errors >= 0:
            self.listen()
        self._close()
        text = self._words.decode(errors="replace")
        _, found, place = text.rpartition("(most recent call first):")
        if self._asked_where and found:
            return "it was at " + " < ".join(line.strip() for line in place.strip().splitlines()[:4])
        how = f"{describe_exit(self.code)}: " if died and self.code is not None else ""
        return how + _last_words(text)

    def _reap(self) -> int | None:
        try:
            return self._process.wait(timeout=_REAP_SECONDS)
        except subprocess.TimeoutExpired:  # stuck in the kernel; `subprocess` waits for it some other time
            return None

    def forget(self) -> None:
        """In a forked child: close our ends of the pipes; the process is our parent's."""
        for fd in (self.requests, self.answers, self.errors):
            with contextlib.suppress(OSError):  # the thread that is not here any more may have closed it
                os.close(fd)
        self._process.returncode = 0

    def _close(self) -> None:
        """Close the pipes: the worker ends by itself when it sees that."""
        for fd in (self.requests, self.answers, self.errors):
            if fd >= 0:
                os.close(fd)
        self.requests = self.answers = self.errors = -1
