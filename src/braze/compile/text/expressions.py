"""Symbolic numbers and conditions as text: ``2*(s77//2)``, ``s27 % 8 == 0``.

The grammar is closed: numbers, symbols, sums, products, powers, relations, and, or, not, and the functions of
`braze._torch.sympy_functions.BY_WORD`. Operands of commutative operations are ordered by their text, so the
print depends on neither hashes nor the order in which symbols were made.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import sympy

from braze._torch.sympy_functions import BY_WORD
from braze.errors import UnserializableError

__all__ = ["ADDITION", "ATOM", "COMPARISON", "PRODUCT", "RELATIONS", "ExpressionPrinter"]

OR, AND, NOT, COMPARISON, ADDITION, PRODUCT, POWER, ATOM = range(8)
"""How tightly each form binds."""

RELATIONS: dict[str, Any] = {
    "==": sympy.Eq,
    "!=": sympy.Ne,
    "<": sympy.Lt,
    "<=": sympy.Le,
    ">": sympy.Gt,
    ">=": sympy.Ge,
}
_RELATION_SIGNS = {kind: sign for sign, kind in RELATIONS.items()}
_WORDS = {kind: word for word, kind in BY_WORD.items()}
_COMMUTATIVE = frozenset({"max", "min", "bitwise_and", "bitwise_or", "bitwise_xor"})
# a name right behind a % would be a node
_INFIX = {"floordiv": "//", "mod": " % "}
_IDENTIFIER = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_PREFIX = re.compile(r"zuf|zf|u|s")


class ExpressionPrinter:
    """Prints expressions; `symbols` are those met so far, in order, with the names that they are printed
    under. `renumber`: these are new names, in order of appearance, of the same kinds (`s0`, `u0`, ...)."""

    def __init__(self, renumber: bool = False) -> None:
        self.symbols: dict[sympy.Symbol, str] = {}
        self._renumber = renumber
        self._taken: set[str] = set()
        self._done: dict[Any, tuple[str, int]] = {}

    def text(self, expression: Any, least: int = OR) -> str:
        """The expression, in parentheses if it binds less tightly than `least`. Raises
        `UnserializableError` for what the grammar has no form for."""
        found = self._done.get(expression)
        if found is None:
            found = self._done[expression] = self._print(expression)
        return found[0] if found[1] >= least else f"({found[0]})"

    def _print(self, e: Any) -> tuple[str, int]:
        if isinstance(e, int):
            return str(e), ATOM if e >= 0 else PRODUCT
        found = _PRINTERS.get(type(e))
        if found is not None:
            return found(self, e)
        sign = _RELATION_SIGNS.get(type(e))
        if sign is not None:
            left, right = (self.text(a, ADDITION) for a in e.args)
            return f"{left} {sign} {right}", COMPARISON
        word = _WORDS.get(type(e))
        if word is not None:
            return self._function(word, e)
        if isinstance(e, sympy.Integer):
            return self._print(int(e))
        if isinstance(e, sympy.Rational):
            return f"ratio({e.p}, {e.q})", ATOM
        raise UnserializableError(f"the symbolic number {e} has no printed form ({type(e).__name__})")

    def _function(self, word: str, e: sympy.Basic) -> tuple[str, int]:
        infix = _INFIX.get(word)
        if infix is not None:
            left, right = self.text(e.args[0], POWER), self.text(e.args[1], POWER)
            return f"{left}{infix}{right}", PRODUCT
        args = [self.text(a) for a in e.args]
        if word in _COMMUTATIVE:
            args.sort()
        return f"{word}({', '.join(args)})", ATOM

    def _symbol(self, e: sympy.Symbol) -> tuple[str, int]:
        name = self.symbols.get(e)
        if name is None:
            name = self.symbols[e] = self._new_name(e)
        return name, ATOM

    def _new_name(self, e: sympy.Symbol) -> str:
        name = str(e.name)
        if self._renumber:
            prefix = _PREFIX.match(name)
            if prefix is not None:
                number = sum(1 for taken in self._taken if taken.rstrip("0123456789") == prefix[0])
                name = f"{prefix[0]}{number}"
        if name in self._taken or _IDENTIFIER.fullmatch(name) is None:
            raise UnserializableError(f"a symbol cannot be printed under the name {e.name!r}")
        self._taken.add(name)
        return name

    def _float(self, e: sympy.Float) -> tuple[str, int]:
        value = float(e)
        return repr(value), ATOM if value >= 0 else PRODUCT

    def _sum(self, e: sympy.Add) -> tuple[str, int]:
        constants: list[str] = []
        terms: list[str] = []
        for a in self._in_order(e):
            (constants if a.is_number else terms).append(self.text(a, ADDITION))
        text = ""
        for term in sorted(terms, key=_unsigned) + constants:
            if not text:
                text = term
            elif term.startswith("-"):
                text += f" - {term[1:]}"
            else:
                text += f" + {term}"
        return text, ADDITION

    def _product(self, e: sympy.Mul) -> tuple[str, int]:
        sign = ""
        numbers: list[str] = []
        factors: list[str] = []
        for a in self._in_order(e):
            if a is sympy.S.NegativeOne:
                sign = "-"
            elif a.is_number:
                numbers.append(self.text(a, PRODUCT))
            else:
                factors.append(self.text(a, POWER))
        return sign + "*".join(numbers + sorted(factors)), PRODUCT

    def _power(self, e: sympy.Pow) -> tuple[str, int]:
        base, exponent = e.args
        if isinstance(exponent, sympy.Integer) and int(exponent) > 1:
            return f"{self.text(base, ATOM)}**{int(exponent)}", POWER
        return f"power({self.text(base)}, {self.text(exponent)})", ATOM

    def _and(self, e: sympy.And) -> tuple[str, int]:
        return " and ".join(sorted(self.text(a, NOT) for a in self._in_order(e))), AND

    def _or(self, e: sympy.Or) -> tuple[str, int]:
        return " or ".join(sorted(self.text(a, AND) for a in self._in_order(e))), OR

    def _not(self, e: sympy.Not) -> tuple[str, int]:
        return f"not {self.text(e.args[0], ATOM)}", NOT

    def _piecewise(self, e: sympy.Piecewise) -> tuple[str, int]:
        parts = [self.text(part) for piece in e.args for part in piece.args]
        return f"piecewise({', '.join(parts)})", ATOM

    def _in_order(self, e: sympy.Basic) -> tuple[Any, ...]:
        """Operands, in an order that does not depend on hashes: new names are given in this order."""
        if self._renumber and not e.free_symbols <= self.symbols.keys():
            return tuple(sorted(e.args, key=str))
        return tuple(e.args)


def _unsigned(term: str) -> str:
    return term.lstrip("-")


_PRINTERS: dict[type, Callable[[ExpressionPrinter, Any], tuple[str, int]]] = {
    sympy.Symbol: ExpressionPrinter._symbol,
    sympy.Float: ExpressionPrinter._float,
    sympy.Add: ExpressionPrinter._sum,
    sympy.Mul: ExpressionPrinter._product,
    sympy.Pow: ExpressionPrinter._power,
    sympy.And: ExpressionPrinter._and,
    sympy.Or: ExpressionPrinter._or,
    sympy.Not: ExpressionPrinter._not,
    sympy.Piecewise: ExpressionPrinter._piecewise,
    sympy.logic.boolalg.BooleanTrue: lambda p, e: ("True", ATOM),
    sympy.logic.boolalg.BooleanFalse: lambda p, e: ("False", ATOM),
}
