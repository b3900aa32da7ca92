"""The Hurwitz zeta function and the polygamma functions, in float64.

For positive arguments zeta is summed by the Euler-Maclaurin formula: `DIRECT` terms as they stand, and an
expansion for the rest. A negative argument q = f - m, with f in (0, 1), has m terms below zero; up to their
sign they are those of zeta at 1 - f which zeta at 1 - q lacks.

Source: NIST Digital Library of Mathematical Functions, 25.11.1, 25.11.5 and 2.10.1 (zeta), 5.5.4 and 5.15.1
(trigamma), 5.15.1 (polygamma).
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import TYPE_CHECKING

import torch

from braze.errors import Refused
from braze.ir.boxes import TensorBox
from braze.lowering.promotion import Operand
from braze.lowering.registry import lowers
from braze.ops.dag import Node
from braze.ops.dtypes import compute_dtype
from braze.ops.functions import ceil, floor, fma, isinf, minimum, sin, where

if TYPE_CHECKING:
    from braze.lowering.graph import GraphLowering

aten = torch.ops.aten

DIRECT = 10
"""Terms that are summed as they stand."""
CORRECTIONS = 12
"""Terms of the expansion that stands for the rest."""
STEEP = 2000.0
"""From this exponent on the rest is 0 in float64."""
POWERS = 8
"""Exponents that are multiplied out."""
LARGEST_ORDER = 100
"""Of polygamma: the factorial in front of it has to be far from overflowing."""


def _bernoulli(count: int) -> list[Fraction]:
    """B_2, B_4, ... (DLMF 24.5.3)."""
    found = [Fraction(1)]
    for n in range(1, 2 * count + 1):
        found.append(-sum([math.comb(n + 1, k) * found[k] for k in range(n)], Fraction()) / (n + 1))
    return found[2::2]


CORRECTION = [float(b / math.factorial(2 * k)) for k, b in enumerate(_bernoulli(CORRECTIONS), start=1)]
"""B_2k / (2k)!."""


def _power(base: Node, s: Node) -> Node:
    """base^-s."""
    exponent = s.attrs[0] if s.op == "constant" else None
    if not isinstance(exponent, float) or exponent not in range(1, POWERS + 1):
        return base**-s
    value = base
    for bit in bin(int(exponent))[3:]:
        value = value * value
        value = value * base if bit == "1" else value
    return 1 / value


def hurwitz(s: Node, q: Node, start: int = 0) -> Node:
    """The sum of (q + k)^-s over all k >= ``start``, for s > 1 and q > 0."""
    total = _power(q + start if start else q, s)
    for k in range(start + 1, DIRECT):
        total = total + _power(q + k, s)
    a = q + DIRECT
    last = _power(a, s)
    slope = minimum(s, STEEP)
    inverse = 1 / a
    square = inverse * inverse
    # each factor is of two more powers of 1 / a and two more factors of s (s + 1) ...
    rest = s.like(CORRECTION[-1])
    for k in range(CORRECTIONS - 1, 0, -1):
        rest = fma(rest, (slope + (2 * k - 1)) * (slope + 2 * k) * square, CORRECTION[k - 1])
    return total + fma(last, fma(rest, slope * inverse, 0.5), last * a / (s - 1))


def zeta(s: Node, q: Node) -> Node:
    """The same for every s and q: infinite at the poles, NaN where a power is not defined, and, as in eager,
    where s is infinite and the sum vanishes."""
    below, low = q < 0, floor(q)
    # both differences are exact
    left = where(below, q - low, q)
    right = where(below, ceil(q) - q, 1)
    half = s * 0.5
    even = floor(half).eq(half)

    def mirrored(value: Node) -> Node:
        return where(below, where(even, value, -value), 0)

    # the two greatest terms first: they may be each other's opposite
    value = _power(left, s) + mirrored(_power(right, s))
    lacking = hurwitz(s, right, 1) - hurwitz(s, where(below, 1 - q, 1))
    value = value + (hurwitz(s, left, 1) + mirrored(lacking))
    value = where(below & floor(s).ne(s), math.nan, value)
    value = where((q <= 0) & low.eq(q), math.inf, value)
    value = where(isinf(s) & (q > 1), math.nan, value)
    return where(s < 1, math.nan, where(s.eq(1), math.inf, value))


def trigamma(x: Node, dtype: torch.dtype) -> Node:
    """The derivative of digamma at x (float64), which has the values of ``dtype``.

    Its poles left of zero are finite, and large, as in eager, which takes the sine of a rounded multiple of
    pi there."""
    d = x.dag
    reflected = x < 0.5
    value = hurwitz(x.like(2), where(reflected, 1 - x, x))
    value = where(isinf(x), 0, value)
    rest = x - round(x)
    narrow = d.to_dtype(x, dtype)
    at_pole = d.to_dtype(sin(narrow * math.pi), torch.float64)
    sine = where(rest.eq(0), at_pole, sin(rest * math.pi))
    return where(reflected, math.pi**2 / (sine * sine) - value, value)


@lowers(aten.polygamma.default)
def polygamma(ctx: GraphLowering, n: int, x: TensorBox) -> TensorBox:
    """The n-th derivative of digamma: (-1)^(n + 1) n! zeta(n + 1, x)."""
    if not 0 <= n <= LARGEST_ORDER:
        raise Refused(f"derivative {n} of digamma")

    def value(v: Node) -> Node:
        if n == 0:
            return ctx.dag.op("digamma", v)
        x = ctx.dag.to_dtype(v, torch.float64)
        if n == 1:
            return trigamma(x, compute_dtype(ctx.out_dtype))
        return zeta(x.like(n + 1), x) * ((-1.0) ** (n + 1) * math.factorial(n))

    return ctx.elementwise(value, x, compute=ctx.out_dtype)


@lowers(aten.special_zeta.default, aten.special_zeta.self_scalar, aten.special_zeta.other_scalar)
def special_zeta(ctx: GraphLowering, s: Operand, q: Operand) -> TensorBox:
    """The Hurwitz zeta function."""

    def value(s: Node, q: Node) -> Node:
        return zeta(ctx.dag.to_dtype(s, torch.float64), ctx.dag.to_dtype(q, torch.float64))

    return ctx.elementwise(value, s, q, compute=ctx.out_dtype)
