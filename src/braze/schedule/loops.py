"""Loop order, merging of contiguous loops, and canonical names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from braze.ops.dag import Dag, IndirectSymbol, Node
from braze.ops.kernel import Stage
from braze.runtime.expr import ZERO, Expr, FloorDiv, Mod, Symbol, as_expr, known_nonnegative
from braze.schedule.drafts import StageDraft
from braze.schedule.indexing import linear


def order_loops(variables: Sequence[Symbol], indices: Iterable[tuple[Expr, int]]) -> tuple[Symbol, ...]:
    """The loops from outermost to innermost, such that most accesses move through memory with small steps.

    Every index (with a weight) that is linear in the variables votes for the order of its strides; ties keep
    the given order.
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
    """Make one loop of neighbours that every index crosses with one stride, and give the loops canonical
    names ``<prefix><first>``, ... Returns the new loops and what the old variables become."""
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


MIN_INNER = 32
"""A loop that runs through neighbouring elements is split only into pieces at least this long, so that
vectors fit."""


def without_divisions(dag: Dag, stage: Stage) -> Stage:
    """The stage with loops split where indices divide their variables: with ``i = 8*a + b``, ``i//8`` is
    ``a``.

    Indices are then linear, and loops of other operations can be matched with them.
    """
    found: dict[Symbol, set[int]] = {}
    for e in expressions(StageDraft(stage.vars, stage.rvars, list(stage.stores))):
        _divisions(e, found)
    if not found:
        return stage
    walked = [s.index for s in stage.stores]
    widest = max((len(n.index.free_symbols) for n in stage.loads), default=0)
    if stage.rvars:
        walked += [n.index for n in stage.loads if len(n.index.free_symbols) == widest]
    mapping: dict[Symbol, Expr] = {}
    vars, rvars = list(stage.vars), list(stage.rvars)
    for variables in (vars, rvars):
        for v in list(variables):
            pieces = _pieces(v, found.get(v, set()), walked)
            if pieces is not None:
                at = variables.index(v)
                variables[at : at + 1] = [s for s, _ in pieces]
                mapping[v] = sum((s.expr * stride for s, stride in pieces), ZERO)
    if not mapping:
        return stage
    stores = tuple(s.substituted(dag, mapping) for s in stage.stores)
    return Stage(tuple(vars), tuple(rvars), stores)


def _divisions(e: Expr, found: dict[Symbol, set[int]]) -> None:
    """Collect the constants by which loop variables alone are divided in ``e``."""
    for atom in e.atoms():
        for part in atom.parts:
            _divisions(part, found)
        if isinstance(atom, (FloorDiv, Mod)) and atom.den.constant is not None:
            for v in atom.num.free_symbols:
                if v.upper is not None and not isinstance(v, IndirectSymbol):
                    split = atom.num.coefficient(v)
                    c = None if split is None else split[0].constant
                    if c is not None and c > 0 and atom.den.constant % c == 0:
                        found.setdefault(v, set()).add(atom.den.constant // c)


def _pieces(v: Symbol, divisors: set[int], walked: Sequence[Expr]) -> list[tuple[Symbol, int]] | None:
    """The loops that replace ``v``, outermost first, each with its stride; ``None`` if it stays whole.
    ``walked``: the indices that most of the memory traffic goes through."""
    size = v.size.constant
    if size is None:
        return None
    steps: list[int] = []
    for d in sorted(divisors):
        if size % d == 0 and 1 < d < size and d % (steps[-1] if steps else 1) == 0:
            steps.append(d)
    if not steps:
        return None
    neighbours = any((split := e.coefficient(v)) is not None and split[0] == 1 for e in walked)
    if neighbours and steps[0] < MIN_INNER:
        return None
    bounds = [1, *steps, size]
    pieces = [
        (Symbol(f"{v.name}_{k}", 0, bounds[k + 1] // bounds[k] - 1), bounds[k])
        for k in range(len(bounds) - 1)
    ]
    return pieces[::-1]
