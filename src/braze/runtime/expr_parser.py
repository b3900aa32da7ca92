"""Reads the printed form of integer expressions and conditions: Python, of which a few kinds of nodes are
known. Nothing is evaluated, and what no printer writes is refused before it takes time or memory."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping
from typing import Final

from braze.runtime.expr import Expr, Symbol, as_expr, floordiv, maximum, minimum, mod
from braze.runtime.guard import FALSE, TRUE, BoolExpr, Relation, all_of, any_of, compare, negate

__all__ = ["expr_from_ast", "parse_condition", "parse_expr"]

_LONGEST: Final = 1 << 16
_MOST_OPERATORS: Final = 1 << 12
_MOST_TERMS: Final = 1 << 12
_GREATEST: Final = 1 << 72
_WRITTEN: Final = re.compile(r"[A-Za-z0-9_ +\-*/%(),<>=!]*")
_OPERATOR: Final = re.compile(r"[-+*/%(,<>=!]|\b(?:not|and|or|if)\b")
_LONG_NUMBER: Final = re.compile(r"[0-9]{21}")


def _times(a: Expr, b: Expr) -> Expr:
    if len(a.terms) * len(b.terms) > _MOST_TERMS:
        raise ValueError(f"a product of {len(a.terms)} and {len(b.terms)} terms")
    made = a * b
    if any(abs(c) > _GREATEST for _, c in made.terms):
        raise ValueError("a product that is not a size")
    return made


_BINARY: dict[type[ast.operator], Callable[[Expr, Expr], Expr]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: _times,
    ast.FloorDiv: floordiv,
    ast.Mod: mod,
}


def _syntax(text: str) -> ast.expr:
    """The Python syntax tree of a text in the characters of expressions and conditions. Raises ``ValueError``
    for one that has others, is no expression, or is longer or deeper than any size is."""
    if (
        len(text) > _LONGEST
        or not _WRITTEN.fullmatch(text)
        or _LONG_NUMBER.search(text)
        or len(_OPERATOR.findall(text)) > _MOST_OPERATORS
    ):
        raise ValueError(f"not an integer expression or condition: {text[:200]!r}")
    try:
        return ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, RecursionError, MemoryError) as error:
        raise ValueError(f"not an integer expression or condition: {text[:200]!r}") from error


def parse_expr(text: str, symbols: Mapping[str, Symbol]) -> Expr:
    """Parse the printed form; every name must be in ``symbols``. Raises ``ValueError`` on anything else."""
    return expr_from_ast(_syntax(text), symbols)


def expr_from_ast(node: ast.expr, symbols: Mapping[str, Symbol]) -> Expr:
    """The expression that a Python syntax tree writes; names and errors as in ``parse_expr``."""
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return as_expr(node.value)
    if isinstance(node, ast.Name) and node.id in symbols:
        return symbols[node.id].expr
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -expr_from_ast(node.operand, symbols)
    if isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
        chain: list[ast.BinOp] = []  # sums lean to the left, and can be longer than the stack is deep
        left: ast.expr = node
        while isinstance(left, ast.BinOp) and type(left.op) in _BINARY:
            chain.append(left)
            left = left.left
        value = expr_from_ast(left, symbols)
        for one in reversed(chain):
            right = expr_from_ast(one.right, symbols)
            try:
                value = _BINARY[type(one.op)](value, right)
            except ZeroDivisionError as error:
                raise ValueError(f"not an integer expression: {error}") from error
        return value
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args and not node.keywords:
        args = [expr_from_ast(a, symbols) for a in node.args]
        if node.func.id in ("min", "max"):
            return minimum(*args) if node.func.id == "min" else maximum(*args)
    raise ValueError(f"not an integer expression: {ast.unparse(node)!r}")


_RELATIONS: dict[type[ast.cmpop], Relation] = {
    ast.Eq: "==",
    ast.NotEq: "!=",
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
}


def parse_condition(text: str, symbols: Mapping[str, Symbol]) -> BoolExpr:
    """Parse the printed form; every name must be in ``symbols``. Raises ``ValueError`` on anything else."""
    return _condition(_syntax(text), symbols)


def _condition(node: ast.expr, symbols: Mapping[str, Symbol]) -> BoolExpr:
    if isinstance(node, ast.Constant) and isinstance(node.value, bool):
        return TRUE if node.value else FALSE
    if isinstance(node, ast.BoolOp):
        combine = all_of if isinstance(node.op, ast.And) else any_of
        return combine([_condition(v, symbols) for v in node.values])
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        return negate(_condition(node.operand, symbols))
    if isinstance(node, ast.Compare) and all(type(op) in _RELATIONS for op in node.ops):
        sides = [expr_from_ast(n, symbols) for n in (node.left, *node.comparators)]
        relations = [_RELATIONS[type(op)] for op in node.ops]
        return all_of([compare(a, r, b) for a, r, b in zip(sides, relations, sides[1:], strict=False)])
    raise ValueError(f"not a condition: {ast.unparse(node)!r}")
