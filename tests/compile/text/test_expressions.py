"""Symbolic numbers and conditions as text and back."""

from __future__ import annotations

import ast
from typing import Any

import pytest
import sympy
from hypothesis import given, settings
from hypothesis import strategies as st

from braze._torch.sympy_functions import BY_WORD
from braze.compile.text.expressions import RELATIONS, ExpressionPrinter, ExpressionReader
from braze.compile.text.source import Source
from braze.errors import ParseError, UnserializableError

SYMBOLS = {
    **{name: sympy.Symbol(name, integer=True, positive=True) for name in ("s0", "s1", "s12")},
    "u0": sympy.Symbol("u0", integer=True),
}


def _read(text: str, kind: str) -> Any:
    source = Source(text)
    (statement,) = source.body
    assert isinstance(statement, ast.Expr)
    return getattr(ExpressionReader(source, SYMBOLS), kind)(statement.value)


def parse_expression(text: str) -> Any:
    return _read(text, "number")


def parse_condition(text: str) -> Any:
    return _read(text, "condition")


def numbers(leaves_at_most: int = 8) -> st.SearchStrategy[Any]:
    leaves = st.integers(-9, 9).map(sympy.Integer) | st.sampled_from(list(SYMBOLS.values()))
    positive = st.integers(1, 9).map(sympy.Integer) | st.sampled_from([SYMBOLS["s0"], SYMBOLS["s1"]])

    def grown(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        return st.one_of(
            st.tuples(inner, inner).map(lambda p: p[0] + p[1]),
            st.tuples(inner, inner).map(lambda p: p[0] - p[1]),
            st.tuples(inner, inner).map(lambda p: p[0] * p[1]),
            st.tuples(inner, positive).map(lambda p: BY_WORD["floordiv"](*p)),
            st.tuples(inner, positive).map(lambda p: BY_WORD["pymod"](*p)),
            st.tuples(inner, inner).map(lambda p: BY_WORD["max"](*p)),
            st.tuples(inner, inner).map(lambda p: BY_WORD["min"](*p)),
            st.tuples(inner, positive).map(lambda p: BY_WORD["inttruediv"](*p)),
            inner.map(lambda x: BY_WORD["float"](x)),
        )

    return st.recursive(leaves, grown, max_leaves=leaves_at_most)


@st.composite
def conditions(draw: st.DrawFn) -> Any:
    relations = st.builds(
        lambda kind, a, b: kind(a, b), st.sampled_from(list(RELATIONS.values())), numbers(3), numbers(3)
    )
    first, second, third = draw(relations), draw(relations), draw(relations)
    return draw(st.sampled_from([first, sympy.And(first, second), sympy.Or(sympy.And(first, second), third)]))


@settings(max_examples=200, deadline=None)
@given(numbers())
def test_numbers(e: Any) -> None:
    text = ExpressionPrinter().text(e)
    again = parse_expression(text)
    assert ExpressionPrinter().text(again) == text
    assert again == e or sympy.expand(again - e) == 0


@settings(max_examples=40, deadline=None)
@given(conditions())
def test_conditions(e: Any) -> None:
    text = ExpressionPrinter().text(e)
    assert ExpressionPrinter().text(parse_condition(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "2*(s0//2) + s0*s1 - 3",
        "-s0 + s1",
        "s0**2*s1",
        "(s0 + 1) % s1",
        "s0//(2*s1)",
        "-((s0 % s1)//2)",
        "(-s0)//2",
        "max(1, u0)",
        "ratio(1, 2)*s0",
        "float(0.0)**2",
        "power(s0, -1)",
        "inttruediv(s0, 3) + 0.5",
        "piecewise(1, s0 == s1, 0, True)",
        "sqrt(float(s0))",
        "bitwise_and(3, u0)",
    ],
)
def test_some_prints(text: str) -> None:
    assert ExpressionPrinter().text(parse_expression(text)) == text


def test_signs_bind_as_in_python() -> None:
    read = parse_expression("-s0//2 - -3*s1")
    assert ExpressionPrinter().text(read) == "(-s0)//2 + 3*s1"


def test_there_are_no_fractions() -> None:
    with pytest.raises(ParseError, match="line 1, column 1: no size is computed like this"):
        parse_expression("s0/2")


def test_new_names_follow_the_order_of_appearance() -> None:
    a, b = SYMBOLS["s12"], SYMBOLS["s1"]
    printer = ExpressionPrinter(renumber=True)
    assert [printer.text(e) for e in (a, b + SYMBOLS["u0"], a * b)] == ["s0", "s1 + u0", "s0*s1"]
    other = ExpressionPrinter(renumber=True)
    assert [other.text(e) for e in (b, a + SYMBOLS["u0"], a * b)] == ["s0", "s1 + u0", "s0*s1"]


def test_functions_of_others_have_no_form() -> None:
    with pytest.raises(UnserializableError, match="no printed form"):
        ExpressionPrinter().text(sympy.Function("f")(SYMBOLS["s0"]))
    with pytest.raises(UnserializableError, match="no printed form"):
        ExpressionPrinter().text(sympy.sin(SYMBOLS["s0"]))
