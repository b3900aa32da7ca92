"""How many compile workers a machine should have, and how much memory they take.

A file of its own: it asks the operating system, and knows nothing of processes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import psutil

__all__ = ["WORKER_BYTES", "available_bytes", "default_workers", "worker_rss"]

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
