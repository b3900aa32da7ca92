"""The integer functions that PyTorch adds to sympy for symbolic sizes (``torch.utils._sympy.functions``,
private).
"""

from __future__ import annotations

from typing import Any

import sympy
from torch.utils._sympy import functions

__all__ = [
    "BY_WORD",
    "FunctionKind",
    "floor_div",
    "kind_of",
    "maximum",
    "minimum",
    "modular_indexing",
    "python_mod",
]

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

_UNARY = "acos asin atan cos cosh exp log log2 sin sinh sqrt tan tanh"
_WORDS: dict[str, str] = {
    "max": "Max",
    "min": "Min",
    "floordiv": "FloorDiv",
    "mod": "Mod",
    "exactdiv": "CleanDiv",
    "pymod": "PythonMod",
    "modular": "ModularIndexing",
    "where": "Where",
    "ceildiv": "CeilDiv",
    "lshift": "LShift",
    "rshift": "RShift",
    "powint": "PowByNatural",
    "powfloat": "FloatPow",
    "truediv": "FloatTrueDiv",
    "inttruediv": "IntTrueDiv",
    "ceil": "CeilToInt",
    "floor": "FloorToInt",
    "trunc": "TruncToInt",
    "truncfloat": "TruncToFloat",
    "round": "RoundToInt",
    "rounddecimal": "RoundDecimal",
    "float": "ToFloat",
    "identity": "Identity",
    "dense": "IsNonOverlappingAndDenseIndicator",
    **{f: f"OpaqueUnaryFn_{f}" for f in _UNARY.split()},
    **{f: f"BitwiseFn_{f}" for f in ("bitwise_and", "bitwise_or", "bitwise_xor")},
}
BY_WORD: dict[str, Any] = {
    word: getattr(_functions, name) for word, name in _WORDS.items() if hasattr(_functions, name)
}
"""PyTorch's functions on symbolic numbers, each under a word of its own."""


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
