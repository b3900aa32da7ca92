"""The pool of worker processes, as a `concurrent.futures.Executor`.

A job is a function of a table, from bytes to bytes, and a message names it by its key there; nothing is
pickled. One thread feeds the workers and watches them: each job has a deadline, and each worker may have a
bound to its memory. A worker that dies, hangs, or answers rubbish is replaced. No future waits for ever.
Where workers do not start at all, the pool says so at once.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import select
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import ClassVar, ParamSpec, TypeVar, cast

from braze.errors import NoWorkersError, WorkerError
from braze.runtime.ending import at_end, start
from braze.runtime.workers.process import PACKAGE, Job, JobFuture, WorkerProcess, no_processes_reason
from braze.runtime.workers.worker import MAX_BODY, Frame, Kind, Setup

__all__ = ["WorkerPool"]

P = ParamSpec("P")
T = TypeVar("T")
Outcome = tuple[Job, bytes | WorkerError]

_START_SECONDS = 60.0
_START_ATTEMPTS = 3
_INTERRUPTED = "the thread that submitted a job was interrupted"


class WorkerPool(Executor):
    """Up to ``size`` workers, started when there is work for them (or by `prestart`) and ended after
    ``idle_seconds`` without. What kind of workers they are a class below this one says.

    Args:
        size: workers at most.
        idle_seconds: seconds after which a worker without work ends.
        start_seconds: seconds that a worker may take to start.
        max_answer: bytes that an answer may have; more is rubbish.
        attempts: workers that may be lost with a job before its future raises.
        jobs: the module with the table of jobs ``JOBS``. Workers know this module's jobs and no other.

    May be used from any thread. In a process that was forked from its owner's it starts anew, without
    workers; futures of the parent's jobs raise `WorkerError` there.
    """

    noun: ClassVar[str] = "worker"
    """What one of them is called,"""
    article: ClassVar[str] = "a"
    """and what comes before that."""
    hint: ClassVar[str | None] = None
    """What to do where there are none."""
    depth: ClassVar[int] = 1
    """Jobs that a worker may have at once. More than one: the next one lies in its pipe, also while it
    starts, so that it never waits for this process to get round to it."""
    tied: ClassVar[bool] = False
    """The kernel ends workers with the thread that started them: that is the pool's own."""

    def __init__(
        self,
        size: int,
        *,
        jobs: str,
        idle_seconds: float,
        start_seconds: float = _START_SECONDS,
        max_answer: int = MAX_BODY,
        attempts: int = 2,
    ) -> None:
        self.size = size
        self.jobs = jobs
        self.idle_seconds = idle_seconds
        self.start_seconds = start_seconds
        self.max_answer = max_answer
        self.attempts = attempts
        self._names = {function: name for name, function in importlib.import_module(jobs).JOBS.items()}
        self._closing = False
        self._broken = no_processes_reason()
        self._reset()
        _pools.add(self)

    def _reset(self) -> None:
        """What the lock guards. ``wanted``: workers to start without work; ``closing``: no more jobs;
        ``terminated``: what is unfinished is given up; ``broken``: why no worker can be had."""
        self._lock = threading.Lock()
        self._pending: deque[Job] = deque()
        self._workers: list[WorkerProcess] = []
        self._wanted = 0
        self._numbers = 0
        self._failed_starts = 0
        self._start_failure = ""
        self._terminated: str | None = None
        self._thread: threading.Thread | None = None
        self._wake_read = self._wake_write = -1

    # -- what kinds of workers differ in -----------------------------------------------------------------
    def setup(self) -> Setup:
        """What a worker that starts now is told."""
        raise NotImplementedError

    def limit(self) -> float:
        """Seconds that a worker may take for a job that is submitted now."""
        raise NotImplementedError

    def has_room(self) -> bool:
        """Whether another worker than the first may be started now."""
        return True

    def is_tried_again(self, job: Job, worker: WorkerProcess) -> bool:
        """Whether a job goes to another worker after it lost ``worker``."""
        return job.attempts < self.attempts

    # -- the caller's side ------------------------------------------------------------------------------
    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Have ``fn(payload)`` run in a worker; ``fn`` is one of the table of jobs, ``payload`` bytes.

        The future raises `WorkerError` where workers were lost with the job, or where it raised an exception
        (which is not tried again), and `NoWorkersError` where none ever had it. Raises `TypeError` for what
        is not a job, `NoWorkersError` where no worker can be started, `RuntimeError` after `shutdown`.
        """
        name = self._names.get(cast("Callable[[bytes], bytes]", fn))
        if name is None:
            raise TypeError(
                f"{fn!r} is not a job of {self.jobs}: workers run the functions of its table, by name"
            )
        if kwargs or len(args) != 1 or not isinstance(args[0], bytes):
            raise TypeError(f"job {name!r} takes one argument, of bytes")
        future = JobFuture()
        with self._lock:
            if self._closing:
                raise RuntimeError("cannot submit a job after shutdown")
            if self._broken is not None:
                raise self._none(self._broken)
            if not self._ensure_thread():
                raise self._none("no thread can be started")
            self._numbers += 1
            job = Job(self._numbers, name, args[0], self.limit(), future)
            self._pending.append(job)
            try:
                self._dispatch()
            except BaseException:  # an interruption: a job that no worker has is nobody's any more
                given = [each for worker in self._workers for each in worker.jobs]
                self._pending = deque([j for j in self._pending if j is not job and j not in given])
                if job not in given:
                    future.settle(self._error(_INTERRUPTED))
                self._wake()
                raise
            self._wake()
        return cast("Future[T]", future)

    def prestart(self, workers: int = 1) -> None:
        """Start workers, up to ``workers`` in all, without waiting for them."""
        with self._lock:
            if self._closing or self._broken is not None:
                return
            self._wanted = max(self._wanted, min(workers, self.size))
            if self._ensure_thread():
                self._dispatch()
                self._wake()

    def worker_pids(self) -> list[int]:
        """The process ids of the workers that are there, warm or starting."""
        with self._lock:
            return [w.pid for w in self._workers]

    def unusable_reason(self) -> str | None:
        """Why no worker can be had; None where one can, as far as is known."""
        with self._lock:
            return self._broken

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more jobs, finish those that there are, and end the workers. ``cancel_futures`` cancels
        those that no worker has yet. ``wait``: return when all is done."""
        with self._lock:
            self._closing = True
            unstarted = [job for job in self._pending if not job.attempts] if cancel_futures else []
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
            self._closing = True
            self._terminated = why
            thread = self._thread
            self._wake()
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout=5.0)

    def forget(self) -> None:
        """After ``fork``, in the child: let go of the parent's workers and begin anew."""
        workers, wake = self._workers, (self._wake_read, self._wake_write)
        self._reset()
        for worker in workers:
            worker.forget()
        for fd in wake:
            with contextlib.suppress(OSError):
                os.close(fd)

    # -- the thread; the lock is held where the name says nothing else -----------------------------------
    def _error(self, what: str) -> WorkerError:
        return WorkerError(what, hint=self.hint)

    def _none(self, why: str) -> NoWorkersError:
        return NoWorkersError(f"{self.noun}s cannot be had: {why}", hint=self.hint)

    def _ensure_thread(self) -> bool:
        """Whether there is a thread."""
        if self._thread is not None:
            return True
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        self._thread = start(f"braze-{self.noun.split()[0].lower()}-pool", self._run)
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
        """The lock is not held. Whatever happens to the thread, nobody is left waiting."""
        try:
            self._serve()
        except BaseException as error:
            outcomes: list[Outcome] = []
            with self._lock:
                self._give_up_all(f"the thread of the {self.noun}s failed: {error!r}", outcomes)
                self._thread = None
                self._close_wake()
            self._settle(outcomes)
            raise

    @staticmethod
    def _settle(outcomes: list[Outcome]) -> None:
        """The lock is not held: callbacks of futures may come back."""
        for job, outcome in outcomes:
            job.future.settle(outcome)

    def _serve(self) -> None:
        """Look after the workers until there is none, and nothing to do. The lock is not held."""
        ready: set[int] = set()
        while True:
            outcomes: list[Outcome] = []
            with self._lock:
                self._hear(ready, outcomes)
                self._check(outcomes)
                self._dispatch()
                self._give_up(outcomes)
                done = not (self._workers or self._pending)
                if done:
                    self._thread = None
                    self._close_wake()
                else:
                    poller, timeout = self._poller()
            self._settle(outcomes)
            if done:
                return
            ready = {fd for fd, _ in poller.poll(timeout)}

    def _poller(self) -> tuple[select.poll, int | None]:
        """What to wait for, and for how many milliseconds."""
        poller = select.poll()
        poller.register(self._wake_read, select.POLLIN)
        for worker in self._workers:
            poller.register(worker.answers, select.POLLIN)
            if worker.errors >= 0:
                poller.register(worker.errors, select.POLLIN)
            if worker.sending:
                poller.register(worker.requests, select.POLLOUT)
        until = [w.idle_since + self.idle_seconds if w.idle else w.deadline for w in self._workers]
        return poller, max(0, int((min(until) - time.monotonic()) * 1000) + 1) if until else None

    def _hear(self, ready: set[int], outcomes: list[Outcome]) -> None:
        """Read and write what the pipes give and take."""
        if self._wake_read in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(self._wake_read, 4096)
        for worker in self._workers:
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
        job = worker.jobs[0] if worker.jobs else None
        if not worker.hello and frame.kind is Kind.HELLO:
            package = os.path.dirname(frame.head)
            if package and os.path.realpath(package) != os.path.realpath(PACKAGE):
                worker.lost = f"found another braze, in {os.path.dirname(package)}"
                return False
            worker.greeted()
            self._failed_starts = 0
        elif job is None or frame.number != job.number or frame.kind < Kind.ANSWER:
            worker.lost = f"answered rubbish ({frame.kind.name} to job {frame.number})"
            return False
        else:
            worker.finished()
            if frame.kind is Kind.ANSWER:
                outcomes.append((job, frame.body))
            elif frame.kind is Kind.RAISED:
                outcomes.append(
                    (job, self._error(f"a job of {self.article} {self.noun} raised {frame.head}"))
                )
            else:
                outcomes.append((job, self._error(f"{self.article} {self.noun} refused a job: {frame.head}")))
        return True

    def _check(self, outcomes: list[Outcome]) -> None:
        """Let go of workers that died, hang, have been idle for long, or are too many now."""
        now = time.monotonic()
        for worker in reversed(self._workers[:]):
            if worker.lost is None and not worker.idle and now >= worker.deadline:
                worker.late()
            if worker.lost is not None:
                self._workers.remove(worker)
                self._lose(worker, f"{worker.lost} ({worker.end()})", outcomes)
            elif worker.idle and (
                now >= worker.idle_since + self.idle_seconds or len(self._workers) > self.size
            ):
                self._workers.remove(worker)
                worker.end()

    def _lose(self, worker: WorkerProcess, how: str, outcomes: list[Outcome]) -> None:
        """What it was doing is tried again or has failed; what lay in its pipe goes to the others."""
        if not worker.hello:
            self._failed_start(how)
        elif worker.jobs:
            job = worker.jobs[0]
            job.attempts += 1
            if not self.is_tried_again(job, worker):
                worker.jobs.popleft()
                lost = f"{self.article} {self.noun} was"
                if job.attempts > 1:
                    lost = f"{job.attempts} {self.noun}s were"
                outcomes.append((job, self._error(f"{lost} lost with a job: {how}")))
        self._pending.extendleft(reversed(worker.jobs))
        worker.jobs.clear()

    def _failed_start(self, how: str) -> None:
        self._failed_starts += 1
        self._start_failure = how

    def _dispatch(self) -> None:
        """Give pending jobs to workers, and start some where there are too few."""
        if self._broken is not None or self._terminated is not None:
            return
        self._assign(1)
        if not self.tied or threading.current_thread() is self._thread:
            self._start_workers()
            if self.depth > 1:
                self._assign(self.depth)

    def _assign(self, depth: int) -> None:
        """Give pending jobs to workers that have fewer than ``depth``; one that a worker was lost with goes
        to a fresh one."""
        for job in list(self._pending):
            if not job.attempts and job.future.cancelled():
                self._pending.remove(job)
                job.future.set_running_or_notify_cancel()
                continue
            # those that are too many, since the size was changed, get no more work and leave
            free = [w for w in self._workers[: self.size] if w.lost is None and len(w.jobs) < depth]
            if self.depth == 1:
                free = [w for w in free if w.hello]
            if job.attempts and self._failed_starts < _START_ATTEMPTS:
                free = [w for w in free if not w.answered]
            if not free:
                continue
            if not (job.attempts or job.future.running() or job.future.set_running_or_notify_cancel()):
                self._pending.remove(job)
                continue
            # warm ones first, and of these the last used, so that the others come to their rest
            max(free, key=lambda w: (-len(w.jobs), w.answered > 0, w.idle_since)).give(job)
            self._pending.remove(job)

    def _start_workers(self) -> None:
        """As many as there are jobs that wait, or were asked for, and as there is room for."""
        while self._failed_starts < _START_ATTEMPTS:
            starting = sum(not (w.hello or w.jobs) for w in self._workers)
            # what starts is for the first that wait; a job tried again takes the room of the worker it lost
            unserved = list(self._pending)[starting:]
            if not unserved and (self._closing or len(self._workers) >= self._wanted):
                break
            again = any(job.attempts for job in unserved)
            if len(self._workers) >= self.size or not (again or not self._workers or self.has_room()):
                break
            try:
                worker = WorkerProcess(self.setup(), self.start_seconds, self.max_answer)
            except OSError as error:
                self._failed_start(f"no process could be started: {error}")
            else:
                self._workers.append(worker)
                if self.depth > 1:
                    self._assign(1)
        self._wanted = 0
        if self._failed_starts >= _START_ATTEMPTS and not self._workers:
            self._broken = f"they do not start: {self._start_failure}"

    def _give_up(self, outcomes: list[Outcome]) -> None:
        """Where the pool is broken, terminated, or done: fail what is left, and end the workers."""
        if self._terminated is not None:
            self._give_up_all(self._terminated, outcomes)
        elif self._broken is not None:
            outcomes += [(job, self._none(self._broken)) for job in self._pending if self._is_wanted(job)]
            self._pending.clear()
        elif self._closing and not self._pending:
            for worker in [w for w in self._workers if not w.jobs]:
                self._workers.remove(worker)
                worker.end()

    def _give_up_all(self, why: str, outcomes: list[Outcome]) -> None:
        left = [*self._pending, *(job for w in self._workers for job in w.jobs)]
        outcomes += [(job, self._error(why)) for job in left if self._is_wanted(job)]
        self._pending.clear()
        workers, self._workers = self._workers, []
        for worker in workers:
            worker.end()

    @staticmethod
    def _is_wanted(job: Job) -> bool:
        """Whether nobody has cancelled it; nobody can any more."""
        return bool(job.attempts) or job.future.running() or job.future.set_running_or_notify_cancel()


_pools: weakref.WeakSet[WorkerPool] = weakref.WeakSet()


def _at_end() -> None:
    for pool in list(_pools):
        pool.terminate("the interpreter is ending")


def _after_fork() -> None:
    """Locks may have been held by threads that are gone."""
    for pool in list(_pools):
        pool.forget()


at_end(_at_end)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
