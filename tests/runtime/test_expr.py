from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from braze.runtime.expr import (
    Expr,
    FloorDiv,
    Symbol,
    as_expr,
    floordiv,
    known_less,
    known_nonnegative,
    known_positive,
    maximum,
    minimum,
    mod,
    product,
)
from braze.runtime.expr_parser import parse_expr
from tests.runtime.exprs import BY_NAME, SYMBOLS, Tree, build, names_in, points, trees, value

S0, S1, I0, I1, R0, U0 = (s.expr for s in SYMBOLS)


@given(trees())
def test_simplification_keeps_the_value(tree: Tree) -> None:
    e = build(tree)
    for env in points(names_in(tree)):
        assert e.evaluate(env) == value(tree, env), (e, env)


@given(trees())
def test_bounds_and_signs_hold_everywhere(tree: Tree) -> None:
    e = build(tree)
    low, high = e.bounds()
    nonnegative = known_nonnegative(e)
    for env in points(names_in(tree)):
        v = e.evaluate(env)
        assert (low is None or low <= v) and (high is None or v <= high)
        assert not nonnegative or v >= 0


@given(trees())
def test_printed_form_parses_back(tree: Tree) -> None:
    e = build(tree)
    again = parse_expr(str(e), BY_NAME)
    assert again == e
    assert again.key == e.key
    assert hash(again) == hash(e)
    assert str(again) == str(e)


@given(trees())
def test_printed_form_is_python(tree: Tree) -> None:
    e = build(tree)
    for env in points(names_in(tree)):
        assert eval(str(e), {"min": min, "max": max}, env) == e.evaluate(env)


@given(trees(), trees(4), trees(4))
def test_substitution_commutes_with_evaluation(tree: Tree, for_i0: Tree, for_r0: Tree) -> None:
    e, new = build(tree), {BY_NAME["i0"]: build(for_i0), BY_NAME["r0"]: build(for_r0)}
    for env in points(names_in(for_i0) | names_in(for_r0) | (names_in(tree) - {"i0", "r0"})):
        moved = env | {"i0": value(for_i0, env), "r0": value(for_r0, env)}
        # Simplification of e may have used the ranges of i0 and r0, so only points inside them count.
        if 0 <= moved["i0"] <= 5 and 0 <= moved["r0"] < 4 * env["s0"]:
            assert e.substitute(new).evaluate(env) == e.evaluate(moved)


@given(trees(5), trees(5), trees(5))
def test_ring_laws(x: Tree, y: Tree, z: Tree) -> None:
    a, b, c = build(x), build(y), build(z)
    assert a + b == b + a
    assert a * b == b * a
    assert (a + b) + c == a + (b + c)
    assert a * (b + c) == a * b + a * c
    assert a - a == 0
    assert -1 * (-a) == a


@given(trees(5), st.integers(1, 24))
def test_quotient_and_remainder_join_again(tree: Tree, d: int) -> None:
    e = build(tree)
    if mod(e, d).constant is None:
        joined = floordiv(e, d) * d + mod(e, d)
        for env in points(names_in(tree)):
            assert joined.evaluate(env) == e.evaluate(env)


@given(trees(6))
def test_coefficient_splits_linearly(tree: Tree) -> None:
    e = build(tree)
    for s in e.free_symbols:
        split = e.coefficient(s)
        if split is not None:
            slope, rest = split
            assert s not in slope.free_symbols | rest.free_symbols
            assert slope * s.expr + rest == e


def test_splitting_and_merging_an_index() -> None:
    n, r = Symbol("i7", 0, 99), Symbol("r7", 0, 63)
    flat = n.expr * 64 + r.expr
    assert flat // 64 == n.expr
    assert flat % 64 == r.expr
    q = Symbol("i8", 0, 6399).expr
    assert (q // 64) * 64 + q % 64 == q
    assert (q // 64) * 128 + (q % 64) * 2 == q * 2
    assert (q // 8) // 8 == q // 64
    assert (q % 64) % 8 == q % 8


def test_symbolic_extents_cancel() -> None:
    n = Symbol("n", 1, 4096)
    for size in (n.expr, Symbol("m", 0).expr):
        i = Symbol("i", 0, size - 1)
        assert known_less(i.expr, size)
        assert known_nonnegative(size - 1 - i.expr)
        assert (i.expr + size * 3) // size == 3
        assert mod(i.expr + size * 3, size) == i.expr


def test_minimum_and_maximum_use_bounds() -> None:
    assert minimum(I0, 5) == I0
    assert maximum(I0, 0, -4) == I0
    assert maximum(I0, 9) == 9
    assert str(minimum(S1, 8, minimum(S1, 12))) == "min(8, s1)"
    assert known_positive(S0)
    assert not known_positive(S1)


def test_quotients_are_no_larger_than_what_they_divide() -> None:
    n = Symbol("n", 2).expr
    for part in (n // 2, (n + 1) // 2, n - n // 2, n - (n + 1) // 2):
        assert known_nonnegative(n - part)
        assert known_nonnegative(part)
    assert known_nonnegative(n - n // 3 - n // 2)
    assert not known_nonnegative(n - 1 - (n + 3) // 2)
    assert not known_nonnegative(n // 2 - 2)


def test_signs_of_squares() -> None:
    n, few = Symbol("n", 2).expr, Symbol("k", 2, 3).expr
    assert known_nonnegative(n * n - n)
    assert known_nonnegative(n * n * n - n * n * 2)
    assert not known_nonnegative(n * n - n * 3)
    assert not known_nonnegative(n - n * n)
    assert known_nonnegative(n * n * 2 - n * few - few * few + few + 6)
    assert not known_nonnegative(n * few - few * few * 2)


def test_a_number_is_the_integer_that_it_is() -> None:
    for k in (-70000, -1, 0, 1, 5000):
        e = as_expr(k)
        assert e == k
        assert hash(e) == hash(k)
        assert e.constant == k
        assert str(e) == str(k)
    assert (S0 - S0) in {0}


def test_equal_expressions_are_equal_whatever_made_them() -> None:
    assert (S0 + 1) * (S0 - 1) == S0 * S0 - 1
    assert len({(S0 + S1) * 2, S0 * 2 + S1 * 2, 2 * S1 + 2 * S0}) == 1
    assert Symbol("i0", 0, 5) == Symbol("i0", 0, 5)
    assert Symbol("i0", 0, 5) != Symbol("i0", 0, 6)
    assert product([S0, 2, S1]) == S0 * S1 * 2


def test_division_by_what_is_not_positive_is_refused() -> None:
    for bad in (floordiv, mod):
        with pytest.raises(ZeroDivisionError):
            bad(S0, 0)
    with pytest.raises(ZeroDivisionError):
        mod(S0, -3)
    assert floordiv(S0, -1) == -S0


def test_missing_symbol_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        (S0 + S1).evaluate({"s0": 1})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "s0 +",
        "s9",
        "s0 / 2",
        "s0 ** 2",
        "f(s0)",
        "min()",
        "1.5",
        "True",
        "s0.x",
        "[s0]",
        "s0; s0",
        "s0 % 0",
    ],
)
def test_only_the_grammar_parses(text: str) -> None:
    with pytest.raises(ValueError, match="not an integer expression"):
        parse_expr(text, BY_NAME)


@pytest.mark.parametrize(
    "text",
    [
        "s0" + " + s0" * 5000,
        "-" * 5000 + "s0",
        "(" * 5000 + "s0" + ")" * 5000,
        "s0" + "(" * 5000,
        "9" * 5000,
        "9" * 20 + "*" + "9" * 20,
        "*".join(["(s0 + s1 + i0 + i1 + r0 + u0 + 1)"] * 100),
        "s0" * 50_000,
        "s0\n+ s1",
        "s0\0",
        "\u0661",
    ],
)
def test_what_no_printer_writes_is_refused_at_once(text: str) -> None:
    with pytest.raises(ValueError, match=r"not an integer expression|a product of|not a size"):
        parse_expr(text, BY_NAME)


def test_sums_longer_than_the_stack_is_deep() -> None:
    symbols = {f"v{k}": Symbol(f"v{k}", 0) for k in range(700)}
    text = " + ".join(symbols)
    assert str(parse_expr(text, symbols)) == str(sum((s.expr for s in symbols.values()), as_expr(0)))


def test_long_sums_stay_cheap() -> None:
    symbols = [Symbol(f"v{k}", 0, 3) for k in range(300)]
    total: Expr = as_expr(0)
    for k, s in enumerate(symbols):
        total = total + s.expr * k
    assert total.bounds() == (0, 3 * sum(range(300)))
    assert total.substitute(dict.fromkeys(symbols, 1)) == sum(range(300))


def test_a_nest_of_divisions_folds() -> None:
    e = Symbol("q", 0).expr
    for _ in range(200):
        e = floordiv(e, 2)
    [atom] = e.atoms()
    assert isinstance(atom, FloorDiv)
    assert atom.den == 2**200
