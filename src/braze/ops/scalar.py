"""What each operation of the vocabulary computes, in plain torch: one function for each, on broadcastable
tensors.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from fractions import Fraction

import torch

from braze.ops import random
from braze.ops.dtypes import integer_limits, is_float
from braze.ops.recurrences import COEFFICIENTS

Tensor = torch.Tensor


def _division(
    by_torch: Callable[[Tensor, Tensor], Tensor], by_minus_one: Callable[[Tensor], Tensor]
) -> Callable[..., Tensor]:
    """An integer division whose result for the least integer and -1 wraps; processors trap there."""

    def divide(a: Tensor, b: Tensor) -> Tensor:
        if is_float(a.dtype) or a.dtype is torch.uint8:
            return by_torch(a, b)
        special = b == -1
        return torch.where(special, by_minus_one(a), by_torch(a, torch.where(special, 1, b)))

    return divide


def fma(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """``a*b + c`` rounded once, float32 or float64.

    float32: the product is exact in float64; the sum is rounded to odd there, which makes the second rounding
    right (Boldo and Melquiond: Emulation of a FMA and correctly rounded sums, 2008). float64: in rationals.
    """
    shape = (a + b + c).shape
    a, b, c = a.expand(shape), b.expand(shape), c.expand(shape)
    if a.dtype is torch.float64:
        triples = zip(a.flatten().tolist(), b.flatten().tolist(), c.flatten().tolist(), strict=True)
        return torch.tensor([_fma64(*t) for t in triples], dtype=a.dtype).reshape(a.shape)
    product, addend = a.double() * b.double(), c.double()
    total = product + addend
    back = total - product
    error = (product - (total - back)) + (addend - back)
    bits = total.contiguous().view(torch.int64)
    inexact = error.isfinite() & (error != 0) & (bits & 1 == 0)
    outwards = (error > 0) == (total > 0)
    return (bits + torch.where(inexact, torch.where(outwards, 1, -1), 0)).view(torch.float64).float()


def _fma64(a: float, b: float, c: float) -> float:
    if not all(map(math.isfinite, (a, b, c))):
        return a * b + c
    exact = Fraction(a) * Fraction(b) + Fraction(c)
    if not exact:
        return a * b + c  # for the sign of zero
    try:
        return float(exact)
    except OverflowError:
        return math.inf if exact > 0 else -math.inf


def _recurrence(name: str) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """p_n of the recurrence ``name``, whose p_1 is ``first``."""

    def value(x: Tensor, first: Tensor, n: Tensor) -> Tensor:
        before, last = torch.ones_like(first), first.expand((x + first + n).shape)
        for j in range(1, int(n.max()) if n.numel() else 0):
            a, b, c = COEFFICIENTS[name](x, j)
            following = fma(a, last, -(b * before)) / c
            going_on = (j < n) & ~last.isnan()
            before, last = torch.where(going_on, last, before), torch.where(going_on, following, last)
        return last

    return value


def _greatest_divisor(a: Tensor, b: Tensor) -> Tensor:
    """By Euclid's algorithm on absolute values, of which the least integer has none."""
    a, b = a.abs(), b.abs()
    while bool((a != 0).any()):
        going_on = a != 0
        rest = FUNCTIONS["fmod"](b, torch.where(going_on, a, 1))
        a, b = torch.where(going_on, rest, a), torch.where(going_on, a, b)
    return b


FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    "add": torch.add,
    "sub": torch.sub,
    "mul": torch.mul,
    "truediv": torch.true_divide,
    "floordiv": _division(functools.partial(torch.div, rounding_mode="floor"), torch.neg),
    "truncdiv": _division(functools.partial(torch.div, rounding_mode="trunc"), torch.neg),
    "mod": _division(torch.remainder, torch.zeros_like),
    "fmod": _division(torch.fmod, torch.zeros_like),
    "neg": torch.neg,
    "abs": torch.abs,
    "minimum": torch.minimum,
    "maximum": torch.maximum,
    "fma": fma,
    "copysign": torch.copysign,
    "nextafter": torch.nextafter,
    "hypot": torch.hypot,
    "eq": torch.eq,
    "ne": torch.ne,
    "lt": torch.lt,
    "le": torch.le,
    "gt": torch.gt,
    "ge": torch.ge,
    "logical_and": torch.logical_and,
    "logical_or": torch.logical_or,
    "logical_xor": torch.logical_xor,
    "logical_not": torch.logical_not,
    "bitwise_and": torch.bitwise_and,
    "bitwise_or": torch.bitwise_or,
    "bitwise_xor": torch.bitwise_xor,
    "bitwise_not": torch.bitwise_not,
    "shl": torch.bitwise_left_shift,
    "shr": torch.bitwise_right_shift,
    "where": torch.where,
    "floor": torch.floor,
    "ceil": torch.ceil,
    "trunc": torch.trunc,
    "round": torch.round,
    "isnan": torch.isnan,
    "isinf": torch.isinf,
    "signbit": torch.signbit,
    "sqrt": torch.sqrt,
    "rsqrt": torch.rsqrt,
    "exp": torch.exp,
    "exp2": torch.exp2,
    "expm1": torch.expm1,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "log": torch.log,
    "log1p": torch.log1p,
    "log2": torch.log2,
    "log10": torch.log10,
    "erf": torch.erf,
    "erfc": torch.erfc,
    "erfinv": torch.erfinv,
    "sin": torch.sin,
    "cos": torch.cos,
    "tan": torch.tan,
    "asin": torch.asin,
    "acos": torch.acos,
    "atan": torch.atan,
    "sinh": torch.sinh,
    "cosh": torch.cosh,
    "asinh": torch.asinh,
    "acosh": torch.acosh,
    "atanh": torch.atanh,
    "lgamma": torch.lgamma,
    "digamma": torch.digamma,
    "pow": torch.pow,
    "atan2": torch.atan2,
    "igamma": torch.special.gammainc,
    "igammac": torch.special.gammaincc,
    "gcd": _greatest_divisor,
    **{name: _recurrence(name) for name in COEFFICIENTS},
    "rand": random.rand,
    "randn": random.randn,
    "randint64": random.randint64,
}
"""The operations that are functions of their operands alone."""


def least(dtype: torch.dtype) -> float | int:
    """The value that no value of ``dtype`` is less than."""
    return -torch.inf if is_float(dtype) else integer_limits(dtype)[0]


def greatest(dtype: torch.dtype) -> float | int:
    """The value that no value of ``dtype`` exceeds."""
    return torch.inf if is_float(dtype) else integer_limits(dtype)[1]


def _extremum_position(x: Tensor, position: Tensor, extremum: Tensor) -> Tensor:
    found = (x == extremum[..., None]) | (torch.isnan(x) if is_float(x.dtype) else torch.tensor(False))
    return torch.where(found, position, torch.iinfo(torch.int64).max).amin(-1)


def reduce(kind: str, component: int, x: Tensor, position: Tensor) -> Tensor:
    """A reduction over the last dimension of ``x``, which is not empty; ``position`` (int64, like ``x``)
    serves argmax and argmin only."""
    if kind == "sum":
        return x.sum(-1, dtype=x.dtype)
    if kind == "prod":
        return x.prod(-1, dtype=x.dtype)
    if kind == "max":
        return x.amax(-1)
    if kind == "min":
        return x.amin(-1)
    if kind == "argmax":
        return _extremum_position(x, position, x.amax(-1))
    if kind == "argmin":
        return _extremum_position(x, position, x.amin(-1))
    if kind == "any":
        return x.any(-1)
    if kind == "all":
        return x.all(-1)
    assert kind == "welford"
    mean = x.mean(-1)
    parts = (mean, (x - mean[..., None]).square().sum(-1), torch.full_like(mean, x.shape[-1]))
    return parts[component]


def identity(kind: str, component: int, dtype: torch.dtype) -> float | int:
    """What a reduction over nothing gives; ``dtype`` is that of its result."""
    if kind in ("prod", "all"):
        return 1
    if kind == "max":
        return least(dtype)
    return greatest(dtype) if kind == "min" else 0


def scan(kind: str, x: Tensor, axis: int) -> Tensor:
    """The inclusive scan of ``x`` along ``axis``."""
    if kind == "sum":
        return x.cumsum(axis, dtype=x.dtype)
    if kind == "prod":
        return x.cumprod(axis, dtype=x.dtype)
    if kind == "logsumexp":
        return x.logcumsumexp(axis)
    running = x.cummax(axis) if kind in ("max", "last_max") else x.cummin(axis)
    return running.indices if kind.startswith("last") else running.values


_REDUCED = {"mul": "prod", "maximum": "amax", "minimum": "amin"}


def combine(operation: str, memory: Tensor, index: Tensor, value: Tensor) -> None:
    """Join ``value`` to ``memory`` at ``index``, some of which may be the same, one after the other."""
    if operation == "add":
        memory.index_add_(0, index, value)
    else:
        memory.scatter_reduce_(0, index, value, _REDUCED[operation])
