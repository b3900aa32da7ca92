"""The integer functions that PyTorch adds to sympy for symbolic sizes (``torch.utils._sympy.functions``,
private).
"""

from __future__ import annotations

from typing import Any

import sympy
from torch.utils._sympy import functions

__all__ = ["FunctionKind", "floor_div", "kind_of", "maximum", "minimum", "modular_indexing", "python_mod"]

FunctionKind = str
_functions: Any = functions  # it is not typed

_KINDS: dict[str, str] = {
    "FloorDiv": "floordiv",
    "CleanDiv": "floordiv",  # an exact quotient
    "Mod": "mod",
    "PythonMod": "mod",
    "ModularIndexing": "modular_indexing",
    "Min": "min",
    "Max": "max",
    "Identity": "identity",
}
_BY_TYPE: dict[type, FunctionKind] = {
    getattr(_functions, name): kind for name, kind in _KINDS.items() if hasattr(_functions, name)
}


def kind_of(e: sympy.Basic) -> FunctionKind | None:
    """``floordiv``, ``mod``, ``modular_indexing``, ``min``, ``max`` or ``identity`` if ``e`` is a call of
    PyTorch's function of that meaning; ``None`` for everything else."""
    return _BY_TYPE.get(type(e))


def floor_div(a: sympy.Expr, b: sympy.Expr) -> sympy.Expr:
    """``a // b`` as PyTorch writes it."""
    return _functions.FloorDiv(a, b)


def python_mod(a: sympy.Expr, b: sympy.Expr) -> sympy.Expr:
    """``a % b`` with the sign of ``b``, as PyTorch writes it."""
    return _functions.PythonMod(a, b)


def modular_indexing(a: sympy.Expr, b: sympy.Expr, n: sympy.Expr) -> sympy.Expr:
    """``(a // b) % n`` as PyTorch writes it."""
    return _functions.ModularIndexing(a, b, n)


def minimum(*args: sympy.Expr) -> sympy.Expr:
    """The least of the arguments, as PyTorch writes it."""
    return _functions.Min(*args)


def maximum(*args: sympy.Expr) -> sympy.Expr:
    """The greatest of the arguments, as PyTorch writes it."""
    return _functions.Max(*args)
