from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from braze.runtime.expr import Symbol
from braze.runtime.expr_parser import parse_condition
from braze.runtime.guard import FALSE, TRUE, BoolExpr, all_of, any_of, compare, negate
from tests.runtime.exprs import BY_NAME, N, Tree, build, names_in, points, trees, value

RELATIONS = ("==", "!=", "<", "<=", ">", ">=")
Condition = tuple[object, ...]


def conditions() -> st.SearchStrategy[Condition]:
    leaves = st.tuples(st.sampled_from(RELATIONS), trees(4), trees(4))
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.tuples(st.sampled_from(["and", "or"]), inner, inner), st.tuples(st.just("not"), inner)
        ),
        max_leaves=5,
    )


def make(c: Condition) -> BoolExpr:
    if c[0] == "not":
        return negate(make(c[1]))  # type: ignore[arg-type]
    if c[0] in ("and", "or"):
        return (all_of if c[0] == "and" else any_of)([make(p) for p in c[1:]])  # type: ignore[arg-type]
    return compare(build(c[1]), c[0], build(c[2]))  # type: ignore[arg-type]


def holds(c: Condition, env: dict[str, int]) -> bool:
    if c[0] == "not":
        return not holds(c[1], env)  # type: ignore[arg-type]
    if c[0] in ("and", "or"):
        return (all if c[0] == "and" else any)(holds(p, env) for p in c[1:])  # type: ignore[arg-type]
    a, b = value(c[1], env), value(c[2], env)
    return {"==": a == b, "!=": a != b, "<": a < b, "<=": a <= b, ">": a > b, ">=": a >= b}[c[0]]  # type: ignore[index]


def names(c: Condition) -> set[str]:
    if c[0] in RELATIONS:
        return names_in(c[1]) | names_in(c[2])
    return set().union(*[names(p) for p in c[1:]])  # type: ignore[arg-type]


@given(conditions())
def test_evaluates_as_python_does(c: Condition) -> None:
    guard, opposite = make(c), negate(make(c))
    for env in points(names(c)):
        assert guard.evaluate(env) is holds(c, env)
        assert opposite.evaluate(env) is not holds(c, env)
        assert bool(eval(str(guard), {"min": min, "max": max}, env)) is holds(c, env)


@given(conditions())
def test_printed_form_parses_back(c: Condition) -> None:
    guard = make(c)
    again = parse_condition(str(guard), BY_NAME)
    assert again == guard
    assert str(again) == str(guard)
    assert negate(negate(guard)) == guard


@given(conditions(), trees(3))
def test_substitution_commutes_with_evaluation(c: Condition, for_i0: Tree) -> None:
    moved = make(c).substitute({BY_NAME["i0"]: build(for_i0)})
    for env in points(names_in(for_i0) | (names(c) - {"i0"})):
        i0 = value(for_i0, env)
        if 0 <= i0 <= 5:
            assert moved.evaluate(env) is holds(c, env | {"i0": i0})


def test_bounds_decide() -> None:
    n = N.expr
    assert compare(n, ">", 0) is TRUE
    assert compare(n, "==", 0) is FALSE
    assert compare(n, "!=", 9) is TRUE
    assert compare(n, "<=", n) is TRUE
    assert compare(n, ">", 2).constant is None
    assert (TRUE.constant, FALSE.constant) == (True, False)


def test_canonical_forms_meet() -> None:
    n, m = N.expr, Symbol("s1", 0).expr
    assert compare(n, "<", m) == compare(m, ">=", n + 1) == negate(compare(n, ">=", m))
    assert compare(n, "==", m) == compare(m, "==", n)
    both = all_of([compare(n, "<", m), compare(n, "<", m), TRUE])
    assert both == compare(n, "<", m)
    assert all_of([both, FALSE]) is FALSE
    assert any_of([both, TRUE]) is TRUE
    assert all_of([]) == TRUE
    assert any_of([]) == FALSE


def test_chained_comparisons_parse() -> None:
    guard = parse_condition("2 <= s0 < 5", BY_NAME)
    assert [guard.evaluate({"s0": k}) for k in (1, 2, 4, 5)] == [False, True, True, False]
    assert str(guard) == "s0 >= 2 and 4 >= s0"


@pytest.mark.parametrize(
    "text", ["", "s0", "s0 + 1", "s0 in s1", "s0 is 1", "1 < 2 if s0 else 3", "f(s0) > 1", "(lambda: 1) == 1"]
)
def test_only_the_grammar_parses(text: str) -> None:
    with pytest.raises(ValueError, match="not a"):
        parse_condition(text, BY_NAME)


def test_missing_symbol_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        compare(N.expr, ">", 2).evaluate({})
