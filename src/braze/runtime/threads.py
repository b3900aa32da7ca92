"""How many threads run a segment.

Machine code starts its threads through ``GOMP_parallel`` of the OpenMP runtime that torch itself uses, so
both share one team. The size of the team is a property of the calling thread (`torch.set_num_threads`), asked
for at every call. Measured costs: a region 1 us, a barrier in it 0.2 us; 20 us where cores are
oversubscribed.

A file of its own: the process keeps state here, of what its forked children have lost.
"""

from __future__ import annotations

import os

from braze._torch.native import num_threads

__all__ = ["team_size"]

_used = False
_lost = False


def team_size() -> int:
    """The number of threads for work that is worth more than one.

    1 in a forked child whose parent had already run a team: GNU's OpenMP runtime would wait for ever for
    threads that ``fork`` did not copy (torch's own operators do).
    """
    global _used
    if _lost:
        return 1
    n = num_threads()
    if n > 1:
        _used = True
    return n


def _after_fork() -> None:
    global _lost
    _lost = _used


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
