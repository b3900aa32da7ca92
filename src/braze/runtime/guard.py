"""Boolean expressions over integer expressions: the guards that compiled code was specialised on.

The grammar is closed: a comparison ``e >= 0`` or ``e == 0``, ``and``, ``or``, ``not``, and the two constants.
Each is kept in one canonical form, in which ``not`` is pushed down to ``!=``. The printed form is Python: it
parses back (:mod:`braze.runtime.expr_parser`), evaluates, and is what generated code contains.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

from braze.runtime.expr import Expr, ExprLike, Symbol, as_expr, known_nonnegative

__all__ = ["FALSE", "TRUE", "BoolExpr", "all_of", "any_of", "compare", "negate"]

Relation = Literal["==", "!=", "<", "<=", ">", ">="]


class BoolExpr:
    """A condition on symbols. Made by ``compare``, ``all_of``, ``any_of`` and ``negate``, not directly.

    ``kind``: ``and`` and ``or`` over ``parts`` (``and`` of none is true, ``or`` of none is false), or a
    relation of
    ``e`` to zero, which is ``>=``, ``==`` or ``!=``.
    """

    __slots__ = ("e", "kind", "parts")

    def __init__(
        self,
        kind: Literal["and", "or", ">=", "==", "!="],
        parts: tuple[BoolExpr, ...] = (),
        e: Expr | None = None,
    ) -> None:
        self.kind = kind
        self.parts = parts
        self.e = e

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BoolExpr) and (self.kind, self.parts, self.e) == (
            other.kind,
            other.parts,
            other.e,
        )

    def __hash__(self) -> int:
        return hash((self.kind, self.parts, self.e))

    @property
    def constant(self) -> bool | None:
        """The truth value if this is a constant, else ``None``."""
        return None if self.parts or self.e is not None else self.kind == "and"

    @property
    def free_symbols(self) -> frozenset[Symbol]:
        """Every symbol that the condition mentions."""
        own = frozenset() if self.e is None else self.e.free_symbols
        return own.union(*[p.free_symbols for p in self.parts])

    def evaluate(self, env: Mapping[str, int]) -> bool:
        """The truth value where each symbol's name is looked up in ``env``. Raises ``KeyError`` on a missing
        one.
        """
        if self.e is None:
            values = (p.evaluate(env) for p in self.parts)
            return all(values) if self.kind == "and" else any(values)
        value = self.e.evaluate(env)
        if self.kind == ">=":
            return value >= 0
        return (value == 0) == (self.kind == "==")

    def substitute(self, mapping: Mapping[Symbol, ExprLike]) -> BoolExpr:
        """Replace symbols and simplify again."""
        if self.e is not None:
            return compare(self.e.substitute(mapping), self.kind, 0)  # type: ignore[arg-type]
        combine = all_of if self.kind == "and" else any_of
        return combine([p.substitute(mapping) for p in self.parts])

    def renamed(self, names: Mapping[str, str]) -> BoolExpr:
        """The same over symbols of other names, by their names here; those that have none keep theirs."""
        symbols = {s: Symbol(names.get(s.name, s.name), s.lower, s.upper).expr for s in self.free_symbols}
        return self.substitute(symbols)

    def __str__(self) -> str:
        if self.e is not None:
            positive = Expr(tuple(t for t in self.e.terms if t[1] > 0))
            return f"{positive} {self.kind} {positive - self.e}"
        if not self.parts:
            return str(self.kind == "and")
        inner = [f"({p})" if p.e is None and p.parts else str(p) for p in self.parts]
        return f" {self.kind} ".join(inner)

    __repr__ = __str__


TRUE = BoolExpr("and")
FALSE = BoolExpr("or")


def compare(a: ExprLike, relation: Relation, b: ExprLike) -> BoolExpr:
    """``a`` related to ``b``; a constant where the bounds of the symbols decide."""
    difference = as_expr(a) - b
    if relation == ">":
        return _nonnegative(difference - 1)
    if relation == ">=":
        return _nonnegative(difference)
    if relation == "<":
        return _nonnegative(-difference - 1)
    if relation == "<=":
        return _nonnegative(-difference)
    if difference.terms and difference.terms[0][1] < 0:
        difference = -difference
    if difference.constant is not None:
        return TRUE if (difference.constant == 0) == (relation == "==") else FALSE
    if known_nonnegative(difference - 1) or known_nonnegative(-difference - 1):
        return FALSE if relation == "==" else TRUE
    return BoolExpr(relation, e=difference)


def _nonnegative(e: Expr) -> BoolExpr:
    if known_nonnegative(e):
        return TRUE
    return FALSE if known_nonnegative(-e - 1) else BoolExpr(">=", e=e)


def negate(condition: BoolExpr) -> BoolExpr:
    """``not condition``, with the negation pushed down to the comparisons."""
    if condition.e is None:
        combine = any_of if condition.kind == "and" else all_of
        return combine([negate(p) for p in condition.parts])
    if condition.kind == ">=":
        return compare(condition.e, "<", 0)
    return compare(condition.e, "!=" if condition.kind == "==" else "==", 0)


def all_of(conditions: Iterable[BoolExpr]) -> BoolExpr:
    """The conjunction, flattened, without duplicates, in order of first mention."""
    return _combine("and", conditions)


def any_of(conditions: Iterable[BoolExpr]) -> BoolExpr:
    """The disjunction, flattened, without duplicates, in order of first mention."""
    return _combine("or", conditions)


def _combine(kind: Literal["and", "or"], conditions: Iterable[BoolExpr]) -> BoolExpr:
    found: dict[BoolExpr, None] = {}
    for c in conditions:
        if c.constant is not None:
            if c.constant != (kind == "and"):
                return c
        elif c.kind == kind:
            found.update(dict.fromkeys(c.parts))
        else:
            found[c] = None
    if len(found) == 1:
        return next(iter(found))
    return BoolExpr(kind, tuple(found))
