"""Reads the printed form of symbolic numbers and conditions. Nothing is evaluated but sympy's own rules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sympy

from braze._torch.sympy_functions import BY_WORD
from braze.compile.text.expressions import RELATIONS
from braze.compile.text.lexer import Cursor, Token

__all__ = ["parse_condition", "parse_expression"]

MAX_DEPTH = 40
MAX_POWER = 64


def parse_expression(cursor: Cursor, symbols: Mapping[str, sympy.Symbol]) -> Any:
    """A number or a sympy expression over `symbols`. Raises `ParseError`."""
    start = cursor.token
    found = _Parser(cursor, symbols).sum()
    if isinstance(found, sympy.logic.boolalg.Boolean) and not isinstance(found, sympy.Symbol):
        cursor.fail("a number was expected, not a condition", start)
    return _finite(found, cursor, start)


def parse_condition(cursor: Cursor, symbols: Mapping[str, sympy.Symbol]) -> Any:
    """A sympy boolean over `symbols`. Raises `ParseError`."""
    start = cursor.token
    found = _Parser(cursor, symbols).condition()
    if not isinstance(found, sympy.logic.boolalg.Boolean) or isinstance(found, sympy.Symbol):
        cursor.fail("a condition was expected, not a number", start)
    return _finite(found, cursor, start)


def _finite(found: Any, cursor: Cursor, start: Token) -> Any:
    if found.has(sympy.zoo, sympy.nan, sympy.oo, -sympy.oo):
        cursor.fail("this is not a finite number", start)
    return found


class _Parser:
    """Recursive descent, one method for each level of precedence."""

    def __init__(self, cursor: Cursor, symbols: Mapping[str, sympy.Symbol]) -> None:
        self.cursor = cursor
        self.symbols = symbols
        self.depth = 0

    def condition(self) -> Any:
        """Or, and, not and relations; also a plain number, which is no condition where one is needed."""
        parts = [self._conjunction()]
        while self.cursor.accept("or"):
            parts.append(self._conjunction())
        return parts[0] if len(parts) == 1 else self._made(sympy.Or, parts)

    def _conjunction(self) -> Any:
        parts = [self._negation()]
        while self.cursor.accept("and"):
            parts.append(self._negation())
        return parts[0] if len(parts) == 1 else self._made(sympy.And, parts)

    def _negation(self) -> Any:
        if self.cursor.accept("not"):
            return self._made(sympy.Not, [self._nested(self._negation)])
        left = self.sum()
        relation = RELATIONS.get(self.cursor.token.text)
        if relation is None:
            return left
        self.cursor.next()
        return self._made(relation, [left, self.sum()])

    def sum(self) -> Any:
        """Terms, added and subtracted."""
        terms = [self._term()]
        while True:
            if self.cursor.accept("+"):
                terms.append(self._term())
            elif self.cursor.accept("-"):
                terms.append(self._made(sympy.Mul, [-1, self._term()]))
            else:
                return terms[0] if len(terms) == 1 else self._made(sympy.Add, terms)

    def _term(self) -> Any:
        factors = [self._factor()]
        while True:
            if self.cursor.accept("*"):
                factors.append(self._factor())
                continue
            word = {"//": "floordiv", "%": "mod"}.get(self.cursor.token.text)
            if word is None:
                return factors[0] if len(factors) == 1 else self._made(sympy.Mul, factors)
            self.cursor.next()
            left = factors[0] if len(factors) == 1 else self._made(sympy.Mul, factors)
            factors = [self._made(BY_WORD[word], [left, self._factor()])]

    def _factor(self) -> Any:
        if self.cursor.accept("-"):
            return self._made(sympy.Mul, [-1, self._nested(self._factor)])
        return self._power()

    def _power(self) -> Any:
        base = self._atom()
        if not self.cursor.accept("**"):
            return base
        token = self.cursor.token
        exponent = self.cursor.integer("an exponent")
        return self._raised(base, exponent, token)

    def _raised(self, base: Any, exponent: Any, token: Token) -> Any:
        e = sympy.sympify(exponent) if isinstance(exponent, int) else exponent
        small = isinstance(e, sympy.Rational) and max(abs(int(e.p)), int(e.q)) <= MAX_POWER
        # a power of powers can be larger than any memory
        if not small or not isinstance(base, sympy.Expr) or base.is_number or base.has(sympy.Pow):
            self.cursor.fail("a power like this has no place in a graph", token)
        return self._made(sympy.Pow, [base, e])

    def _atom(self) -> Any:
        token = self.cursor.next()
        if token.kind == "integer":
            return sympy.Integer(int(token.text))
        if token.kind == "float":
            return sympy.Float(float(token.text))
        if token.text == "(" and token.kind == "sign":
            inner = self._nested(self.condition)
            self.cursor.require(")")
            return inner
        if token.kind == "word":
            if token.text in ("True", "False"):
                return sympy.true if token.text == "True" else sympy.false
            symbol = self.symbols.get(token.text)
            if symbol is not None:
                return symbol
            if self.cursor.token.text == "(":
                return self._call(token)
            return self.cursor.fail(f"no symbol {token.text!r} was declared", token)
        return self.cursor.fail(f"a number, a symbol or a function was expected, not {token.text!r}", token)

    def _call(self, word: Token) -> Any:
        self.cursor.require("(")
        args = [self._nested(self.condition)]
        while self.cursor.accept(","):
            args.append(self._nested(self.condition))
        self.cursor.require(")")
        if word.text == "ratio":
            numbers = [int(a) for a in args if isinstance(a, sympy.Integer)]
            if len(numbers) != 2 or len(args) != 2 or numbers[1] <= 0:
                self.cursor.fail("a ratio is of two integers", word)
            return sympy.Rational(*numbers)
        if word.text == "power":
            if len(args) != 2:
                self.cursor.fail("a power takes two numbers", word)
            return self._raised(args[0], args[1], word)
        if word.text == "piecewise":
            pairs = list(zip(args[::2], args[1::2], strict=False))
            if len(args) % 2:
                self.cursor.fail("a value of a piecewise number has no condition", word)
            return self._made(sympy.Piecewise, pairs)
        function = BY_WORD.get(word.text)
        if function is None:
            self.cursor.fail(f"there is no function {word.text!r}", word)
        return self._made(function, args)

    def _nested(self, parse: Any) -> Any:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            self.cursor.fail("this is nested too deeply")
        found = parse()
        self.depth -= 1
        return found

    def _made(self, kind: Any, args: list[Any]) -> Any:
        """sympy's object of these parts. It refuses some: a division by zero, an `and` of numbers."""
        token = self.cursor.token
        try:
            return kind(*args)
        except Exception as error:
            self.cursor.fail(f"not an expression: {error}", token)
