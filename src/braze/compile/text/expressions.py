"""Symbolic numbers and conditions as text, and back: ``2*(s77//2)``, ``s27 % 8 == 0``.

The grammar is closed: numbers, symbols, sums, products, powers, relations, and, or, not, and the functions
of `braze._torch.sympy_functions.BY_WORD`, written as in Python. Operands of commutative operations are
ordered by their text, so the print depends on neither hashes nor the order in which symbols were made.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Callable, Mapping
from keyword import iskeyword
from typing import TYPE_CHECKING, Any

import sympy
from sympy.logic.boolalg import Boolean

from braze._torch.sympy_functions import BY_WORD
from braze.errors import UnserializableError

if TYPE_CHECKING:  # whoever only prints, as on a hit of the cache, need not load it
    from braze.compile.text.source import Source

__all__ = ["RELATIONS", "ExpressionPrinter", "ExpressionReader"]

OR, AND, NOT, COMPARISON, ADDITION, PRODUCT, POWER, ATOM = range(8)
"""How tightly each form binds."""

RELATIONS: dict[type[ast.cmpop], Any] = {
    ast.Eq: sympy.Eq,
    ast.NotEq: sympy.Ne,
    ast.Lt: sympy.Lt,
    ast.LtE: sympy.Le,
    ast.Gt: sympy.Gt,
    ast.GtE: sympy.Ge,
}
_RELATION_SIGNS = dict(zip(RELATIONS.values(), ("==", "!=", "<", "<=", ">", ">="), strict=True))
_WORDS = {kind: word for word, kind in BY_WORD.items()}
_COMMUTATIVE = frozenset({"max", "min", "bitwise_and", "bitwise_or", "bitwise_xor"})
_INFIX = {"floordiv": "//", "mod": " % "}
_IDENTIFIER = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_PREFIX = re.compile(r"zuf|zf|u|s")
MAX_POWER = 64


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
        if name in self._taken or iskeyword(name) or _IDENTIFIER.fullmatch(name) is None:
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


class ExpressionReader:
    """Reads expressions over `symbols` from Python's syntax tree. Nothing is evaluated but sympy's rules."""

    def __init__(self, source: Source, symbols: Mapping[str, sympy.Symbol]) -> None:
        self._source = source
        self._fail = source.fail
        self._symbols = symbols

    def number(self, e: ast.expr) -> Any:
        """A number or a sympy expression. Raises `ParseError`."""
        found = self._read(e)
        if _is_condition(found):
            self._fail(e, "a number was expected, not a condition")
        return self._finite(found, e)

    def condition(self, e: ast.expr) -> Any:
        """A sympy boolean. Raises `ParseError`."""
        found = self._read(e)
        if not _is_condition(found):
            self._fail(e, "a condition was expected, not a number")
        return self._finite(found, e)

    def _finite(self, found: Any, e: ast.expr) -> Any:
        if found.has(sympy.zoo, sympy.nan, sympy.oo, -sympy.oo):
            self._fail(e, "this is not a finite number")
        return found

    def _read(self, e: ast.expr) -> Any:
        reader = _READERS.get(type(e))
        if reader is None:
            self._fail(e, "no size and no condition is written like this")
        return reader(self, e)

    def _constant(self, e: ast.Constant) -> Any:
        if isinstance(e.value, bool):
            return sympy.true if e.value else sympy.false
        if isinstance(e.value, int):
            return sympy.Integer(e.value)
        if isinstance(e.value, float) and math.isfinite(e.value):
            return sympy.Float(e.value)
        return self._fail(e, "a number, a symbol or a function was expected")

    def _name(self, e: ast.Name) -> Any:
        symbol = self._symbols.get(e.id)
        return self._fail(e, f"no symbol {e.id!r} was declared") if symbol is None else symbol

    def _binary(self, e: ast.BinOp) -> Any:
        kind = type(e.op)
        if kind is ast.Pow:
            return self._raised(self._read(e.left), self._read(e.right), e)
        word = _BINARY.get(kind)
        if word is None:
            self._fail(e, "no size is computed like this")
        if word not in ("add", "mul"):
            return self._made(BY_WORD[word], [self._read(e.left), self._read(e.right)], e)
        parts: list[Any] = []
        left: ast.expr = e
        while isinstance(left, ast.BinOp) and _BINARY.get(type(left.op)) == word:
            right = self._read(left.right)
            parts.append(self._made(sympy.Mul, [-1, right], left) if isinstance(left.op, ast.Sub) else right)
            left = left.left
        return self._made(sympy.Add if word == "add" else sympy.Mul, [self._read(left), *parts[::-1]], e)

    def _unary(self, e: ast.UnaryOp) -> Any:
        if isinstance(e.op, ast.Not):
            return self._made(sympy.Not, [self._read(e.operand)], e)
        if isinstance(e.op, ast.USub):
            return self._made(sympy.Mul, [-1, self._read(e.operand)], e)
        return self._fail(e, "no size is computed like this")

    def _relation(self, e: ast.Compare) -> Any:
        kind = RELATIONS.get(type(e.ops[0]))
        if kind is None or len(e.ops) > 1:
            self._fail(e, "a condition compares two numbers")
        return self._made(kind, [self._read(e.left), self._read(e.comparators[0])], e)

    def _logic(self, e: ast.BoolOp) -> Any:
        kind = sympy.And if isinstance(e.op, ast.And) else sympy.Or
        return self._made(kind, [self._read(value) for value in e.values], e)

    def _raised(self, base: Any, exponent: Any, e: ast.expr) -> Any:
        small = isinstance(exponent, sympy.Rational) and max(abs(exponent.p), exponent.q) <= MAX_POWER
        # a power of powers can be larger than any memory
        if not small or not isinstance(base, sympy.Expr) or base.is_Number or base.has(sympy.Pow):
            self._fail(e, "a power like this has no place in a graph")
        return self._made(sympy.Pow, [base, exponent], e)

    def _call(self, e: ast.Call) -> Any:
        if not isinstance(e.func, ast.Name) or e.keywords:
            self._fail(e, "a function of sizes has a name, and arguments without names")
        word, args = e.func.id, [self._read(a) for a in e.args]
        if word == "ratio":
            if len(args) != 2 or not all(isinstance(a, sympy.Integer) for a in args) or args[1] <= 0:
                self._fail(e, "a ratio is of two integers")
            return sympy.Rational(*args)
        if word == "power":
            if len(args) != 2:
                self._fail(e, "a power takes two numbers")
            return self._raised(args[0], args[1], e)
        if word == "piecewise":
            if len(args) % 2:
                self._fail(e, "a value of a piecewise number has no condition")
            return self._made(sympy.Piecewise, list(zip(args[::2], args[1::2], strict=True)), e)
        if word not in BY_WORD:
            self._fail(e, f"there is no function {word!r}")
        return self._made(BY_WORD[word], args, e)

    def _made(self, kind: Any, args: list[Any], e: ast.expr) -> Any:
        """sympy's object of these parts. It refuses some: a division by zero, an `and` of numbers."""
        with self._source.at(e, "not an expression"):
            return kind(*args)


def _is_condition(found: Any) -> bool:
    return isinstance(found, Boolean) and not isinstance(found, sympy.Symbol)


_BINARY: dict[type[ast.operator], str] = {
    ast.Add: "add",
    ast.Sub: "add",
    ast.Mult: "mul",
    ast.FloorDiv: "floordiv",
    ast.Mod: "mod",
}
_READERS: dict[type[ast.expr], Callable[[ExpressionReader, Any], Any]] = {
    ast.Constant: ExpressionReader._constant,
    ast.Name: ExpressionReader._name,
    ast.BinOp: ExpressionReader._binary,
    ast.UnaryOp: ExpressionReader._unary,
    ast.Compare: ExpressionReader._relation,
    ast.BoolOp: ExpressionReader._logic,
    ast.Call: ExpressionReader._call,
}
