"""Matching loops through indices, by enumeration."""

from __future__ import annotations

from itertools import product as points

from hypothesis import given
from hypothesis import strategies as st

from braze.runtime.expr import Expr, Symbol, as_expr
from braze.schedule.groups import expand
from braze.schedule.indexing import linear, match_indices, same_row


class Fresh:
    def __init__(self) -> None:
        self.count = 0

    def __call__(self, size: Expr) -> Symbol:
        self.count += 1
        return Symbol(f"x{self.count}", 0, size - 1)


def dense(sizes: list[int], order: list[int], prefix: str) -> tuple[list[Symbol], Expr]:
    """Loop variables of these sizes (1 has none) and a dense index, ``order`` from the innermost out."""
    variables = [Symbol(f"{prefix}{k}", 0, n - 1) for k, n in enumerate(sizes)]
    index, stride = as_expr(0), 1
    for k in order:
        if sizes[k] > 1:
            index = index + variables[k].expr * stride
        stride *= sizes[k]
    return [v for v, n in zip(variables, sizes, strict=True) if n > 1], index


shapes = st.lists(st.integers(1, 4), min_size=1, max_size=3)


@given(shapes, st.randoms(use_true_random=False), st.booleans())
def test_a_match_makes_the_indices_equal(sizes: list[int], rng: object, flat: bool) -> None:
    order = list(range(len(sizes)))
    rng.shuffle(order)  # type: ignore[attr-defined]
    ours, a = dense(sizes, order, "a")
    total = 1
    for n in sizes:
        total *= n
    theirs, b = (
        dense([total], [0], "b")
        if flat
        else dense([sizes[k] for k in order][::-1], [*range(len(sizes))][::-1], "b")
    )
    match = match_indices(a, ours, b, theirs, Fresh())
    assert match is not None
    left, right = a.substitute(match.ours), b.substitute(match.theirs)
    assert left == right
    common = sorted(left.free_symbols, key=lambda s: s.name)
    seen = {
        left.evaluate(dict(zip([s.name for s in common], p, strict=True)))
        for p in points(*[range(s.size.constant or 0) for s in common])
    }
    assert seen == set(range(total)) or total == 1
    assert set(expand(tuple(theirs), match.theirs)) == set(common)


def test_indices_of_other_places_do_not_match() -> None:
    i, j = Symbol("i", 0, 7), Symbol("j", 0, 7)
    assert match_indices(i.expr, [i], j.expr + 1, [j], Fresh()) is None
    assert match_indices(i.expr * 2, [i], j.expr, [j], Fresh()) is None
    assert match_indices(i.expr, [i], j.expr * j.expr, [j], Fresh()) is None


def test_an_empty_loop_matches_no_other() -> None:
    size = Symbol("n", 2).expr
    i, j = Symbol("i", 0, size - 1), Symbol("j", 0, -1)
    assert match_indices(i.expr, [i], j.expr, [j], Fresh()) is None
    assert match_indices(j.expr, [j], i.expr, [i], Fresh()) is None


def test_symbolic_sizes_match() -> None:
    n = Symbol("s0", 2).expr
    i, j, k = Symbol("i0", 0, n - 1), Symbol("i1", 0, 63), Symbol("k", 0, n * 64 - 1)
    match = match_indices(i.expr * 64 + j.expr, [i, j], k.expr, [k], Fresh())
    assert match is not None
    assert k.expr.substitute(match.theirs) == (i.expr * 64 + j.expr).substitute(match.ours)


def test_rows() -> None:
    o, i, r = Symbol("o", 0, 9), Symbol("i", 0, 15), Symbol("r", 0, 15)
    stored = o.expr * 16 + i.expr
    assert same_row(stored, [i], o.expr * 16 + r.expr, [r], [o])
    assert same_row(stored, [i], o.expr * 16 + 3, [], [o])
    assert not same_row(stored, [i], o.expr * 16 + r.expr + 1, [r], [o])
    assert not same_row(stored, [i], r.expr, [r], [o])
    assert not same_row(stored, [i], o.expr * 32 + r.expr, [r], [o])


def test_linear_forms() -> None:
    i, j = Symbol("i", 0, 7), Symbol("j", 0, 7)
    form = linear(i.expr * 8 + j.expr + 5, [i, j])
    assert form is not None
    assert form.coefficients == {i: as_expr(8), j: as_expr(1)}
    assert form.rest == 5
    assert linear(i.expr * j.expr, [i, j]) is None
    assert linear((i.expr + 1) // 3, [i]) is None
