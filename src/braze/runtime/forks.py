"""Locks that a fork waits for.

A forked child has one thread, and a lock that another one held is held in it for ever. Where threads of the
process's own hold locks beside the caller, who knows nothing of them and may fork at any time, the fork waits
for the moment that they need.
"""

from __future__ import annotations

import os
import threading

__all__ = ["fork_lock"]


def fork_lock() -> threading.RLock:
    """A lock that nobody else holds when this process forks. It lives as long as the process, is held for
    short, and no other such lock may be taken inside: a fork takes all of them."""
    lock = threading.RLock()
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release)
    return lock
