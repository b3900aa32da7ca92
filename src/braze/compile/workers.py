"""Compile workers: processes with torch and the whole compiler, behind a `concurrent.futures.Executor`.

::

    with CompilePool() as pool:
        answer = pool.submit(echo, b"...").result()

A job that a worker was lost with is tried once more, in a fresh one; then the future raises `WorkerError`
with the last words of the worker, and the caller compiles in its own process.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import psutil

from braze import config
from braze.runtime import engines
from braze.runtime.workers.pool import WorkerPool
from braze.runtime.workers.process import module_path
from braze.runtime.workers.worker import Setup

__all__ = ["DEFAULT_JOBS", "CompilePool", "prestart", "shared"]

DEFAULT_JOBS = "braze.compile.remote_job"

WORKER_BYTES = 1 << 30
"""Free memory that a worker should find: some 370 MB at rest, the rest for the graph that it compiles."""

MOST_WORKERS = 8
_CGROUP = Path("/sys/fs/cgroup")


def _cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS has no affinity to ask for
        return os.cpu_count() or 1


def _quota(folder: Path) -> float:
    """Cores' worth of time that this container may use (control groups, version 2)."""
    try:
        quota, period = (folder / "cpu.max").read_text().split()
        return int(quota) / int(period)
    except (OSError, ValueError):  # no such file, or "max"
        return float("inf")


def _left_in_container(folder: Path) -> float:
    try:
        limit = int((folder / "memory.max").read_text())
        return limit - int((folder / "memory.current").read_text())
    except (OSError, ValueError):
        return float("inf")


def available_bytes(folder: Path = _CGROUP) -> int:
    """Bytes that may still be used, without swapping, on this machine and in this container."""
    return int(max(0, min(psutil.virtual_memory().available, _left_in_container(folder))))


def default_workers(environ: Mapping[str, str] = os.environ, folder: Path = _CGROUP) -> int:
    """One for each core, at most `MOST_WORKERS`, and as many as find `WORKER_BYTES` free; at least 1. The
    processes that ``torchrun`` started on this machine (``LOCAL_WORLD_SIZE``) share both."""
    try:
        peers = max(1, int(environ.get("LOCAL_WORLD_SIZE", "1")))
    except ValueError:
        peers = 1
    cores = min(_cores(), _quota(folder))
    room = available_bytes(folder) // WORKER_BYTES
    return max(1, min(int(cores) // peers, room // peers, MOST_WORKERS))


def worker_rss(pids: Iterable[int]) -> dict[int, int]:
    """Bytes that each of these processes has in memory; those that ended meanwhile are left out."""
    found = {}
    for pid in pids:
        try:
            found[pid] = int(psutil.Process(pid).memory_info().rss)
        except psutil.NoSuchProcess:
            continue
    return found


class CompilePool(WorkerPool):
    """Up to ``workers`` compile workers; see `WorkerPool` for what else it takes.

    Args:
        workers: default ``config.compile_workers``, or by cores and free memory.
        timeout: seconds that a worker may take for a job; default ``config.compile_timeout`` at `submit`.
        memory_mb: MiB of address space that a worker may take beyond what it has when warm; default
            ``config.compile_memory_mb``.
        idle_seconds: default ``config.compile_idle_seconds``.
        jobs: the module with the table of jobs ``JOBS`` and the function ``warm``.
    """

    noun = "compile worker"
    hint = (
        "the graph can be compiled in this process; BRAZE_COMPILE_TIMEOUT and BRAZE_COMPILE_MEMORY_MB bound "
        "what a worker may take"
    )
    tied = True

    def __init__(
        self,
        workers: int | None = None,
        *,
        timeout: float | None = None,
        memory_mb: int | None = None,
        idle_seconds: float | None = None,
        jobs: str = DEFAULT_JOBS,
        **bounds: Any,
    ) -> None:
        options = config.current()
        super().__init__(
            workers or options.compile_workers or default_workers(),
            jobs=jobs,
            idle_seconds=options.compile_idle_seconds if idle_seconds is None else idle_seconds,
            **bounds,
        )
        self.timeout = timeout
        self.memory_mb: int = options.compile_memory_mb if memory_mb is None else memory_mb

    def setup(self) -> Setup:
        return Setup(
            os.getpid(),
            self.jobs,
            module_path(),
            modules=engines.modules(),
            seal=config.__name__,
            memory_mb=self.memory_mb,
            tied=True,
        )

    def limit(self) -> float:
        return float(config.current().compile_timeout) if self.timeout is None else self.timeout

    def has_room(self) -> bool:
        return available_bytes() >= WORKER_BYTES

    def worker_rss(self) -> dict[int, int]:
        """Bytes in memory of each worker, by process id."""
        return worker_rss(self.worker_pids())


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
    return default_workers()


def prestart(workers: int = 1) -> None:
    """Start workers of `shared` without waiting for them; called when a compilation begins."""
    shared().prestart(workers)


def _after_fork() -> None:
    """The lock may have been held by a thread that is gone."""
    global _shared_lock
    _shared_lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
