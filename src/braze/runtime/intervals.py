"""Arithmetic of integer intervals: inclusive bounds, ``None`` where there is none."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

Bound = int | None
Interval = tuple[Bound, Bound]


def product(factors: Iterable[Interval]) -> Interval:
    """The bounds of a product; of none, 1."""
    result: Interval | None = None
    for factor in factors:
        result = factor if result is None else _times(result, factor)
    return result or (1, 1)


def _times(a: Interval, b: Interval) -> Interval:
    (alo, ahi), (blo, bhi) = a, b
    if alo is not None and alo >= 0 and blo is not None and blo >= 0:
        return alo * blo, None if ahi is None or bhi is None else ahi * bhi
    if alo is None or ahi is None or blo is None or bhi is None:
        return None, None
    corners = (alo * blo, alo * bhi, ahi * blo, ahi * bhi)
    return min(corners), max(corners)


def linear(terms: Iterable[tuple[Interval, int]]) -> Interval:
    """The bounds of a sum of multiples."""
    lo: Bound = 0
    hi: Bound = 0
    for (tlo, thi), c in terms:
        if c < 0:
            tlo, thi = thi, tlo
        lo = None if lo is None or tlo is None else lo + c * tlo
        hi = None if hi is None or thi is None else hi + c * thi
    return lo, hi


def quotient(num: Interval, den: Interval) -> Interval:
    """The bounds of a floor quotient; unknown where the divisor may not be positive."""
    (nlo, nhi), (dlo, dhi) = num, den
    if dlo is None or dlo <= 0:
        return None, None
    lo = None if nlo is None else (nlo // dlo if nlo < 0 else (0 if dhi is None else nlo // dhi))
    hi = None if nhi is None else (nhi // dlo if nhi >= 0 else (-1 if dhi is None else nhi // dhi))
    return lo, hi


def remainder(num: Interval, den: Interval) -> Interval:
    """The bounds of a remainder by a positive divisor."""
    (nlo, nhi), (_, dhi) = num, den
    hi = None if dhi is None else dhi - 1
    if nlo is not None and nlo >= 0 and nhi is not None:
        hi = nhi if hi is None else min(hi, nhi)
    return 0, hi


def least(args: Sequence[Interval]) -> Interval:
    """The bounds of the least of one or more values."""
    lows, highs = [lo for lo, _ in args if lo is not None], [hi for _, hi in args if hi is not None]
    return (min(lows) if len(lows) == len(args) else None), (min(highs) if highs else None)


def greatest(args: Sequence[Interval]) -> Interval:
    """The bounds of the greatest of one or more values."""
    lows, highs = [lo for lo, _ in args if lo is not None], [hi for _, hi in args if hi is not None]
    return (max(lows) if lows else None), (max(highs) if len(highs) == len(args) else None)
