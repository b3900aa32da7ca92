"""The three-term recurrences of orthogonal polynomials: p_(j + 1) = (a p_j - b p_(j - 1)) / c, p_0 = 1.

A file of its own: the interpreter steps through what lowerings write out.

Source: NIST Digital Library of Mathematical Functions, 18.9.1 and table 18.9.1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["COEFFICIENTS"]

COEFFICIENTS: Mapping[str, Callable[[Any, int], tuple[Any, int, int]]] = {
    "chebyshev": lambda x, j: (x + x, 1, 1),
    "hermite_h": lambda x, j: (x + x, 2 * j, 1),
    "hermite_he": lambda x, j: (x, j, 1),
    "laguerre": lambda x, j: ((1 - x) + 2 * j, j, j + 1),
    "legendre": lambda x, j: (x * (2 * j + 1), j, j + 1),
}
"""a, b and c of each family, from the argument (a tensor or a node) and j."""
