"""Figures and lists in words, as messages and tables print them: ``3 kernels``, ``8.39 MB``, ``1.07 ms``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

__all__ = ["age", "amount", "count", "duration", "first_of", "nbytes", "phases"]


def count(number: int, one: str, many: str | None = None) -> str:
    """``1 kernel``, ``3 kernels``; ``many`` where the plural is not ``one`` with an s."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def duration(microseconds: float) -> str:
    """Three digits and a unit: ``4.21 us``, ``312 us``, ``1.07 ms``, ``2.90 s``."""
    for limit, divisor, unit in ((1e3, 1.0, "us"), (1e6, 1e3, "ms")):
        if microseconds < limit * 0.9995:
            return f"{_three(microseconds / divisor)} {unit}"
    return f"{_three(microseconds / 1e6)} s"


def age(seconds: float) -> str:
    """A stretch of time in whole numbers: ``12 s``, ``3 min``, ``30 h``, ``4 d``."""
    for limit, divisor, unit in ((90, 1, "s"), (5400, 60, "min"), (129_600, 3600, "h")):
        if seconds < limit:
            return f"{max(0.0, seconds) / divisor:.0f} {unit}"
    return f"{seconds / 86_400:.0f} d"


def phases(seconds: Mapping[str, float]) -> str:
    """Milliseconds by phase: ``lowering 12, codegen 30``."""
    return ", ".join(f"{phase} {1e3 * s:.0f}" for phase, s in seconds.items())


def amount(number: float, unit: str) -> str:
    """Three digits and a decimal prefix: ``8.39 MB``; nothing for 0."""
    if not number:
        return ""
    for prefix in ("", "k", "M", "G", "T"):
        if number < 999.5:
            digits = f"{number:.0f}" if not prefix else _three(number)
            return f"{digits} {prefix}{unit}".rstrip()
        number /= 1000
    return f"{number:.0f} P{unit}"


def nbytes(number: int) -> str:
    """An `amount` of bytes; ``0 B`` where there are none."""
    return amount(number, "B") or "0 B"


def first_of(items: Sequence[str], most: int) -> str:
    """The first ``most`` of some: ``a, b and 3 more``."""
    named = ", ".join(items[:most])
    return named if len(items) <= most else f"{named} and {len(items) - most} more"


def _three(number: float) -> str:
    return f"{number:.2f}" if number < 9.995 else f"{number:.1f}" if number < 99.95 else f"{number:.0f}"
