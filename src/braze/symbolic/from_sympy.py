"""Between PyTorch's sympy expressions and the closed integer grammar. The only place where Braze meets
sympy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import sympy

from braze._torch import sympy_functions as functions
from braze._torch.shape_envs import ShapeEnv, symbols_by_name
from braze._torch.shapes import range_of
from braze.errors import ExpressionError
from braze.runtime import guard
from braze.runtime.expr import (
    Atom,
    Expr,
    FloorDiv,
    Min,
    Mod,
    Symbol,
    as_expr,
    floordiv,
    known_nonnegative,
    maximum,
    minimum,
    mod,
    product,
)
from braze.runtime.guard import BoolExpr

__all__ = [
    "SymbolTable",
    "condition_from_sympy",
    "condition_to_sympy",
    "expr_from_sympy",
    "expr_to_sympy",
    "unsayable_in",
]

Range = tuple[int, int | None]
GREATEST_POWER = 16


class SymbolTable(dict[str, Symbol]):
    """The size symbols of one compile: one :class:`Symbol` for each name, its bounds asked for once.

    ``range_of(name)`` gives inclusive bounds, the upper one ``None`` where there is none. They have to be
    bounds that the compiled code's guards establish: simplification relies on them. ``defined``:
    expressions that have a name of their own, which stands for them.
    """

    def __init__(self, range_of: Callable[[str], Range]) -> None:
        super().__init__()
        self._range_of = range_of
        self.defined: dict[sympy.Basic, Expr] = {}

    @classmethod
    def of_trace(cls, env: ShapeEnv | None) -> SymbolTable:
        """The symbols of a trace, with the bounds that they have now."""
        table = cls(lambda name: (0, None))
        if env is not None:
            for name, symbol in symbols_by_name(env).items():
                table[name] = Symbol(name, *range_of(symbol, env))
        return table

    def __missing__(self, name: str) -> Symbol:
        found = self[name] = Symbol(name, *self._range_of(name))
        return found


def expr_from_sympy(e: int | sympy.Expr, symbols: SymbolTable) -> Expr:
    """The expression in Braze's grammar. Raises ``ExpressionError`` where it has no place there: a float, a
    fraction that is not under a floor, a divisor that may be negative, an unknown function."""
    if isinstance(e, int):
        return as_expr(int(e))
    return _Converter(symbols).convert(e)


def unsayable_in(e: sympy.Basic, symbols: SymbolTable) -> list[sympy.Basic]:
    """The operands of a sum or product, and of those in it, that the grammar has no place for, each once; of
    anything else the whole."""
    try:
        expr_from_sympy(e, symbols)
    except ExpressionError:
        if isinstance(e, (sympy.Add, sympy.Mul)):
            return list(dict.fromkeys(part for a in _ordered(e) for part in unsayable_in(a, symbols)))
        return [e]
    return []


def condition_from_sympy(e: bool | sympy.Basic, symbols: SymbolTable) -> BoolExpr:
    """A sympy relation, or a combination of relations by and, or and not. Raises ``ExpressionError``."""
    if e is True or e == sympy.true:
        return guard.TRUE
    if e is False or e == sympy.false:
        return guard.FALSE
    if isinstance(e, sympy.And):
        return guard.all_of([condition_from_sympy(a, symbols) for a in _ordered(e)])
    if isinstance(e, sympy.Or):
        return guard.any_of([condition_from_sympy(a, symbols) for a in _ordered(e)])
    if isinstance(e, sympy.Not):
        return guard.negate(condition_from_sympy(e.args[0], symbols))
    relation = _RELATIONS.get(type(e))
    if relation is None:
        raise ExpressionError(f"{e} is not a relation between sizes")
    left, right = (expr_from_sympy(a, symbols) for a in e.args)
    return guard.compare(left, relation, right)


def expr_to_sympy(e: Expr, symbols: Mapping[str, sympy.Symbol] | None = None) -> sympy.Expr:
    """The expression in PyTorch's terms, its symbols by name from ``symbols``; those that are not there
    become integer symbols, which sympy is told to be positive or non-negative where their bounds say so."""

    def convert(e: Expr) -> sympy.Expr:
        terms = [sympy.Mul(sympy.Integer(c), *[atom(a) for a in factors]) for factors, c in e.terms]
        return sympy.Add(*terms)

    def atom(a: Atom) -> sympy.Expr:
        if isinstance(a, Symbol):
            if symbols is not None and a.name in symbols:
                return symbols[a.name]
            return sympy.Symbol(a.name, integer=True, **_assumptions(a))
        parts = [convert(p) for p in a.parts]
        if isinstance(a, FloorDiv):
            return functions.floor_div(*parts)
        if isinstance(a, Mod):
            return functions.python_mod(*parts)
        return (functions.minimum if isinstance(a, Min) else functions.maximum)(*parts)

    return convert(e)


def condition_to_sympy(condition: BoolExpr, symbols: Mapping[str, sympy.Symbol] | None = None) -> sympy.Basic:
    """The condition in PyTorch's terms, symbols as in `expr_to_sympy`."""
    if condition.e is None:
        combine = sympy.And if condition.kind == "and" else sympy.Or
        return combine(*[condition_to_sympy(p, symbols) for p in condition.parts])
    relation = {">=": sympy.Ge, "==": sympy.Eq, "!=": sympy.Ne}[condition.kind]
    return relation(expr_to_sympy(condition.e, symbols), 0)


_RELATIONS: dict[type, guard.Relation] = {
    sympy.Eq: "==",
    sympy.Ne: "!=",
    sympy.Lt: "<",
    sympy.Le: "<=",
    sympy.Gt: ">",
    sympy.Ge: ">=",
}


def _assumptions(s: Symbol) -> dict[str, bool]:
    if s.lower > 0:
        return {"positive": True}
    return {"nonnegative": True} if s.lower == 0 else {}


def _ordered(e: sympy.Basic) -> list[Any]:
    """The operands of a commutative operation, in an order that does not depend on hashes."""
    return sorted(e.args, key=str)


class _Converter:
    """One conversion; each distinct subexpression is converted once."""

    def __init__(self, symbols: SymbolTable) -> None:
        self.symbols = symbols
        self.done: dict[sympy.Basic, Expr] = {}

    def convert(self, e: sympy.Basic) -> Expr:
        found = self.done.get(e) or self.symbols.defined.get(e)
        if found is None:
            found = self.done[e] = self._convert(e)
        return found

    def _convert(self, e: sympy.Basic) -> Expr:
        if isinstance(e, sympy.Integer):
            return as_expr(int(e))
        if isinstance(e, sympy.Symbol):
            if e.is_integer is False:
                raise ExpressionError(f"{e} is not an integer")
            return self.symbols[e.name].expr
        if isinstance(e, sympy.Add):
            total = as_expr(0)
            for a in e.args:
                total = total + self.convert(a)
            return total
        if isinstance(e, sympy.Mul):
            return product(self.convert(a) for a in e.args)
        if isinstance(e, sympy.Pow):
            return self._power(e)
        if isinstance(e, sympy.floor):
            numerator, denominator = sympy.fraction(sympy.together(e.args[0]))
            return floordiv(self.convert(numerator), self._divisor(denominator, e))
        return self._function(e)

    def _function(self, e: sympy.Basic) -> Expr:
        kind = functions.kind_of(e)
        if kind is None:
            raise ExpressionError(f"{e} is outside the integer grammar ({type(e).__name__})")
        if kind in ("min", "max"):
            args = [self.convert(a) for a in _ordered(e)]
            return minimum(*args) if kind == "min" else maximum(*args)
        if kind == "identity":
            return self.convert(e.args[0])
        left, right = self.convert(e.args[0]), self._divisor(e.args[1], e)
        if kind == "modular_indexing":
            return mod(floordiv(left, right), self._divisor(e.args[2], e))
        return floordiv(left, right) if kind == "floordiv" else mod(left, right)

    def _divisor(self, e: sympy.Basic, whole: sympy.Basic) -> Expr:
        """A divisor; a zero that its bounds allow is PyTorch's to refuse, before it comes here."""
        divisor = self.convert(e)
        if divisor.constant == 0 or not known_nonnegative(divisor):
            raise ExpressionError(f"the divisor of {whole} may be negative or zero")
        return divisor

    def _power(self, e: sympy.Pow) -> Expr:
        base, exponent = e.args
        if not isinstance(exponent, sympy.Integer) or not 0 <= int(exponent) <= GREATEST_POWER:
            raise ExpressionError(f"{e} is not a power with a small positive exponent")
        return product([self.convert(base)] * int(exponent))
