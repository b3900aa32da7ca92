"""Reads the printed form of integer expressions. Nothing is evaluated."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping

from braze.runtime.expr import Expr, Symbol, as_expr, floordiv, maximum, minimum, mod

_BINARY: dict[type[ast.operator], Callable[[Expr, Expr], Expr]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.FloorDiv: floordiv,
    ast.Mod: mod,
}


def parse_expr(text: str, symbols: Mapping[str, Symbol]) -> Expr:
    """Parse the printed form; every name must be in ``symbols``. Raises ``ValueError`` on anything else."""
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except SyntaxError as error:
        raise ValueError(f"not an integer expression: {text!r}") from error
    return expr_from_ast(tree.body, symbols)


def expr_from_ast(node: ast.expr, symbols: Mapping[str, Symbol]) -> Expr:
    """The expression that a Python syntax tree writes; names and errors as in ``parse_expr``."""
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return as_expr(node.value)
    if isinstance(node, ast.Name) and node.id in symbols:
        return symbols[node.id].expr
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -expr_from_ast(node.operand, symbols)
    if isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
        return _BINARY[type(node.op)](expr_from_ast(node.left, symbols), expr_from_ast(node.right, symbols))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args and not node.keywords:
        args = [expr_from_ast(a, symbols) for a in node.args]
        if node.func.id in ("min", "max"):
            return minimum(*args) if node.func.id == "min" else maximum(*args)
    raise ValueError(f"not an integer expression: {ast.unparse(node)!r}")
