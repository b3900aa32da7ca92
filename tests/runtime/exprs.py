"""Random integer expressions, each with the Python arithmetic that it should equal."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from hypothesis import strategies as st

from braze.runtime.expr import Expr, Symbol, as_expr, floordiv, maximum, minimum, mod

N = Symbol("s0", 1, 6)
M = Symbol("s1", 0)
SYMBOLS = (
    N,
    M,
    Symbol("i0", 0, 5),
    Symbol("i1", 0, N.expr - 1),
    Symbol("r0", 0, N.expr * 4 - 1),
    Symbol("u0", -3, 3),
)
BY_NAME = {s.name: s for s in SYMBOLS}

# A tree: an int, a symbol's name, or (operator, left, right).
Tree = object


def trees(max_leaves: int = 10) -> st.SearchStrategy[Tree]:
    """Expression trees over `SYMBOLS`; every divisor is positive wherever it is evaluated."""
    leaves = st.one_of(st.integers(-9, 70), st.sampled_from(sorted(BY_NAME)))
    divisors = st.one_of(st.integers(1, 24), st.just("s0"), st.just(("*", "s0", 4)))

    def extend(inner: st.SearchStrategy[Tree]) -> st.SearchStrategy[Tree]:
        return st.one_of(
            st.tuples(st.sampled_from("+-*+"), inner, inner),
            st.tuples(st.sampled_from(["//", "%"]), inner, divisors),
            st.tuples(st.sampled_from(["min", "max"]), inner, inner),
        )

    return st.recursive(leaves, extend, max_leaves=max_leaves)


def build(tree: Tree) -> Expr:
    """The tree as an Expr."""
    if isinstance(tree, int):
        return as_expr(tree)
    if isinstance(tree, str):
        return BY_NAME[tree].expr
    op, left, right = tree  # type: ignore[misc]
    a, b = build(left), build(right)
    table = {"+": a.__add__, "-": a.__sub__, "*": a.__mul__}
    if op in table:
        return table[op](b)
    return {"//": floordiv, "%": mod, "min": minimum, "max": maximum}[op](a, b)


def value(tree: Tree, env: dict[str, int]) -> int:
    """The tree by Python's arithmetic."""
    if isinstance(tree, int):
        return tree
    if isinstance(tree, str):
        return env[tree]
    op, left, right = tree  # type: ignore[misc]
    a, b = value(left, env), value(right, env)
    if op in ("min", "max"):
        return min(a, b) if op == "min" else max(a, b)
    return {"+": a + b, "-": a - b, "*": a * b}[op] if op in "+-*" else (a // b if op == "//" else a % b)


def points(names: set[str]) -> Iterator[dict[str, int]]:
    """Points of the symbols' ranges: every symbol named at its ends and between, the sizes first."""
    sizes = product((1, 2, 5, 6), (0, 1, 7))
    for s0, s1 in sizes:
        base = {"s0": s0, "s1": s1}
        ranges = []
        for name in ("i0", "i1", "r0", "u0"):
            s = BY_NAME[name]
            assert s.upper is not None
            last = s.upper.evaluate(base)
            middle = (s.lower + last) // 2
            choices = {s.lower, s.lower + 1, middle, last - 1, last} if name in names else {s.lower}
            ranges.append(sorted(v for v in choices if s.lower <= v <= last))
        for rest in product(*ranges):
            yield base | dict(zip(("i0", "i1", "r0", "u0"), rest, strict=True))


def names_in(tree: Tree) -> set[str]:
    """The symbols of a tree."""
    if isinstance(tree, int):
        return set()
    if isinstance(tree, str):
        return {tree}
    return names_in(tree[1]) | names_in(tree[2])  # type: ignore[index]
