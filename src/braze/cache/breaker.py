"""Leaving alone what does not answer.

A file of its own: it knows of clocks, and nothing of caches.
"""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["Breaker"]


class Breaker:
    """Whether something that failed lately may be asked again: not before a pause that doubles each time.

    ``first`` and ``longest`` pause in seconds; ``clock`` gives seconds that never go back.
    """

    def __init__(
        self, first: float = 5.0, longest: float = 600.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._first = first
        self._longest = longest
        self._clock = clock
        self._failures = 0
        self._until = 0.0

    @property
    def allows(self) -> bool:
        """Whether to ask now."""
        return self._failures == 0 or self._clock() >= self._until

    def failed(self) -> float:
        """Note a failure; the seconds of the pause that begins."""
        pause = min(self._longest, self._first * 2.0 ** min(self._failures, 32))
        self._failures += 1
        self._until = self._clock() + pause
        return pause

    def succeeded(self) -> bool:
        """Note an answer; whether there were failures before it."""
        recovered, self._failures = self._failures > 0, 0
        return recovered
