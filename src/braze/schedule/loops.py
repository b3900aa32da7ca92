"""Loop order, merging of contiguous loops, and canonical names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from braze.ops.dag import Node
from braze.runtime.expr import ZERO, Expr, Symbol, as_expr, known_nonnegative
from braze.schedule.groups import StageDraft
from braze.schedule.indexing import linear


def order_loops(variables: Sequence[Symbol], indices: Iterable[tuple[Expr, int]]) -> tuple[Symbol, ...]:
    """The loops from outermost to innermost, such that most accesses move through memory with small steps.

    Every index (with a weight) that is linear in the variables votes for the order of its strides; ties keep the
    given order.
    """
    votes: Counter[tuple[Symbol, ...]] = Counter()
    for index, weight in indices:
        form = linear(index, variables)
        if form is None or len(form.coefficients) < 2:
            continue
        order = _by_stride(variables, form.coefficients)
        if order is not None:
            votes[order] += weight * len(form.coefficients)
    if not votes:
        return tuple(variables)
    best = max(votes.values())
    for order, count in votes.items():
        if count == best:
            return order
    raise AssertionError("unreachable: one of the orders has the most votes")


def _by_stride(variables: Sequence[Symbol], coefficients: dict[Symbol, Expr]) -> tuple[Symbol, ...] | None:
    """Variables by falling stride; those that do not occur keep their place before the next one that does."""
    placed: list[tuple[Expr, Symbol]] = []
    for v in variables:
        c = coefficients.get(v)
        if c is None:
            continue
        place = len(placed)
        while place > 0 and known_nonnegative(c - placed[place - 1][0] - 1):
            place -= 1
        placed.insert(place, (c, v))
    order = [v for _, v in placed]
    slots = [k for k, v in enumerate(variables) if v in coefficients]
    result = list(variables)
    for slot, v in zip(slots, order, strict=True):
        result[slot] = v
    return tuple(result)


def expressions(draft: StageDraft) -> list[Expr]:
    """Every index expression in a stage: of loads, stores, and index values."""
    found: dict[Expr, None] = {}
    for store in draft.stores:
        found[store.index] = None
    for node in draft.nodes:
        for attr in node.attrs:
            if isinstance(attr, Expr):
                found[attr] = None
    return list(found)


def merge_loops(
    variables: Sequence[Symbol], exprs: Sequence[Expr], prefix: str, first: int = 0
) -> tuple[tuple[Symbol, ...], dict[Symbol, Expr]]:
    """Make one loop of neighbours that every index crosses with one stride, and give the loops canonical names
    ``<prefix><first>``, ... Returns the new loops and what the old variables become."""
    runs: list[list[Symbol]] = []
    for v in variables:
        if runs and _mergeable(runs[-1][-1], v, exprs):
            runs[-1].append(v)
        else:
            runs.append([v])
    merged: list[Symbol] = []
    mapping: dict[Symbol, Expr] = {}
    for run in runs:
        size = as_expr(1)
        for v in run:
            size = size * v.size
            mapping[v] = ZERO
        symbol = Symbol(f"{prefix}{first + len(merged)}", 0, size - 1)
        merged.append(symbol)
        mapping[run[-1]] = symbol.expr
    return tuple(merged), mapping


def _mergeable(outer: Symbol, inner: Symbol, exprs: Sequence[Expr]) -> bool:
    for e in exprs:
        free = e.free_symbols
        if outer not in free and inner not in free:
            continue
        form = linear(e, (outer, inner))
        if form is None:
            return False
        if form.coefficients.get(outer, ZERO) != form.coefficients.get(inner, ZERO) * inner.size:
            return False
    return True


def scan_variables(nodes: Iterable[Node]) -> set[Symbol]:
    """The loops along which scans run: they cannot be merged with others or reordered among themselves."""
    return {
        s for n in nodes if n.op == "scan" for a in n.attrs if isinstance(a, Expr) for s in a.free_symbols
    }
