"""What the fuser has done since the process began."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field

from braze import notices

__all__ = ["FuserStats", "counts", "stats"]


@dataclass(frozen=True)
class FuserStats:
    """Counts since the process began.

    Attributes:
        functions: functions and graphs that were registered.
        traces: how often one was traced, for a kind of arguments that was new.
        compiled: kernels that were made by the compiler. ``loaded``: kernels that the cache had.
        bound: argument shapes for which a launch was prepared.
        fallbacks: for each reason how many calls ran by eager operators.
        empty: calls whose results have no elements, so that nothing was launched.
    """

    functions: int = 0
    traces: int = 0
    compiled: int = 0
    loaded: int = 0
    bound: int = 0
    empty: int = 0
    fallbacks: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        rows = [
            ("functions", self.functions, "registered"),
            ("traces", self.traces, "kinds of arguments that had to be traced"),
            ("compiled", self.compiled, "kernels made by the compiler"),
            ("loaded", self.loaded, "kernels found in the cache"),
            ("bound", self.bound, "argument shapes prepared for"),
            ("empty", self.empty, "calls without an element to compute"),
            ("fallbacks", sum(self.fallbacks.values()), "calls that ran by eager operators"),
        ]
        lines = [f"{name:<10} {count:>8}  {what}" for name, count, what in rows]
        lines += [
            f"{'':<10} {count:>8}    {reason}"
            for reason, count in sorted(self.fallbacks.items(), key=lambda item: -item[1])
        ]
        return "\n".join(["fuser", *lines])


class _Counts:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._fallbacks: Counter[str] = Counter()

    def add(self, name: str, count: int = 1) -> None:
        """Count something that `FuserStats` names."""
        with self._lock:
            self._counts[name] += count

    def fell_back(self, function: str, reason: str, *, quiet: bool = False) -> None:
        """A call ran by eager operators. Warns the first time for this function and reason, unless
        ``quiet``."""
        with self._lock:
            self._fallbacks[reason] += 1
        if not quiet:
            text = f"{function} runs as eager PyTorch: {reason}"
            notices.say(text, topic=(function, reason), everywhere=True)

    def snapshot(self) -> FuserStats:
        """The counts as they are now."""
        with self._lock:
            return FuserStats(**self._counts, fallbacks=dict(self._fallbacks))


counts = _Counts()


def stats() -> FuserStats:
    """What the fuser has done since the process began; prints as a table."""
    return counts.snapshot()
