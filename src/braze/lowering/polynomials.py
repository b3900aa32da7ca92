"""Orthogonal polynomials.

They go by their recurrences, in the type of the result and rounded as eager rounds: near their zeros, and
where they overflow, their values depend on it. A small degree that is a number is written out. Chebyshev
polynomials of a higher one are trigonometric functions between -1 and 1, in float64.

Source: NIST Digital Library of Mathematical Functions, 18.9.1 (recurrences), 18.5.1 to 18.5.4 and 18.6.1
(Chebyshev polynomials), 18.7.7 and 18.7.8 (shifted ones).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from braze.ir.boxes import TensorBox
from braze.lowering.promotion import Operand
from braze.lowering.registry import lowers
from braze.ops.dag import Node
from braze.ops.functions import acos, cos, floor, fma, sin, sqrt, trunc, where
from braze.ops.recurrences import COEFFICIENTS

if TYPE_CHECKING:
    from braze.lowering.graph import GraphLowering

aten = torch.ops.aten

WRITTEN_OUT = 12
"""Degrees up to which the recurrence is written out where the degree is a number."""
HIGH = 8
"""Degrees above which Chebyshev polynomials are trigonometric."""

First = Callable[[Node], Node]


def _stepped(family: str, x: Node, first: Node, n: Node) -> Node:
    """p_n of the family's recurrence for a whole n >= 0, where p_0 = 1 and p_1 = ``first``."""
    degree = n.attrs[0] if n.op == "constant" else None
    if not isinstance(degree, float) or degree > WRITTEN_OUT:
        return where(n.eq(0), 1, x.dag.op(family, x, first, n))
    before, last = x.like(1), first
    for j in range(1, int(degree)):
        a, b, c = COEFFICIENTS[family](x, j)
        value = fma(a, last, -(before if b == 1 else before * b))
        before, last = last, value if c == 1 else value / c
    return last if degree else before


def _waving(kind: str, x: Node, n: Node) -> Node:
    """The Chebyshev polynomial of the kind in float64, for |x| <= 1: by its values for |x|, which are
    accurate."""
    d = x.dag
    x, n = d.to_dtype(x, torch.float64), d.to_dtype(n, torch.float64)
    size = abs(x)
    angle = acos(size)
    mirrored = x < 0
    if kind == "t":
        value = cos(n * angle)
    elif kind == "u":
        value = where(size.eq(1), n + 1, sin((n + 1) * angle) / sqrt((1 - size) * (1 + size)))
    else:  # the third and fourth kinds are each other's mirror images
        share = (n + 0.5) * angle
        cosines = cos(share) / sqrt((1 + size) * 0.5)
        sines = where(size.eq(1), n * 2 + 1, sin(share) / sqrt((1 - size) * 0.5))
        value = where(mirrored, sines, cosines) if kind == "v" else where(mirrored, cosines, sines)
    half = n * 0.5
    return where(mirrored & floor(half).ne(half), -value, value)


def _chebyshev(kind: str, first: First) -> Callable[[Node, Node], Node]:
    def value(x: Node, n: Node) -> Node:
        degree = n.attrs[0] if n.op == "constant" else None
        if isinstance(degree, float) and degree <= HIGH:
            return _stepped("chebyshev", x, first(x), n)
        waves = (abs(x) <= 1) & (n > HIGH)
        steps = _stepped("chebyshev", x, first(x), where(waves, 0, n))
        return where(waves, x.dag.to_dtype(_waving(kind, x, n), x.dtype), steps)

    return value


def _of_family(family: str, first: First) -> Callable[[Node, Node], Node]:
    return lambda x, n: _stepped(family, x, first(x), n)


def _register(name: str, value: Callable[[Node, Node], Node]) -> None:
    packet = getattr(aten, f"special_{name}")

    def lowering(ctx: GraphLowering, x: Operand, n: Operand) -> TensorBox:
        def element(x: Node, n: Node) -> Node:
            degree = trunc(n) if n.op != "constant" else n.like(_whole(n.attrs[0]))
            known = (degree >= 0) & (degree < 2.0**63)
            if degree.op == "constant":
                inside = isinstance(degree.attrs[0], float) and 0 <= degree.attrs[0] < 2.0**63
                return value(x, degree) if inside else x.like(0)
            return where(known, value(x, where(known, degree, 0)), 0)

        return ctx.elementwise(element, x, n, compute=ctx.out_dtype)

    lowering.__doc__ = f"{name}; 0 where the degree is negative."
    lowers(packet.default, packet.x_scalar, packet.n_scalar)(lowering)


def _whole(degree: object) -> float:
    """A degree that is a number, rounded towards zero; -1 where there is no such degree."""
    return float(int(degree)) if isinstance(degree, float) and abs(degree) < 2.0**63 else -1.0


CHEBYSHEV: dict[str, First] = {
    "t": lambda x: x,
    "u": lambda x: x + x,
    "v": lambda x: x + x - 1,
    "w": lambda x: x + x + 1,
}
"""p_1 of each kind."""


def _shifted(value: Callable[[Node, Node], Node]) -> Callable[[Node, Node], Node]:
    return lambda x, n: value(x + x - 1, n)


for _kind, _first in CHEBYSHEV.items():
    _value = _chebyshev(_kind, _first)
    _register(f"chebyshev_polynomial_{_kind}", _value)
    _register(f"shifted_chebyshev_polynomial_{_kind}", _shifted(_value))
_register("hermite_polynomial_h", _of_family("hermite_h", lambda x: x + x))
_register("hermite_polynomial_he", _of_family("hermite_he", lambda x: x))
_register("laguerre_polynomial_l", _of_family("laguerre", lambda x: 1 - x))
_register("legendre_polynomial_p", _of_family("legendre", lambda x: x))
