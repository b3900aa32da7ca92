"""Matching the loops of two operations through the indices with which they touch one buffer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from braze.runtime.expr import (
    ONE,
    ZERO,
    Expr,
    Symbol,
    as_expr,
    known_less,
    known_nonnegative,
    product,
)


@dataclass(frozen=True)
class Linear:
    """``sum(coefficients[v] * v) + rest``; ``rest`` contains none of the variables."""

    coefficients: dict[Symbol, Expr]
    rest: Expr


def linear(e: Expr, variables: Sequence[Symbol]) -> Linear | None:
    """``e`` as a linear form in ``variables``, or ``None``."""
    coefficients: dict[Symbol, Expr] = {}
    for v in variables:
        if v not in e.free_symbols:
            continue
        split = e.coefficient(v)
        if split is None:
            return None
        c, e = split
        coefficients[v] = c
    for c in coefficients.values():
        if not c.free_symbols.isdisjoint(variables):
            return None
    return Linear(coefficients, e)


@dataclass(frozen=True)
class Match:
    """How two sets of loop variables correspond: ``theirs`` and ``ours`` both map old variables to
    expressions in common ones."""

    ours: dict[Symbol, Expr]
    theirs: dict[Symbol, Expr]


def match_indices(
    ours: Expr,
    our_vars: Sequence[Symbol],
    theirs: Expr,
    their_vars: Sequence[Symbol],
    fresh: Callable[[Expr], Symbol],
) -> Match | None:
    """Pair the variables that make ``ours`` and ``theirs`` the same index, splitting a loop where the other
    side has two in its place. Variables that do not occur in the index are left out. ``None`` if it cannot
    be."""
    a, b = linear(ours, our_vars), linear(theirs, their_vars)
    if a is None or b is None or a.rest != b.rest:
        return None
    left = _sorted_terms(a)
    right = _sorted_terms(b)
    if left is None or right is None:
        return None
    our_parts: dict[Symbol, list[tuple[Symbol, Expr]]] = {v: [] for _, _, v in left}
    their_parts: dict[Symbol, list[tuple[Symbol, Expr]]] = {v: [] for _, _, v in right}
    while left and right:
        ca, na, va = left.pop()
        cb, nb, vb = right.pop()
        if ca != cb:
            return None
        if na == nb:
            size = na
        elif (q := _quotient(nb, na)) is not None:
            size = na
            right.append((cb * na, q, vb))
        elif (q := _quotient(na, nb)) is not None:
            size = nb
            left.append((ca * nb, q, va))
        else:
            return None
        whole = not our_parts[va] and na == size
        symbol = va if whole else fresh(size)
        our_parts[va].append((symbol, size))
        their_parts[vb].append((symbol, size))
    if left or right:
        return None
    return Match(_combine(our_parts), _combine(their_parts))


def _sorted_terms(form: Linear) -> list[tuple[Expr, Expr, Symbol]] | None:
    """(coefficient, size, variable), greatest coefficient first; ``None`` if they cannot be ordered."""
    terms = [(c, v.size, v) for v, c in form.coefficients.items()]
    ordered: list[tuple[Expr, Expr, Symbol]] = []
    for term in terms:
        place = 0
        while place < len(ordered) and known_nonnegative(ordered[place][0] - term[0]):
            place += 1
        if any(not known_nonnegative(term[0] - o[0]) for o in ordered[place:]):
            return None
        ordered.insert(place, term)
    return ordered


def _quotient(n: Expr, d: Expr) -> Expr | None:
    """``n / d`` where that is a whole number of at least 2, else ``None``."""
    if d.constant == 0:
        return None
    if n.constant is not None and d.constant is not None:
        return as_expr(n.constant // d.constant) if n.constant % d.constant == 0 else None
    q = n // d
    return q if q * d == n and known_less(ONE, q) else None


def _combine(parts: dict[Symbol, list[tuple[Symbol, Expr]]]) -> dict[Symbol, Expr]:
    combined: dict[Symbol, Expr] = {}
    for v, pieces in parts.items():
        total, stride = ZERO, ONE
        for symbol, size in pieces:  # innermost first
            total = total + symbol.expr * stride
            stride = stride * size
        combined[v] = total
    return combined


def same_row(
    store: Expr,
    store_inner: Sequence[Symbol],
    load: Expr,
    load_inner: Sequence[Symbol],
    outer: Sequence[Symbol],
) -> bool:
    """Whether what is loaded at some point of ``outer`` was stored at the same point of ``outer``.

    Sufficient: both indices move alike with ``outer``, and the inner part of the load stays inside a dense
    run that the inner part of the store covers, or has the very same strides and sizes.
    """
    a, b = linear(store, [*outer, *store_inner]), linear(load, [*outer, *load_inner])
    if a is None:
        return False
    if b is None:
        # A computed index inside the row: only its outer part must be linear.
        b = linear(load, outer)
        if b is None:
            return False
    for v in outer:
        if a.coefficients.get(v, ZERO) != b.coefficients.get(v, ZERO):
            return False
    stored = [(a.coefficients[v], v.size) for v in store_inner if v in a.coefficients]
    if len(stored) != len(store_inner):
        # Several inner points write one element, and which comes last is not this row's business.
        return False
    moved = b.rest
    for v in load_inner:
        if v in b.coefficients:
            moved = moved + b.coefficients[v] * v.expr
    loaded = [(b.coefficients[v], v.size) for v in load_inner if v in b.coefficients]
    if a.rest == b.rest and sorted(map(str, stored)) == sorted(map(str, loaded)):
        return True
    run = ONE
    for c, n in sorted(stored, key=lambda t: t[0].bounds()[0] or 0):
        if c != run:
            return False
        run = run * n
    offset = moved - a.rest
    return known_nonnegative(offset) and known_less(offset, run)


def numel(variables: Sequence[Symbol]) -> Expr:
    """How many points the loops have."""
    return product(v.size for v in variables)
