"""Functions of complex nodes, as eager PyTorch's kernels for contiguous tensors compute them: what they give
for zeros, infinities and NaNs is part of that.

A complex node is a pair of real ones (:meth:`braze.ops.dag.Dag.complex`), so all of this is real arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from braze.ops.dag import Node
from braze.ops.functions import (
    cos,
    exp,
    fma,
    hypot,
    isinf,
    isnan,
    log,
    log1p,
    maximum,
    minimum,
    sin,
    sqrt,
    where,
)

__all__ = [
    "add",
    "angle",
    "conj",
    "cosine",
    "divide",
    "either",
    "equal",
    "exponential",
    "hyperbolic_cosine",
    "hyperbolic_sine",
    "hyperbolic_tangent",
    "imag",
    "logarithm",
    "magnitude",
    "multiply",
    "negated",
    "polar",
    "power",
    "real",
    "reciprocal",
    "sigmoid",
    "sign",
    "sine",
    "square_root",
    "tangent",
]


def real(z: Node) -> Node:
    """The real part."""
    return z.dag.parts(z)[0]


def imag(z: Node) -> Node:
    """The imaginary part."""
    return z.dag.parts(z)[1]


def conj(z: Node) -> Node:
    """The conjugate."""
    return z.dag.complex(real(z), -imag(z))


def negated(z: Node) -> Node:
    """0 - z: eager's kernel gives no negative zeros."""
    return z.dag.each_part(lambda part: 0 - part, z)


def add(z: Node, w: Node) -> Node:
    """z + w."""
    return z.dag.each_part(lambda x, y: x + y, z, w)


def multiply(z: Node, w: Node) -> Node:
    """z * w. An infinity times a complex number may be NaN, as in eager's kernels."""
    (a, b), (c, d) = z.dag.parts(z), z.dag.parts(w)
    return z.dag.complex(a * c - b * d, a * d + b * c)


def divide(z: Node, w: Node) -> Node:
    """z / w, with products and sums rounded together as in eager's kernel.

    Source: R. L. Smith, Communications of the ACM 5 (1962), algorithm 116."""
    (a, b), (c, d) = z.dag.parts(z), z.dag.parts(w)
    real_first = abs(c) >= abs(d)
    most, least = where(real_first, c, d), where(real_first, d, c)
    ratio = least / most
    scale = 1 / fma(least, ratio, most)
    first = where(real_first, fma(b, ratio, a), fma(a, ratio, b)) * scale
    second = where(real_first, fma(-a, ratio, b), fma(b, ratio, -a)) * scale
    zero = c.eq(0) & d.eq(0)
    return z.dag.complex(where(zero, a / abs(c), first), where(zero, b / abs(c), second))


def reciprocal(z: Node) -> Node:
    """1 / z."""
    return divide(z.like(1), z)


def magnitude(z: Node) -> Node:
    """|z|."""
    return hypot(real(z), imag(z))


def angle(z: Node) -> Node:
    """The angle in the complex plane, in [-pi, pi]."""
    return z.dag.op("atan2", imag(z), real(z))


def sign(z: Node) -> Node:
    """z / |z|, 0 for 0."""
    length = magnitude(z)
    return z.dag.each_part(lambda part: where(length.eq(0), 0, part / length), z)


def polar(length: Node, angle: Node) -> Node:
    """The complex number of this length and angle."""
    return length.dag.complex(length * cos(angle), length * sin(angle))


def _finite(x: Node) -> Node:
    return ~(isnan(x) | isinf(x))


def _most(x: Node) -> float:
    """A number of which the exponential does not overflow, nor that of a half more squared."""
    return 64.0 if x.dtype.itemsize == 4 else 512.0


def _times_exp(v: Node, x: Node) -> Node:
    """v * exp(x), in two steps where exp(x) alone might overflow; v is at most 1."""
    half = exp(x * 0.5)
    return where(x > _most(x), v * half * half, v * exp(x))


def exponential(z: Node) -> Node:
    """e ** z (C99, G.6.3.1)."""
    x, y = z.dag.parts(z)
    first, second = _times_exp(cos(y), x), _times_exp(sin(y), x)
    first, second = where(y.eq(0), exp(x), first), where(y.eq(0), y, second)
    lost = isinf(x) & ~_finite(y)
    first = where(lost, exp(x), first)
    second = where(lost, where(x < 0, z.dag.op("copysign", x.like(0), y), math.nan), second)
    return z.dag.complex(first, second)


def logarithm(z: Node) -> Node:
    """The natural logarithm. Near the unit circle the real part is small, and comes from how far |z|^2 is
    from 1."""
    x, y = abs(real(z)), abs(imag(z))
    most, least = maximum(x, y), minimum(x, y)
    near = 0.5 * log1p((most - 1) * (most + 1) + least * least)
    far = log(hypot(x * 0.5, y * 0.5)) + math.log(2)
    length = where(most > _range(x)[0], far, log(hypot(x, y)))
    length = where((most > 0.5) & (most < 2), near, length)
    return z.dag.complex(length, angle(z))


def square_root(z: Node) -> Node:
    """The square root with a real part that is not negative (C99, G.6.4.2)."""
    d = z.dag
    x, y = d.parts(z)
    most = maximum(abs(x), abs(y))
    # numbers so large that their sum may overflow, or so small that it loses digits, are scaled by 4 ** k
    large, small = _range(x)
    factor = where(most > large, 0.25, where(most < small, x.like(1 / small), 1))
    back = where(most > large, 2, where(most < small, x.like(math.sqrt(small)), 1))
    a, b = x * factor, y * factor
    root = sqrt((abs(a) + hypot(a, b)) * 0.5)
    other = where(root.eq(0), abs(b), abs(b) / (root + root))
    negative = x < 0
    first, second = where(negative, other, root) * back, where(negative, root, other) * back
    infinite, nan, inf = isinf(x), isnan(y), x.like(math.inf)
    first = where(infinite, where(x > 0, inf, where(nan, y, 0)), first)
    second = where(infinite, where(x > 0, where(nan, y, 0), inf), second)
    first, second = where(isinf(y), inf, first), where(isinf(y), inf, second)
    return d.complex(first, d.op("copysign", second, y))


def _range(x: Node) -> tuple[float, float]:
    """Bounds between which numbers can be squared and added without loss; powers of 4."""
    return (2.0**126, 2.0**-100) if x.dtype.itemsize == 4 else (2.0**1022, 2.0**-900)


def _times_hyperbolic(v: Node, y: Node, name: str) -> Node:
    """v * sinh(y) or v * cosh(y), ``name`` says which, also where that alone would overflow; v is at most
    1."""
    half = exp(abs(y) * 0.5)
    large = v * (half * 0.5) * half
    if name == "sinh":
        large = where(y < 0, -large, large)
    product = where(abs(y) > _most(y), large, v * y.dag.op(name, y))
    return where(v.eq(0) & ~_finite(y), v, product)


def hyperbolic_sine(z: Node) -> Node:
    """sinh z (C99, G.6.2.5)."""
    x, y = z.dag.parts(z)
    first, second = _times_hyperbolic(cos(y), x, "sinh"), _times_hyperbolic(sin(y), x, "cosh")
    lost = ~_finite(y)
    first = where(lost & isinf(x), abs(x), where(lost & x.eq(0), x, first))
    second = where(x.eq(0) & lost, math.nan, second)
    return z.dag.complex(first, where(y.eq(0), y, second))


def hyperbolic_cosine(z: Node) -> Node:
    """cosh z (C99, G.6.2.4)."""
    x, y = z.dag.parts(z)
    first, second = _times_hyperbolic(cos(y), x, "cosh"), _times_hyperbolic(sin(y), x, "sinh")
    lost = ~_finite(y)
    first = where(lost & isinf(x), abs(x), first)
    second = where(x.eq(0), where(lost, 0, x * sin(y)), second)
    signed = where(isnan(x), y, y * z.dag.op("copysign", x.like(1), x))
    return z.dag.complex(first, where(y.eq(0), signed, second))


def hyperbolic_tangent(z: Node) -> Node:
    """tanh z (C99, G.6.2.6).

    Source: W. Kahan, Branch cuts for complex elementary functions, in The State of the Art in Numerical
    Analysis (1987)."""
    d = z.dag
    x, y = d.parts(z)
    t, s = d.op("tan", y), d.op("sinh", x)
    slope = fma(t, t, 1)
    bottom = fma(slope, s * s, 1)
    first, second = slope * sqrt(fma(s, s, 1)) * s / bottom, t / bottom
    # beyond this tanh x is 1, and what remains of the imaginary part is its exponential
    large = abs(x) > (11 if x.dtype.itemsize == 4 else 22)
    small = exp(-abs(x))
    tail = where(_finite(y), 4 * sin(y) * cos(y) * small * small, d.op("copysign", x.like(0), y))
    first = where(large, d.op("copysign", x.like(1), x), first)
    second = where(large & (isinf(x) | _finite(y)), tail, second)
    lost = ~_finite(y)
    first = where(lost & ~isinf(x), where(x.eq(0), x, math.nan), first)
    second = where(lost & ~isinf(x), math.nan, second)
    return d.complex(first, where(y.eq(0), y, second))


def sigmoid(z: Node) -> Node:
    """1 / (1 + e ** -z)."""
    return reciprocal(add(z.like(1), exponential(negated(z))))


def _rotated(fn: Callable[[Node], Node], z: Node) -> Node:
    """fn(i z)."""
    return fn(z.dag.complex(-imag(z), real(z)))


def sine(z: Node) -> Node:
    """sin z, which is -i sinh(i z); where the sign of an infinity is open, it is positive."""
    x, y = z.dag.parts(z)
    turned = _rotated(hyperbolic_sine, z)
    return z.dag.complex(imag(turned), where(isinf(y) & ~_finite(x), abs(y), -real(turned)))


def cosine(z: Node) -> Node:
    """cos z, which is cosh(i z)."""
    return _rotated(hyperbolic_cosine, z)


def tangent(z: Node) -> Node:
    """tan z, which is -i tanh(i z)."""
    turned = _rotated(hyperbolic_tangent, z)
    return z.dag.complex(imag(turned), -real(turned))


def power(z: Node, exponent: complex) -> Node | None:
    """z to a known exponent, where eager does without logarithms; None elsewhere."""
    if exponent == 2:
        return multiply(z, z)
    if exponent == 3:
        return multiply(multiply(z, z), z)
    if exponent == 0.5:
        return square_root(z)
    if exponent == 1:
        return z
    if exponent == -1:
        return reciprocal(z)
    return None


def equal(z: Node, w: Node) -> Node:
    """Whether both parts are equal."""
    return real(z).eq(real(w)) & imag(z).eq(imag(w))


def either(fn: Callable[[Node], Node], z: Node) -> Node:
    """Whether ``fn`` holds for the real or for the imaginary part."""
    return fn(real(z)) | fn(imag(z))
