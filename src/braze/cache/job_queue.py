"""Work that nobody waits for: a bounded queue with one daemon thread behind it."""

from __future__ import annotations

import atexit
import concurrent.futures.thread  # noqa: F401 - see `_before_the_end`
import logging
import os
import threading
from collections import deque
from collections.abc import Callable
from typing import Final

from braze.runtime.ending import start

__all__ = ["JobQueue"]

_log = logging.getLogger("braze")

EXIT_SECONDS: Final = 2.0
"""Seconds that the end of the process may wait for what is queued."""


# Drivers of storages use executors, which take no more work, and cannot even be imported, once threading has
# shut down; what `atexit` has comes later still. So where Python has a hook at that moment, it is used. What
# was registered last is called first: executors, imported above, end after this.
_before_the_end: Callable[[Callable[[], None]], object] = getattr(
    threading, "_register_atexit", atexit.register
)


class JobQueue:
    """Jobs done one after the other by a daemon thread, which is started by the first of them.

    At most ``jobs`` jobs, which hold at most ``size`` bytes, are waiting; what comes when it is full is
    refused. The end of the process waits for the rest for `EXIT_SECONDS`. A process that was forked off has
    an empty queue of its own.
    """

    def __init__(self, name: str, *, jobs: int, size: int) -> None:
        self._name = name
        self._jobs = jobs
        self._size = size
        self._reset()

    def _reset(self) -> None:
        self._process = os.getpid()
        self._changed = threading.Condition()
        self._waiting: deque[tuple[Callable[[], None], int]] = deque()
        self._held = 0
        self._running = False
        self._thread: threading.Thread | None = None

    def offer(self, job: Callable[[], None], size: int) -> bool:
        """Queue a job that holds ``size`` bytes. False, at once, if it is refused.

        An exception that ``job`` lets out is logged, and the next job is done all the same.
        """
        if self._process != os.getpid():  # threads do not survive a fork, and locks may have been held
            self._reset()
        with self._changed:
            if len(self._waiting) >= self._jobs or self._held + size > self._size:
                return False
            if self._thread is None:
                try:
                    _before_the_end(self.end)
                except RuntimeError:  # the process is ending
                    return False
                self._thread = start(self._name, self._work, hold=False)  # a storage may hang for ever
                if self._thread is None:
                    return False
            self._waiting.append((job, size))
            self._held += size
            self._changed.notify_all()
        return True

    def flush(self, seconds: float) -> bool:
        """Wait until everything is done, at most so long. Whether it is."""
        if self._process != os.getpid():
            return True
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting and not self._running, seconds)

    def end(self) -> None:
        """Wait for the rest for `EXIT_SECONDS`, and say what is left undone."""
        if not self.flush(EXIT_SECONDS):
            _log.info("%s: %d jobs were left undone at exit", self._name, self.waiting)

    @property
    def waiting(self) -> int:
        """How many jobs are not done."""
        return len(self._waiting) + self._running

    def _work(self) -> None:
        changed = self._changed
        while True:
            with changed:
                self._running = False
                changed.notify_all()
                changed.wait_for(lambda: bool(self._waiting))
                job, size = self._waiting.popleft()
                self._running = True
                self._held -= size
            try:
                job()
            except Exception:
                _log.warning("%s: a job failed", self._name, exc_info=True)
            del job  # the next wait must not keep what it holds alive
