"""Starting, while a graph is still traced, the processes in which backends will compile it.

A file of its own: a process that finds its code in the cache loads this, and never the backends.
"""

from __future__ import annotations

from collections.abc import Callable

from braze.codegen.llvm import pool

__all__ = ["add", "prestart"]

_starters: list[Callable[[], None]] = [pool.prestart]


def add(start: Callable[[], None]) -> None:
    """Have ``start`` called when a trace begins; it must not wait. What a backend's module does once, when it
    is imported."""
    _starters.append(start)


def prestart() -> None:
    """Start them all, under the options that hold."""
    for start in _starters:
        start()
