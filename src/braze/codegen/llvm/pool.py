"""The pool of LLVM workers: IR text in, object code out, without LLVM in this process.

A worker (`llvm_worker.py`) is a process of its own: a module that makes LLVM abort or hang costs one job.
One thread looks after all workers; requests are written by whoever submits, and each worker holds a second
job in its pipe, so that it never waits for this process to get round to it. Workers that have had nothing to
do for a while leave, and come back (50 ms) when there is work again.

Where no process can be started (`unavailable_reason`), jobs are compiled here, in the thread that submits
them.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import select
import signal
import sys
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

from braze import config, notices
from braze.codegen.llvm.process import CompiledObject, Job, WorkerProcess
from braze.errors import LLVMError, WorkerError
from braze.runtime.ending import at_end, ending, start
from braze.runtime.llvm_worker import compile_module
from braze.runtime.processes import describe_exit, no_processes_reason

__all__ = ["CompiledObject", "Pool", "compile_ir", "prestart", "shared", "unavailable_reason"]

_QUEUED_PER_WORKER = 2
_KEPT_BYTES = 64 << 20
_IDLE_SECONDS = 30.0
_START_ATTEMPTS = 2
_INTERRUPTED = "the thread that compiled a module for several was interrupted"
_EMITS = frozenset({"object", "asm", "opt_ir"})


def unavailable_reason() -> str | None:
    """Why no worker process can be started here; None where one can."""
    if config.current().llvm_in_process:
        return "llvm_in_process is set"
    if ending():
        return "the process is ending"
    if config.sealed():
        return "a compile worker runs LLVM itself: its parent starts it again where LLVM ends it"
    if (reason := no_processes_reason()) is not None:
        return reason
    process = sys.modules.get("multiprocessing.process")
    if process is not None and process.current_process().daemon:
        return "a daemonic process should have no children"
    return None


@dataclass
class _State:
    """What the lock guards."""

    pending: deque[Job] = field(default_factory=deque)
    workers: list[WorkerProcess] = field(default_factory=list)
    futures: dict[bytes, Future[CompiledObject]] = field(default_factory=dict)
    done: OrderedDict[bytes, CompiledObject] = field(default_factory=OrderedDict)
    done_bytes: int = 0
    next_job: int = 0
    failed_starts: int = 0
    broken: str | None = None
    closed: bool = False


class Pool:
    """Up to ``workers`` LLVM workers. ``deadline`` is the seconds that one module may take.

    All methods may be called from any thread. After ``fork`` the child must not use its parent's pool:
    `shared` takes care of that.
    """

    def __init__(self, workers: int, *, deadline: float = 120.0, idle_seconds: float = _IDLE_SECONDS) -> None:
        self.size = workers
        self.deadline = deadline
        self.idle_seconds = idle_seconds
        self._lock = threading.Lock()
        self._state = _State()
        self._thread: threading.Thread | None = None
        self._wake_read = self._wake_write = -1
        self._in_process = threading.Lock()

    # -- the caller's side ------------------------------------------------------------------------------
    def prestart(self) -> None:
        """Start the workers, without waiting for them."""
        if self._reason() is not None:
            return
        with self._lock:
            while len(self._state.workers) < self.size and self._start_worker():
                pass
        self._wake()

    def compile(
        self,
        text: str,
        *,
        cpu: str,
        features: str = "",
        opt_level: int = 1,
        codegen_level: int | None = None,
        emit: Iterable[str] = ("object",),
    ) -> Future[CompiledObject]:
        """Compile one module of LLVM IR. The same text with the same options is compiled once.

        Args:
            text: the module; its triple and data layout are the host's where it states none.
            cpu, features: as LLVM spells them (``znver5``, ``+avx2,-prefer-256-bit``).
            opt_level: 0 no passes, only code generation; 1 cheap cleaning of each function; 2, 3 LLVM's O2,
                O3.
            codegen_level: the code generator's own level, 0 to 3. None: that of `opt_level`, and at least 1.
            emit: what to return: any of ``object``, ``asm``, ``opt_ir``.

        The future raises `LLVMError` where LLVM refuses the module and `WorkerError` where the worker died of
        it or did not answer within the deadline. It cannot be cancelled, since others may share it.
        """
        wanted = frozenset(emit)
        if not wanted <= _EMITS or not wanted:
            raise ValueError(f"emit must be some of {sorted(_EMITS)}, not {sorted(wanted)}")
        if codegen_level is None:
            codegen_level = max(opt_level, 1)
        options = f"{cpu}\n{features}\n{opt_level}\n{codegen_level}\n{' '.join(sorted(wanted))}\n"
        key = hashlib.blake2b(options.encode() + text.encode(), digest_size=24).digest()
        job = Job(key, text, cpu, features, opt_level, codegen_level, wanted, Future())
        job.future.set_running_or_notify_cancel()
        in_process = self._reason() is not None
        with self._lock:
            state = self._state
            found = state.done.get(key)
            if found is not None:
                state.done.move_to_end(key)
                job.future.set_result(found)
                return job.future
            running = state.futures.get(key)
            if running is not None:
                return running
            if state.closed:
                raise WorkerError("the pool of LLVM workers is closed")
            if not in_process:
                job.number = state.next_job
                state.next_job += 1
                state.pending.append(job)  # before others may find its future: whoever waits is served
            state.futures[key] = job.future
            if not in_process:
                try:
                    self._assign()
                except BaseException:
                    self._interrupted(job)
                    raise
                in_process = state.broken is not None
                stranded = self._take_pending() if in_process else []
        if not in_process:
            self._wake()
        elif job.number < 0:
            self._run_here([job])
        else:
            self._run_here(stranded)
        return job.future

    def worker_pids(self) -> list[int]:
        """The process ids of the workers that are alive."""
        with self._lock:
            return [w.pid for w in self._state.workers]

    def close(self) -> None:
        """Stop the workers. What is not finished raises `WorkerError`."""
        with self._lock:
            self._state.closed = True
            workers, self._state.workers = self._state.workers, []
            left = [*self._take_pending(), *(job for w in workers for job in w.jobs)]
        self._wake()
        for worker in workers:
            worker.kill()
        for job in left:
            self._fail(job, WorkerError("the pool of LLVM workers was closed"))
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout=5.0)
            self._close_wake()

    def forget(self) -> None:
        """After ``fork``, in the child: let go of the parent's workers and touch nothing else."""
        for worker in self._state.workers:
            worker.forget()
        self._close_wake()

    # -- inside; the lock is held where the name says nothing else --------------------------------------
    def _reason(self) -> str | None:
        return self._state.broken or unavailable_reason()

    def _is_closed(self) -> bool:
        return self._state.closed

    def _take_pending(self) -> list[Job]:
        jobs = list(self._state.pending)
        self._state.pending.clear()
        return jobs

    def _start_worker(self) -> bool:
        state = self._state
        if state.broken or state.closed:
            return False
        spec = importlib.util.find_spec("llvmlite")
        if spec is None or spec.origin is None:
            state.broken = "llvmlite is not installed"
            return False
        try:
            if self._wake_read < 0:
                self._wake_read, self._wake_write = os.pipe()
                os.set_blocking(self._wake_read, False)
                os.set_blocking(self._wake_write, False)
            worker = WorkerProcess(str(Path(spec.origin).parent.parent))
        except OSError as error:
            state.broken = f"no process could be started: {error}"
            return False
        state.workers.append(worker)
        if self._thread is None or not self._thread.is_alive():
            self._thread = start("braze-llvm-pool", self._serve)
            if self._thread is None:
                state.workers.remove(worker)
                worker.kill()
                state.broken = "no thread could be started"
                return False
        return True

    def _assign(self) -> None:
        """Give pending jobs to workers, and write as much as the pipes take."""
        state = self._state
        while state.pending and not state.broken:
            # those that are too many, since the size was changed, get no more work and leave
            free = min(state.workers[: self.size], key=lambda w: len(w.jobs), default=None)
            if (free is None or free.jobs) and len(state.workers) < self.size and self._start_worker():
                free = state.workers[-1]
            if free is None or len(free.jobs) >= _QUEUED_PER_WORKER:
                return
            free.give(state.pending[0], self.deadline)
            state.pending.popleft()

    def _interrupted(self, job: Job) -> None:
        """The thread that submits a job was interrupted: a job that no worker has is nobody's any more."""
        state = self._state
        given = {id(each) for worker in state.workers for each in worker.jobs}
        state.pending = deque(each for each in state.pending if each is not job and id(each) not in given)
        if id(job) not in given:
            del state.futures[job.key]
            job.future.set_exception(WorkerError(_INTERRUPTED))

    def _close_wake(self) -> None:
        fds, self._wake_read, self._wake_write = (self._wake_read, self._wake_write), -1, -1
        for fd in fds:
            if fd >= 0:
                os.close(fd)

    def _wake(self) -> None:
        if self._wake_write >= 0:
            with contextlib.suppress(BlockingIOError):  # full: it will wake
                os.write(self._wake_write, b"x")

    def _serve(self) -> None:
        """The thread that looks after the workers; the lock is not held. Whatever happens to it, nobody is
        left waiting."""
        try:
            self._wait_for_workers()
        except BaseException as error:
            with self._lock:
                workers, self._state.workers = self._state.workers, []
                self._state.pending.clear()
                futures, self._state.futures = self._state.futures, {}
                self._thread = None
            for worker in workers:
                worker.kill()
            for future in futures.values():
                if not future.done():
                    future.set_exception(WorkerError(f"the thread of the LLVM workers failed: {error!r}"))
            raise

    def _wait_for_workers(self) -> None:
        while True:
            finished: list[tuple[Job, list[bytes]]] = []
            failed: list[tuple[Job, Exception]] = []
            stranded: list[Job] = []
            with self._lock:
                if self._is_closed():
                    return
                workers = list(self._state.workers)
                poller = select.poll()
                poller.register(self._wake_read, select.POLLIN)
                for worker in workers:
                    poller.register(worker.answers, select.POLLIN)
                    if worker.unsent:
                        poller.register(worker.requests, select.POLLOUT)
                timeout = self._timeout(workers)
            ready = {fd for fd, _ in poller.poll(timeout)}
            if self._wake_read in ready:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._wake_read, 4096)
            with self._lock:
                if self._is_closed():
                    return
                for worker in workers:
                    if worker.requests in ready:
                        worker.send()
                    if worker.answers in ready:
                        finished += worker.receive()
                    if worker.hello:
                        self._state.failed_starts = 0
                    self._check(worker, failed)
                self._assign()
                if self._state.broken:
                    stranded = self._take_pending()
            for job, fields in finished:
                self._finish(job, fields)
            for job, error in failed:
                self._fail(job, error)
            if stranded:
                self._run_here(stranded)
                notices.say_from_a_thread(  # last, for it may be an error
                    f"LLVM runs inside this process, where a bad module can end it: {self._state.broken}"
                )

    def _timeout(self, workers: list[WorkerProcess]) -> int | None:
        """Milliseconds until the next deadline or the next worker that has been idle for long."""
        until = [w.deadline if w.jobs or not w.hello else w.idle_since + self.idle_seconds for w in workers]
        return max(0, int((min(until) - time.monotonic()) * 1000) + 1) if until else None

    def _check(self, worker: WorkerProcess, failed: list[tuple[Job, Exception]]) -> None:
        """Let go of a worker that died, hangs, or has been idle for long; its other jobs go to the others."""
        now = time.monotonic()
        late = now >= worker.deadline and (bool(worker.jobs) or not worker.hello)
        idle = worker.hello and not worker.jobs and now >= worker.idle_since + self.idle_seconds
        if not (worker.gone or late or idle):
            return
        state = self._state
        state.workers.remove(worker)
        code = worker.kill()
        if idle:
            return
        if not worker.hello:
            state.failed_starts += 1
            if state.failed_starts >= _START_ATTEMPTS:
                state.broken = f"LLVM workers do not start ({describe_exit(code)}): {worker.last_words}"
        elif worker.jobs:
            job = worker.jobs.popleft()
            job.attempts += 1
            if not late and code in (-signal.SIGKILL, -signal.SIGTERM) and job.attempts < 2:
                worker.jobs.appendleft(job)  # somebody else's doing, not the module's
            elif late:
                failed.append((job, self._died(f"did not answer for {self.deadline:g} s")))
            else:
                failed.append((job, self._died(f"died ({describe_exit(code)}): {worker.last_words}")))
        state.pending.extendleft(reversed(worker.jobs))
        worker.jobs.clear()

    @staticmethod
    def _died(what: str) -> WorkerError:
        return WorkerError(f"an LLVM worker {what}", hint=LLVMError.default_hint)

    # -- results; the lock is not held ------------------------------------------------------------------
    def _finish(self, job: Job, fields: list[bytes]) -> None:
        if fields[0] == b"ok":
            code, asm, opt_ir, seconds = fields[1:]
            self._succeed(job, CompiledObject(code, asm.decode(), opt_ir.decode(), float(seconds)))
        else:
            self._fail(job, LLVMError(f"LLVM refused a module: {fields[1].decode().strip()}"))

    def _succeed(self, job: Job, result: CompiledObject) -> None:
        with self._lock:
            state = self._state
            state.futures.pop(job.key, None)
            state.done[job.key] = result
            state.done_bytes += result.nbytes
            while state.done_bytes > _KEPT_BYTES:
                state.done_bytes -= state.done.popitem(last=False)[1].nbytes
        job.future.set_result(result)

    def _fail(self, job: Job, error: Exception) -> None:
        with self._lock:
            self._state.futures.pop(job.key, None)
        job.future.set_exception(error)

    def _run_here(self, jobs: Sequence[Job]) -> None:
        for k, job in enumerate(jobs):
            start = time.perf_counter()
            try:
                with self._in_process:
                    code, asm, opt_ir = compile_module(
                        job.text,
                        cpu=job.cpu,
                        features=job.features,
                        opt_level=job.opt_level,
                        codegen_level=job.codegen_level,
                        emit=job.emit,
                    )
            except Exception as error:
                self._fail(job, LLVMError(f"LLVM refused a module: {str(error).strip()}"))
            except BaseException:  # interrupted: whoever asks for the same module does not wait for this
                for one in jobs[k:]:
                    self._fail(one, WorkerError(_INTERRUPTED))
                raise
            else:
                self._succeed(job, CompiledObject(code, asm, opt_ir, time.perf_counter() - start))


_shared: Pool | None = None
_shared_lock = threading.Lock()


def shared() -> Pool:
    """This process's pool, of the size that ``config.llvm_workers`` has for whoever asked last."""
    global _shared
    workers = config.current().llvm_workers
    with _shared_lock:
        if _shared is None:
            _shared = Pool(workers)
        _shared.size = workers
        return _shared


def prestart() -> None:
    """Start the workers of `shared` without waiting for them; called when a compilation begins."""
    shared().prestart()


def compile_ir(
    text: str,
    *,
    cpu: str,
    features: str = "",
    opt_level: int = 1,
    codegen_level: int | None = None,
    emit: Iterable[str] = ("object",),
) -> Future[CompiledObject]:
    """`Pool.compile` of `shared`."""
    return shared().compile(
        text, cpu=cpu, features=features, opt_level=opt_level, codegen_level=codegen_level, emit=emit
    )


def _close_shared() -> None:
    """What is compiled later still, by some handler of the end, is compiled here, by another pool."""
    global _shared
    pool, _shared = _shared, None
    if pool is not None:
        pool.close()


def _after_fork() -> None:
    """The child makes its own pool when it needs one; the lock may have been held by a thread that is
    gone."""
    global _shared, _shared_lock
    pool, _shared, _shared_lock = _shared, None, threading.Lock()
    if pool is not None:
        pool.forget()


at_end(_close_shared)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
