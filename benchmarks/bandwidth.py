"""The memory bandwidth of this machine at a given footprint, for comparison with what kernels reach."""

from __future__ import annotations

import functools

import torch

from benchmarks.common import interleaved


@functools.cache
def measured(footprint: int, seconds: float = 0.02, rounds: int = 7) -> float:
    """Bytes per second that the best of a copy, a triad and a sum move, over `footprint` bytes in all.

    A kernel whose data fits a cache is so compared with that cache. Outputs are written to memory that
    exists; a kernel that has to allocate its output pays for the page faults, and shows it. The triad is
    that of the STREAM benchmark (McCalpin, 1995), a = b + s * c; bytes counted are those that the program
    reads and writes.
    """
    numel = max(1024, footprint // 4)
    a, b, c = (torch.ones(numel // 3) for _ in range(3))
    d, e = torch.ones(numel // 2), torch.ones(numel // 2)
    f = torch.ones(64, max(1, numel // 64))
    total = torch.empty(64)
    samples = interleaved(
        {
            "triad": lambda: torch.add(b, c, alpha=3.0, out=a),
            "copy": lambda: d.copy_(e),
            "read": lambda: torch.sum(f, dim=1, out=total),
        },
        rounds,
        seconds,
    )
    moved = {"triad": 12 * a.numel(), "copy": 8 * d.numel(), "read": 4 * f.numel()}
    return max(moved[name] / min(times) for name, times in samples.items())
