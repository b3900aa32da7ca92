"""The pool of LLVM workers: IR text in, object code out, without LLVM in this process.

The same module is compiled once, and what was made is kept for a while. Where no process can be started
(`unavailable_reason`), modules are compiled here, in the thread that submits them.
"""

from __future__ import annotations

import hashlib
import os
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from concurrent.futures import Future

from braze import config, notices
from braze.errors import LLVMError, NoWorkersError, WorkerError
from braze.runtime.ending import at_end, ending
from braze.runtime.workers.llvm import LLVMWorkers
from braze.runtime.workers.llvm_jobs import CompiledObject, compile_module, compile_packed, packed, unpacked
from braze.runtime.workers.process import no_processes_reason

__all__ = ["CompiledObject", "Pool", "compile_ir", "prestart", "shared", "unavailable_reason"]

_KEPT_BYTES = 64 << 20
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


class Pool:
    """Up to ``workers`` LLVM workers. ``deadline`` is the seconds that one module may take.

    All methods may be called from any thread. After ``fork`` the child must not use its parent's pool:
    `shared` takes care of that.
    """

    def __init__(self, workers: int, *, deadline: float = 120.0, idle_seconds: float = 30.0) -> None:
        self.workers = LLVMWorkers(workers, deadline=deadline, idle_seconds=idle_seconds)
        self._lock = threading.Lock()
        self._futures: dict[bytes, Future[CompiledObject]] = {}
        self._done: OrderedDict[bytes, CompiledObject] = OrderedDict()
        self._done_bytes = 0
        self._closed = False
        self._in_process = threading.Lock()

    def prestart(self) -> None:
        """Start the workers, without waiting for them."""
        if unavailable_reason() is None:
            self.workers.prestart(self.workers.size)

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
        level = max(opt_level, 1) if codegen_level is None else codegen_level
        payload = packed(
            text.encode(), cpu=cpu, features=features, opt_level=opt_level, codegen_level=level, emit=wanted
        )
        key = hashlib.blake2b(payload, digest_size=24).digest()
        future: Future[CompiledObject] = Future()
        future.set_running_or_notify_cancel()

        def here() -> CompiledObject:
            with self._in_process:
                return compile_module(
                    text, cpu=cpu, features=features, opt_level=opt_level, codegen_level=level, emit=wanted
                )

        with self._lock:
            if (found := self._done.get(key)) is not None:
                self._done.move_to_end(key)
                future.set_result(found)
                return future
            if (running := self._futures.get(key)) is not None:
                return running
            if self._closed:
                raise WorkerError("the pool of LLVM workers is closed")
            self._futures[key] = future
        try:
            asked = self._submit(payload)
            if asked is None:
                self._finish(key, future, here)
            else:
                asked.add_done_callback(lambda answer: self._answered(key, future, answer, here))
        except BaseException:  # interrupted: whoever asks for the same module does not wait for this
            self._settle(key, future, WorkerError(_INTERRUPTED))
            raise
        return future

    def _submit(self, payload: bytes) -> Future[bytes] | None:
        """What a worker will answer; None where there can be none."""
        if unavailable_reason() is not None:
            return None
        try:
            return self.workers.submit(compile_packed, payload)
        except NoWorkersError:  # which was said when they were lost
            return None
        except RuntimeError as error:
            raise WorkerError("the pool of LLVM workers is closed") from error

    def worker_pids(self) -> list[int]:
        """The process ids of the workers that are alive."""
        return self.workers.worker_pids()

    def close(self) -> None:
        """Stop the workers. What is not finished raises `WorkerError`."""
        with self._lock:
            self._closed = True
        self.workers.terminate("the pool of LLVM workers was closed")

    # -- results; no lock is held -----------------------------------------------------------------------
    def _answered(
        self,
        key: bytes,
        future: Future[CompiledObject],
        answer: Future[bytes],
        here: Callable[[], CompiledObject],
    ) -> None:
        """In the thread that looks after the workers. Whatever happens, nobody is left waiting."""
        try:
            error = answer.exception()
            if isinstance(error, NoWorkersError):
                self._finish(key, future, here)
                notices.say_from_a_thread(  # last, for it may be an error
                    f"LLVM runs inside this process, where a bad module can end it: {error.what}"
                )
            elif error is not None:
                self._settle(key, future, error)
            else:
                self._finish(key, future, lambda: unpacked(answer.result()))
        except BaseException as error:
            self._settle(key, future, WorkerError(f"the thread of the LLVM workers failed: {error!r}"))

    def _finish(self, key: bytes, future: Future[CompiledObject], made: Callable[[], CompiledObject]) -> None:
        outcome: CompiledObject | LLVMError
        try:
            outcome = made()
        except Exception as error:
            outcome = LLVMError(f"LLVM refused a module: {str(error).strip()}")
        self._settle(key, future, outcome)

    def _settle(
        self, key: bytes, future: Future[CompiledObject], outcome: CompiledObject | BaseException
    ) -> None:
        """Once; what comes of it later is nobody's any more."""
        with self._lock:
            if self._futures.get(key) is not future:
                return
            del self._futures[key]
            if isinstance(outcome, CompiledObject):
                self._done[key] = outcome
                self._done_bytes += outcome.nbytes
                while self._done_bytes > _KEPT_BYTES:
                    self._done_bytes -= self._done.popitem(last=False)[1].nbytes
        if isinstance(outcome, CompiledObject):
            future.set_result(outcome)
        else:
            future.set_exception(outcome)


_shared: Pool | None = None
_shared_lock = threading.Lock()


def shared() -> Pool:
    """This process's pool, of the size that ``config.llvm_workers`` has for whoever asked last."""
    global _shared
    workers = config.current().llvm_workers
    with _shared_lock:
        if _shared is None:
            _shared = Pool(workers)
        _shared.workers.size = workers
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
    _shared, _shared_lock = None, threading.Lock()


at_end(_close_shared)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
