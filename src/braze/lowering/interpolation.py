"""Functions that Python can compute, slowly, as polynomials that kernels evaluate.

Source: NIST Digital Library of Mathematical Functions, 3.11.6 to 3.11.11 (Chebyshev coefficients).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from braze.ops.dag import Node
from braze.ops.functions import fma

__all__ = ["interpolation", "polynomial"]


def interpolation(function: Callable[[float], float], count: int) -> tuple[float, ...]:
    """Coefficients, the lowest order first, of the polynomial that meets ``function`` at ``count`` Chebyshev
    points of (-1, 1). Its Chebyshev coefficients have to fall faster than (1 + sqrt(2))^-k, because turning
    them into powers makes them grow by as much."""

    def cosine(m: int) -> float:
        """cos(pi m / (2 count)), of the least such angle: a large one would be rounded too much."""
        m %= 4 * count
        return math.cos(math.pi * min(m, 4 * count - m) / (2 * count))

    values = [function(cosine(2 * k + 1)) for k in range(count)]
    series = [
        2 / count * math.fsum(v * cosine(j * (2 * k + 1)) for k, v in enumerate(values)) for j in range(count)
    ]
    series[0] /= 2
    powers: list[list[float]] = [[] for _ in range(count)]
    before, last = [0], [1]  # T_-1 counts for nothing, T_0
    for j, c in enumerate(series):
        for k, integer in enumerate(last):
            powers[k].append(c * integer)
        doubled = [0, *(2 * i for i in last)] if j else [0, 1]
        padded = [*before, *[0] * (len(doubled) - len(before))]
        before, last = last, [a - b for a, b in zip(doubled, padded, strict=True)]
    return tuple([math.fsum(terms) for terms in powers])


def polynomial(x: Node, coefficients: Sequence[float]) -> Node:
    """The sum of coefficient k times x^k, by Horner's rule."""
    value = x.like(coefficients[-1])
    for c in reversed(coefficients[:-1]):
        value = fma(value, x, c)
    return value
