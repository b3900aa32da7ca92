"""Which symbol follows from an integer that is at hand."""

from __future__ import annotations

from collections.abc import Container
from typing import NamedTuple

from braze.runtime.expr import Expr, Symbol

__all__ = ["Unknown", "unknown_in"]


class Unknown(NamedTuple):
    """What an integer ``factor*symbol + rest`` says of a symbol."""

    symbol: Symbol
    factor: int
    rest: Expr


def unknown_in(e: Expr, known: Container[str]) -> Unknown | None:
    """The one symbol of ``e`` that is not among the names in ``known``, if ``e`` is linear in it with a plain
    number as its factor; else None."""
    missing = [s for s in e.free_symbols if s.name not in known]
    if len(missing) != 1:
        return None
    parts = e.coefficient(missing[0])
    if parts is None or not parts[0].constant:
        return None
    return Unknown(missing[0], parts[0].constant, parts[1])
