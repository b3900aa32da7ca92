"""Whether an integer expression can be negative, by what its symbols' bounds say."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from braze.runtime.expr import Expr, Symbol


def known_nonnegative(e: Expr, depth: int = 8) -> bool:
    """Whether ``e >= 0`` follows from the bounds of its symbols (sound, not complete).

    Where interval arithmetic does not decide, a symbol in which ``e`` is linear is replaced by whichever end
    of its range makes ``e`` smallest; loop variables of symbolic size first, so that their sizes can cancel.
    """
    lo = e.bounds()[0]
    if lo is not None and lo >= 0:
        return True
    if depth == 0 or e.bounds_are_exact:
        return False
    for symbol in sorted(e.free_symbols, key=_elimination_order):
        split = e.coefficient(symbol)
        if split is None:
            continue
        slope, rest = split
        if known_nonnegative(slope, depth - 1):
            return known_nonnegative(rest + slope * symbol.lower, depth - 1)
        if symbol.upper is not None and known_nonnegative(-slope, depth - 1):
            return known_nonnegative(rest + slope * symbol.upper, depth - 1)
    bound = _without_quotient(e)
    return bound is not None and known_nonnegative(bound, depth - 1)


def _without_quotient(e: Expr) -> Expr | None:
    """For the first quotient by a number ``k`` in ``e``, something without it that is at most ``k * e``, by
    ``n - k + 1 <= k * (n // k) <= n``; None where there is no such quotient."""
    for atoms, factor in e.terms:
        if len(atoms) == 1 and getattr(atoms[0], "is_quotient", False):
            number, divisor = atoms[0].parts
            k = divisor.constant
            if k is not None:
                rest = e - atoms[0].rebuild(atoms[0].parts) * factor
                return rest * k + (number if factor < 0 else number - (k - 1)) * factor
    return None


def _elimination_order(symbol: Symbol) -> tuple[bool, str]:
    return symbol.upper is None or symbol.has_numeric_bounds, symbol.key
