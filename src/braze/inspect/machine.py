"""What this machine can do: the bandwidth of its memory and its peak of float32 arithmetic.

Measured once in a process, on as many threads as torch uses, in about a fifth of a second. Reports compare
kernels with these two figures (the roofline of S. Williams, A. Waterman, D. Patterson, CACM 52, 2009).
"""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass
from typing import Final

import torch

from braze._torch.devices import HOST
from braze.codegen.backends import backends
from braze.words import count

__all__ = ["Machine", "measured", "roofline"]

_ARRAY_BYTES: Final = 40 << 20
_TRIAD_SECONDS: Final = 0.1


@dataclass(frozen=True)
class Machine:
    """``bandwidth`` in bytes a second and ``peak`` in float32 operations a second, of ``threads`` threads."""

    bandwidth: float
    peak: float
    threads: int

    def __str__(self) -> str:
        threads = count(self.threads, "thread")
        return f"{self.bandwidth / 1e9:.0f} GB/s, {self.peak / 1e9:.0f} GFLOP/s on {threads}"


_known: dict[int, Machine] = {}
_lock = threading.Lock()


def measured() -> Machine:
    """This machine with ``torch.get_num_threads()`` threads; measured at the first call, then remembered."""
    threads = torch.get_num_threads()
    with _lock:
        if threads not in _known:
            _known[threads] = Machine(_bandwidth(), _peak(threads), threads)
        return _known[threads]


def roofline(nbytes: int, flops: int, machine: Machine) -> tuple[float, str]:
    """The least seconds in which the machine could do it, and what holds it: ``memory`` or ``arithmetic``."""
    memory, arithmetic = nbytes / machine.bandwidth, flops / machine.peak
    return (memory, "memory") if memory >= arithmetic else (arithmetic, "arithmetic")


def _bandwidth() -> float:
    """The best of a few STREAM triads, ``a = b + s * c`` (J. McCalpin, 1995), over arrays that fit no cache.
    Bytes counted are those that the program reads and writes."""
    b, c = (torch.ones(_ARRAY_BYTES // 4) for _ in range(2))
    a = torch.zeros_like(b)
    best = float("inf")
    end = time.perf_counter() + _TRIAD_SECONDS
    while best == float("inf") or time.perf_counter() < end:
        start = time.perf_counter()
        torch.add(b, c, alpha=3.0, out=a)
        best = min(best, time.perf_counter() - start)
    return 3 * _ARRAY_BYTES / best


def _peak(threads: int) -> float:
    """As a backend measures it that makes code for this machine; infinite where none knows."""
    known = [b.peak(threads) for b in backends() if HOST in b.engine.devices]
    return next(filter(None, known), math.inf)
