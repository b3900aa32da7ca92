"""A pool of warm compile workers, as a `concurrent.futures.Executor`.

::

    with CompilePool() as pool:
        answer = pool.submit(echo, b"...").result()

A job is a function of the table in `braze.compile.workers.jobs`, from bytes to bytes; nothing is pickled. One
thread starts the workers, feeds them, and watches them: each job has a deadline, and each worker a bound to
its memory. A worker that dies, hangs, or answers rubbish is replaced, and its job tried once more in a fresh
one; then the future raises `WorkerError` with the last words of the worker, and the caller compiles in its
own process. No future waits for ever. Where workers do not start at all, the pool says so at once.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import select
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from typing import ParamSpec, TypeVar, cast

import msgspec

from braze import config
from braze.compile.workers import sizing
from braze.compile.workers.frames import MAX_BODY, Frame, Kind
from braze.compile.workers.launch import package_root
from braze.compile.workers.process import Job, JobFuture, WorkerProcess
from braze.compile.workers.worker import Hello
from braze.errors import WorkerError
from braze.runtime.ending import at_end, start
from braze.runtime.processes import no_processes_reason

__all__ = ["DEFAULT_JOBS", "CompilePool", "prestart", "shared"]

P = ParamSpec("P")
T = TypeVar("T")
Outcome = tuple[Job, bytes | WorkerError]

DEFAULT_JOBS = "braze.compile.workers.jobs"

_START_SECONDS = 60.0
_START_ATTEMPTS = 3
_HINT = (
    "the graph can be compiled in this process; BRAZE_COMPILE_TIMEOUT and BRAZE_COMPILE_MEMORY_MB bound what "
    "a worker may take"
)


def _error(what: str) -> WorkerError:
    return WorkerError(what, hint=_HINT)


@dataclass
class _State:
    """What the lock guards. ``wanted``: workers to start without work; ``closing``: no more jobs;
    ``terminated``: what is unfinished is given up; ``broken``: why no worker can be had."""

    pending: deque[Job] = field(default_factory=deque)
    workers: list[WorkerProcess] = field(default_factory=list)
    wanted: int = 0
    numbers: int = 0
    failed_starts: int = 0
    start_failure: str = ""
    broken: str | None = None
    closing: bool = False
    terminated: str | None = None


class CompilePool(Executor):
    """Up to ``workers`` compile workers, started when there is work for them (a second and a half; see
    `prestart`) and ended after ``idle_seconds`` without.

    Args:
        workers: default ``config.compile_workers``, or by cores and free memory.
        timeout: seconds that a worker may take for a job; default ``config.compile_timeout`` at `submit`.
        memory_mb: MiB of address space that a worker may take beyond what it has when warm; default
            ``config.compile_memory_mb``.
        idle_seconds: default ``config.compile_idle_seconds``.
        start_seconds: seconds that a worker may take to start.
        max_answer: bytes that an answer may have; more is rubbish.
        attempts: workers that may be lost with a job before its future raises.
        jobs: the module with the table of jobs ``JOBS`` and the function ``warm``. Workers know this module's
            jobs and no other.

    May be used from any thread. In a process that was forked from its owner's it starts anew, without
    workers; futures of the parent's jobs raise `WorkerError` there.
    """

    def __init__(
        self,
        workers: int | None = None,
        *,
        timeout: float | None = None,
        memory_mb: int | None = None,
        idle_seconds: float | None = None,
        start_seconds: float = _START_SECONDS,
        max_answer: int = MAX_BODY,
        attempts: int = 2,
        jobs: str = DEFAULT_JOBS,
    ) -> None:
        options = config.current()
        self.size = workers or options.compile_workers or sizing.default_workers()
        self.timeout = timeout
        self.memory_mb: int = options.compile_memory_mb if memory_mb is None else memory_mb
        self.idle_seconds: float = options.compile_idle_seconds if idle_seconds is None else idle_seconds
        self.start_seconds = start_seconds
        self.max_answer = max_answer
        self.attempts = attempts
        self.jobs = jobs
        table = importlib.import_module(jobs).JOBS
        self._names = {function: name for name, function in table.items()}
        self._lock = threading.Lock()
        self._state = _State(broken=no_processes_reason())
        self._thread: threading.Thread | None = None
        self._wake_read = self._wake_write = -1
        _pools.add(self)

    # -- the caller's side ------------------------------------------------------------------------------
    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Have ``fn(payload)`` run in a worker; ``fn`` is one of the table of jobs, ``payload`` bytes.

        The future raises `WorkerError` where ``attempts`` workers were lost with the job, or where it raised
        an exception (which is not tried again). Raises `TypeError` for what is not a job, `WorkerError` where
        no worker can be started, `RuntimeError` after `shutdown`.
        """
        name = self._names.get(cast("Callable[[bytes], bytes]", fn))
        if name is None:
            raise TypeError(
                f"{fn!r} is not a job of {self.jobs}: workers run the functions of its table, by name"
            )
        if kwargs or len(args) != 1 or not isinstance(args[0], bytes):
            raise TypeError(f"job {name!r} takes one argument, of bytes")
        limit = float(config.current().compile_timeout) if self.timeout is None else self.timeout
        future = JobFuture()
        with self._lock:
            state = self._state
            if state.closing:
                raise RuntimeError("cannot submit a job after shutdown")
            if state.broken is not None:
                raise _error(f"compile workers cannot be had: {state.broken}")
            if not self._ensure_thread():
                raise _error("compile workers cannot be had: no thread can be started")
            state.numbers += 1
            job = Job(state.numbers, name, args[0], limit, future)
            state.pending.append(job)
            self._wake()
        return cast("Future[T]", future)

    def prestart(self, workers: int = 1) -> None:
        """Start workers, up to ``workers`` in all, without waiting for them."""
        with self._lock:
            state = self._state
            if state.closing or state.broken is not None:
                return
            state.wanted = max(state.wanted, min(workers, self.size))
            if self._ensure_thread():
                self._wake()

    def worker_pids(self) -> list[int]:
        """The process ids of the workers that are there, warm or starting."""
        with self._lock:
            return [w.pid for w in self._state.workers]

    def worker_rss(self) -> dict[int, int]:
        """Bytes in memory of each worker, by process id."""
        return sizing.worker_rss(self.worker_pids())

    def unusable_reason(self) -> str | None:
        """Why no worker can be had; None where one can, as far as is known."""
        with self._lock:
            return self._state.broken

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more jobs, finish those that there are, and end the workers. ``cancel_futures`` cancels
        those that no worker has yet. ``wait``: return when all is done."""
        with self._lock:
            self._state.closing = True
            unstarted = [job for job in self._state.pending if not job.attempts] if cancel_futures else []
            thread = self._thread
        for job in unstarted:
            job.future.cancel()
        with self._lock:
            self._wake()
        if wait and thread is not None and thread is not threading.current_thread():
            thread.join()

    def terminate(self, why: str = "the pool was terminated") -> None:
        """End the workers now. What is unfinished raises `WorkerError`."""
        with self._lock:
            self._state.closing = True
            self._state.terminated = why
            thread = self._thread
            self._wake()
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout=5.0)

    def forget(self) -> None:
        """After ``fork``, in the child: let go of the parent's workers and begin anew."""
        self._lock = threading.Lock()
        old, self._state = self._state, _State()
        self._state.closing, self._state.broken = old.closing, old.broken
        self._thread = None
        for worker in old.workers:
            worker.forget()
        self._close_wake()

    # -- the thread; the lock is held where the name says nothing else -----------------------------------
    def _ensure_thread(self) -> bool:
        """Whether there is a thread."""
        if self._thread is not None:
            return True
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        self._thread = start("braze-compile-pool", self._run)
        if self._thread is None:
            self._close_wake()
        return self._thread is not None

    def _wake(self) -> None:
        if self._wake_write >= 0:
            with contextlib.suppress(BlockingIOError):  # full: it will wake
                os.write(self._wake_write, b"x")

    def _close_wake(self) -> None:
        for fd in (self._wake_read, self._wake_write):
            if fd >= 0:
                os.close(fd)
        self._wake_read = self._wake_write = -1

    def _run(self) -> None:
        """The lock is not held."""
        try:
            self._serve()
        except BaseException as error:  # a defect of ours must not leave anybody waiting
            outcomes: list[Outcome] = []
            with self._lock:
                self._state.closing = True
                self._state.terminated = f"the thread of the compile workers failed: {error!r}"
                self._give_up(outcomes)
                self._thread = None
                self._close_wake()
            for job, outcome in outcomes:
                job.future.settle(outcome)
            raise

    def _serve(self) -> None:
        """Look after the workers until there is none, and nothing to do. The lock is not held."""
        ready: set[int] = set()
        while True:
            outcomes: list[Outcome] = []
            with self._lock:
                self._hear(ready, outcomes)
                self._check(outcomes)
                self._assign()
                self._start_workers()
                self._give_up(outcomes)
                done = not (self._state.workers or self._state.pending)
                if done:
                    self._thread = None
                    self._close_wake()
                else:
                    poller, timeout = self._poller()
            for job, outcome in outcomes:
                job.future.settle(outcome)
            if done:
                return
            ready = {fd for fd, _ in poller.poll(timeout)}

    def _poller(self) -> tuple[select.poll, int | None]:
        """What to wait for, and for how many milliseconds."""
        poller = select.poll()
        poller.register(self._wake_read, select.POLLIN)
        for worker in self._state.workers:
            poller.register(worker.answers, select.POLLIN)
            if worker.errors >= 0:
                poller.register(worker.errors, select.POLLIN)
            if worker.sending:
                poller.register(worker.requests, select.POLLOUT)
        until = [w.idle_since + self.idle_seconds if w.idle else w.deadline for w in self._state.workers]
        return poller, max(0, int((min(until) - time.monotonic()) * 1000) + 1) if until else None

    def _hear(self, ready: set[int], outcomes: list[Outcome]) -> None:
        """Read and write what the pipes give and take."""
        if self._wake_read in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(self._wake_read, 4096)
        for worker in self._state.workers:
            if worker.requests in ready:
                worker.send()
            if worker.errors in ready:
                worker.listen()
            if worker.answers in ready:
                for frame in worker.receive():
                    if not self._take(worker, frame, outcomes):
                        break

    def _take(self, worker: WorkerProcess, frame: Frame, outcomes: list[Outcome]) -> bool:
        """Whether the frame is what this worker should send now; if not, nothing after it is looked at."""
        worker.idle_since = time.monotonic()
        job = worker.job
        if not worker.hello and frame.kind is Kind.HELLO:
            try:
                root = msgspec.msgpack.decode(frame.body, type=Hello).root
            except msgspec.MsgspecError as error:
                worker.lost = f"answered rubbish ({error})"
                return False
            if os.path.realpath(root) != os.path.realpath(package_root()):
                worker.lost = f"found another braze, in {root}"
                return False
            worker.hello = True
            self._state.failed_starts = 0
        elif job is None or frame.number != job.number or frame.kind < Kind.ANSWER:
            worker.lost = f"answered rubbish ({frame.kind.name} to job {frame.number})"
            return False
        else:
            worker.job = None
            worker.answered += 1
            if frame.kind is Kind.ANSWER:
                outcomes.append((job, frame.body))
            elif frame.kind is Kind.RAISED:
                outcomes.append((job, _error(f"a compile job raised {frame.head}")))
            else:
                outcomes.append((job, _error(f"a compile worker refused a job: {frame.head}")))
        return True

    def _check(self, outcomes: list[Outcome]) -> None:
        """Let go of workers that died, hang, have been idle for long, or are too many now."""
        state = self._state
        now = time.monotonic()
        for worker in reversed(state.workers[:]):
            if worker.lost is None and not worker.idle and now >= worker.deadline:
                worker.late()
            if worker.lost is not None:
                state.workers.remove(worker)
                self._lose(worker, f"{worker.lost} ({worker.end()})", outcomes)
            elif worker.idle and (
                now >= worker.idle_since + self.idle_seconds or len(state.workers) > self.size
            ):
                state.workers.remove(worker)
                worker.end()

    def _lose(self, worker: WorkerProcess, how: str, outcomes: list[Outcome]) -> None:
        job = worker.job
        if not worker.hello:
            self._failed_start(how)
        elif job is not None:
            job.attempts += 1
            if job.attempts < self.attempts:
                self._state.pending.appendleft(job)
            else:
                lost = (
                    "a compile worker was" if self.attempts == 1 else f"{self.attempts} compile workers were"
                )
                outcomes.append((job, _error(f"{lost} lost with a job: {how}")))

    def _failed_start(self, how: str) -> None:
        state = self._state
        state.failed_starts += 1
        state.start_failure = how

    def _assign(self) -> None:
        """Give pending jobs to idle workers; one that a worker was lost with goes to a fresh one."""
        state = self._state
        if state.broken is not None or state.terminated is not None:
            return
        for job in list(state.pending):
            if not job.attempts and job.future.cancelled():
                state.pending.remove(job)
                job.future.set_running_or_notify_cancel()
                continue
            idle = [w for w in state.workers if w.idle]
            if job.attempts and state.failed_starts < _START_ATTEMPTS:
                idle = [w for w in idle if not w.answered]
            if not idle:
                continue
            if not job.attempts and not job.future.set_running_or_notify_cancel():
                state.pending.remove(job)
                continue
            state.pending.remove(job)
            # warm ones first, and of these the last used, so that the others come to their rest
            max(idle, key=lambda w: (w.answered > 0, w.idle_since)).give(job)

    def _start_workers(self) -> None:
        """As many as there are jobs that wait, or were asked for, and as there is room for."""
        state = self._state
        if state.failed_starts >= _START_ATTEMPTS and not state.workers:
            state.broken = f"they do not start: {state.start_failure}"
        while state.broken is None and state.terminated is None and state.failed_starts < _START_ATTEMPTS:
            starting = sum(not w.hello for w in state.workers)
            # what starts is for the first that wait; a job tried again takes the room of the worker it lost
            unserved = list(state.pending)[starting:]
            if not unserved and (state.closing or len(state.workers) >= state.wanted):
                break
            again = any(job.attempts for job in unserved)
            if len(state.workers) >= self.size or not (again or not state.workers or self._has_room()):
                break
            try:
                worker = WorkerProcess(self.jobs, self.memory_mb, self.start_seconds, self.max_answer)
            except OSError as error:
                self._failed_start(f"no process could be started: {error}")
            else:
                state.workers.append(worker)
        state.wanted = 0

    @staticmethod
    def _has_room() -> bool:
        return sizing.available_bytes() >= sizing.WORKER_BYTES

    def _give_up(self, outcomes: list[Outcome]) -> None:
        """Where the pool is broken, terminated, or done: fail what is left, and end the workers."""
        state = self._state
        if state.terminated is not None:
            left = [*state.pending, *(w.job for w in state.workers if w.job is not None)]
            reason = state.terminated
        elif state.broken is not None:
            left, reason = list(state.pending), f"compile workers cannot be had: {state.broken}"
        elif state.closing and not state.pending and all(w.job is None for w in state.workers):
            left, reason = [], ""
        else:
            return
        state.pending.clear()
        for job in left:
            if job.attempts or job.future.running() or job.future.set_running_or_notify_cancel():
                outcomes.append((job, _error(reason)))
        for worker in list(state.workers):
            if state.terminated is not None or worker.job is None:
                state.workers.remove(worker)
                worker.end()


_pools: weakref.WeakSet[CompilePool] = weakref.WeakSet()
_shared: CompilePool | None = None
_shared_lock = threading.Lock()


def shared() -> CompilePool:
    """This process's pool, with the options of whoever asked last. Workers that are there keep the memory
    that they were given."""
    global _shared
    options = config.current()
    with _shared_lock:
        if _shared is None:
            _shared = CompilePool()
        _shared.size = options.compile_workers or _default_workers()
        _shared.memory_mb = options.compile_memory_mb
        _shared.idle_seconds = options.compile_idle_seconds
        return _shared


@functools.cache
def _default_workers() -> int:
    """As many as the machine had room for when this was first asked."""
    return sizing.default_workers()


def prestart(workers: int = 1) -> None:
    """Start workers of `shared` without waiting for them; called when a compilation begins."""
    shared().prestart(workers)


def _at_end() -> None:
    for pool in list(_pools):
        pool.terminate("the interpreter is ending")


def _after_fork() -> None:
    """Locks may have been held by threads that are gone."""
    global _shared_lock
    _shared_lock = threading.Lock()
    for pool in list(_pools):
        pool.forget()


at_end(_at_end)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
