"""Elementwise arithmetic: sums, quotients, remainders, powers, bounds."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from braze.errors import Refused
from braze.ir.boxes import TensorBox
from braze.lowering.casts import converted
from braze.lowering.promotion import Operand, Scalar, number
from braze.lowering.registry import lowers
from braze.ops.dag import Node
from braze.ops.dtypes import HALF_TYPES, integer_limits, is_float
from braze.ops.functions import exp2, fma, isnan, maximum, minimum, rsqrt, sqrt, where
from braze.ops.ranges import value_range
from braze.runtime.expr import Expr

if TYPE_CHECKING:
    from braze.lowering.graph import GraphLowering

aten = torch.ops.aten


def _plus_product(addend: Node, x: Node, y: Node) -> Node:
    """addend + x * y. Rounded once in floating point, as in the kernels of eager PyTorch, whose compiler
    contracts the two: results are equal to the last bit, and an overflow between the two is none."""
    return fma(x, y, addend) if is_float(addend.dtype) else addend + x * y


def _plus_scaled(ctx: GraphLowering, x: Node, y: Node, factor: Scalar) -> Node:
    """x + factor * y, the factor in the precision of the result."""
    if isinstance(factor, (int, float)) and factor in (1, -1):
        return x + y if factor == 1 else x - y
    return _plus_product(x, y, converted(ctx, number(ctx, factor, y.dtype), ctx.out_dtype))


@lowers(aten.add.Tensor, aten.add.Scalar)
def add(ctx: GraphLowering, a: Operand, b: Operand, alpha: Scalar = 1) -> TensorBox:
    """a + alpha * b; of booleans: or."""
    if ctx.out_dtype is torch.bool:
        if alpha == 0:
            return ctx.elementwise(lambda x: x, a, compute=torch.bool)
        return ctx.elementwise(lambda x, y: x | y, a, b, compute=torch.bool)
    return ctx.elementwise(lambda x, y: _plus_scaled(ctx, x, y, alpha), a, b, compute=ctx.out_dtype)


@lowers(aten.sub.Tensor, aten.sub.Scalar)
def sub(ctx: GraphLowering, a: Operand, b: Operand, alpha: Scalar = 1) -> TensorBox:
    """a - alpha * b."""
    negated = alpha * -1 if isinstance(alpha, Node) else -alpha
    return ctx.elementwise(lambda x, y: _plus_scaled(ctx, x, y, negated), a, b, compute=ctx.out_dtype)


@lowers(aten.addcmul.default)
def addcmul(
    ctx: GraphLowering, x: TensorBox, first: TensorBox, second: TensorBox, *, value: Scalar = 1
) -> TensorBox:
    """x + value * first * second, from the left. For integers the value is one, too: eager cuts it off."""
    if isinstance(value, float) and not is_float(ctx.out_dtype):
        value = math.trunc(value)

    def total(x: Node, y: Node, z: Node) -> Node:
        unscaled = isinstance(value, (int, float)) and value == 1
        return _plus_product(x, y if unscaled else y * number(ctx, value, y.dtype), z)

    return ctx.elementwise(total, x, first, second, compute=ctx.out_dtype)


@lowers(aten.lerp.Scalar, aten.lerp.Tensor)
def lerp(ctx: GraphLowering, x: TensorBox, end: TensorBox, weight: Operand) -> TensorBox:
    """x + weight * (end - x), computed from the nearer end, as eager does, so that weight 1 gives ``end``
    exactly."""

    def between(x: Node, end: Node, weight: Node) -> Node:
        span = end - x
        if weight.op == "constant":
            near = abs(float(weight.attrs[0])) < 0.5  # type: ignore[arg-type]
            return _plus_product(x, weight, span) if near else _plus_product(end, -span, 1 - weight)
        from_start, from_end = _plus_product(x, weight, span), _plus_product(end, -span, 1 - weight)
        return where(abs(weight) < 0.5, from_start, from_end)

    return ctx.elementwise(between, x, end, weight, compute=ctx.out_dtype, wide=2)


@lowers(aten.div.Tensor, aten.div.Scalar, aten.true_divide.Tensor)
def div(ctx: GraphLowering, a: Operand, b: Operand) -> TensorBox:
    """The quotient, always in floating point."""
    return ctx.elementwise(_quotient, a, b, compute=ctx.out_dtype, wide=1)


def _quotient(x: Node, y: Node) -> Node:
    """x / y; by a power of two, the product with its inverse, which is the same number."""
    if y.op == "constant":
        divisor = float(y.attrs[0])  # type: ignore[arg-type]
        if (
            math.isfinite(divisor)
            and divisor
            and abs(math.frexp(divisor)[0]) == 0.5
            and abs(math.log2(abs(divisor))) < 100
        ):
            return x if divisor == 1 else x * (1 / divisor)
    return x / y


def _nonzero_divisor(ctx: GraphLowering, y: Node) -> Node:
    """An integer divisor, checked: eager raises where it is 0."""
    if is_float(y.dtype):
        return y
    span = value_range(y)
    if span is not None and not span[0] <= 0 <= span[1]:
        return y
    return ctx.dag.check_nonzero(y, ctx.check(ZeroDivisionError))


@lowers(aten.div.Tensor_mode, aten.div.Scalar_mode)
def div_mode(ctx: GraphLowering, a: Operand, b: Operand, *, rounding_mode: str | None) -> TensorBox:
    """The quotient, rounded by ``rounding_mode``: "floor", "trunc" or not at all."""
    if rounding_mode is None:
        return div(ctx, a, b)
    name = {"floor": "floordiv", "trunc": "truncdiv"}[rounding_mode]
    return _divided(ctx, name, a, b)


@lowers(aten.remainder.Tensor, aten.remainder.Scalar, aten.remainder.Scalar_Tensor)
def remainder(ctx: GraphLowering, a: Operand, b: Operand) -> TensorBox:
    """The remainder with the sign of the divisor."""
    return _divided(ctx, "mod", a, b)


@lowers(aten.fmod.Tensor, aten.fmod.Scalar)
def fmod(ctx: GraphLowering, a: Operand, b: Operand) -> TensorBox:
    """The remainder with the sign of the dividend."""
    return _divided(ctx, "fmod", a, b)


def _divided(ctx: GraphLowering, name: str, a: Operand, b: Operand) -> TensorBox:
    compute = ctx.out_dtype
    if compute is torch.bool:
        raise Refused("division of booleans")
    return ctx.elementwise(
        lambda x, y: ctx.dag.op(name, x, _nonzero_divisor(ctx, y)),
        a,
        b,
        compute=compute,
        exact=True,
        wide=1 if name in ("floordiv", "truncdiv") else None,
    )


@lowers(aten.abs.default)
def abs_(ctx: GraphLowering, x: TensorBox) -> TensorBox:
    """The absolute value."""
    if x.dtype in (torch.bool, torch.uint8):
        return ctx.elementwise(lambda v: v, x, compute=x.dtype)
    return ctx.elementwise(abs, x, compute=ctx.out_dtype)


@lowers(aten.sign.default)
def sign(ctx: GraphLowering, x: TensorBox) -> TensorBox:
    """-1, 0 or 1 (0 for NaN)."""
    if x.dtype is torch.bool:
        return ctx.elementwise(lambda v: v, x, compute=x.dtype)

    def value(v: Node) -> Node:
        positive = where(v > 0, v.like(1), 0)
        return where(v < 0, -1, positive)

    return ctx.elementwise(value, x, compute=x.dtype, exact=True)


@lowers(aten.reciprocal.default)
def reciprocal(ctx: GraphLowering, x: TensorBox) -> TensorBox:
    """1 / x, in floating point."""
    return ctx.elementwise(lambda v: 1 / v, x, compute=ctx.out_dtype)


def _bounded(v: Node, bound: Node, beyond: Node) -> Node:
    """v, or the bound where v is ``beyond`` it. As in eager, a zero stays what it is beside a zero of the
    other sign; a NaN stays, and a bound that is NaN gives NaN."""
    known = bound.op == "constant" and bound.attrs[0] == bound.attrs[0]
    if is_float(v.dtype) and not known:
        beyond = beyond | isnan(bound)
    return where(beyond, bound, v)


def _extremum_of_numbers(greatest: bool) -> Callable[..., TensorBox]:
    def lowering(ctx: GraphLowering, a: Operand, b: Operand) -> TensorBox:
        def value(x: Node, y: Node) -> Node:
            if ctx.out_dtype is torch.bfloat16:  # of two zeros eager takes the second here, else the first
                x, y = y, x
            taken = y > x if greatest else y < x
            if is_float(x.dtype):
                taken = taken | isnan(x)
            return where(taken, y, x)

        return ctx.elementwise(value, a, b, compute=ctx.out_dtype)

    return lowering


lowers(aten.fmax.default)(_extremum_of_numbers(greatest=True))
lowers(aten.fmin.default)(_extremum_of_numbers(greatest=False))


def _at_least(v: Node, low: Operand, bound: Node) -> Node:
    # eager takes the maximum of two tensors, but compares with a number
    by_number = is_float(v.dtype) and not isinstance(low, TensorBox)
    return _bounded(v, bound, v < bound) if by_number else maximum(v, bound)


def _at_most(v: Node, high: Operand, bound: Node) -> Node:
    by_number = is_float(v.dtype) and not isinstance(high, TensorBox)
    return _bounded(v, bound, v > bound) if by_number else minimum(v, bound)


@lowers(aten.clamp.default, aten.clamp.Tensor)
def clamp(
    ctx: GraphLowering, x: TensorBox, low: Operand | None = None, high: Operand | None = None, **bounds: Any
) -> TensorBox:
    """min(max(x, low), high); NaN stays, and a NaN bound gives NaN."""
    low, high = bounds.get("min", low), bounds.get("max", high)
    given = [b for b in (low, high) if b is not None]

    def value(v: Node, *rest: Node) -> Node:
        nodes = list(rest)
        if low is not None:
            v = _at_least(v, low, nodes.pop(0))
        return v if high is None else _at_most(v, high, nodes.pop(0))

    return ctx.elementwise(value, x, *given, compute=ctx.out_dtype)


@lowers(aten.relu.default)
def relu(ctx: GraphLowering, x: TensorBox) -> TensorBox:
    """max(x, 0)."""
    return ctx.elementwise(lambda v: _at_least(v, 0, v.like(0)), x, compute=ctx.out_dtype)


def _power(v: Node, exponent: int) -> Node:
    """v to a whole power of at least 1, by repeated squaring."""
    result: Node | None = None
    while True:
        if exponent & 1:
            result = v if result is None else result * v
        exponent >>= 1
        if not exponent:
            assert result is not None
            return result
        v = v * v


def _half_root(v: Node, exponent: float) -> Node:
    """v ** 0.5 or v ** -0.5 as `pow` defines them, which eager calls for float16: of -0 as of 0, of minus
    infinity as of infinity."""
    infinite = v.like(math.inf)
    plain = where(v.eq(-infinite), infinite, where(v.eq(0), 0, v))
    return sqrt(plain) if exponent > 0 else rsqrt(plain)


def _pow_by_scalar(ctx: GraphLowering, v: Node, exponent: int | float) -> Node:
    if is_float(v.dtype):
        if exponent == 0:
            return v.like(1)
        if ctx.out_dtype is torch.float16 and exponent in (0.5, -0.5):
            return _half_root(v, exponent)
        if exponent in (1, 2, 3):
            return _power(v, int(exponent))
        if exponent == 0.5:
            return sqrt(v)
        if exponent == -0.5:
            return rsqrt(v)
        if exponent in (-1, -2):
            return 1 / _power(v, -int(exponent))
        return v ** converted(ctx, v.like(exponent), ctx.out_dtype)
    whole = int(exponent)
    if whole < 0:
        raise Refused("negative powers of integers")
    return _power(v, whole) if whole else v.like(1)


@lowers(aten.pow.Tensor_Scalar)
def pow_scalar(ctx: GraphLowering, x: TensorBox, exponent: Scalar) -> TensorBox:
    """x ** exponent: by multiplication, square roots and reciprocals where eager does so."""
    if ctx.out_dtype is torch.bool:
        raise Refused("powers of booleans")
    assert not isinstance(exponent, complex)
    if isinstance(exponent, (Expr, Node)):
        if not is_float(ctx.out_dtype):
            raise Refused("a symbolic power of integers")
        return ctx.elementwise(lambda v, e: v**e, x, exponent, compute=ctx.out_dtype)
    return ctx.elementwise(lambda v: _pow_by_scalar(ctx, v, exponent), x, compute=ctx.out_dtype)


def _integer_power(v: Node, exponent: Node) -> Node:
    """v ** exponent of integers, wrapping, by repeated squaring over every bit that the exponent can have.
    Negative powers are 0, except those of 1 and -1."""
    low, high = integer_limits(v.dtype)
    odd = (exponent & 1).ne(0)
    result, square = where(odd, v, 1), v
    for bit in range(1, high.bit_length()):
        square = square * square
        result = where((exponent & (1 << bit)).ne(0), result * square, result)
    if low == 0:
        return result
    sign = where(odd, v.like(-1), 1)
    inverse = where(v.eq(1), 1, where(v.eq(-1), sign, 0))
    return where(exponent < 0, inverse, result)


@lowers(aten.pow.Scalar, aten.pow.Tensor_Tensor)
def pow_tensor(ctx: GraphLowering, x: Operand, exponent: TensorBox) -> TensorBox:
    """x ** exponent, element by element."""
    if ctx.out_dtype is torch.bool:
        raise Refused("powers of booleans")
    if not is_float(ctx.out_dtype):
        return ctx.elementwise(_integer_power, x, exponent, compute=ctx.out_dtype)
    if isinstance(x, (int, float)) and x == 1:
        return ctx.elementwise(lambda e: e.like(1), exponent, compute=ctx.out_dtype)
    if isinstance(x, (int, float)) and x == 2:
        return ctx.elementwise(exp2, exponent, compute=ctx.out_dtype)
    return ctx.elementwise(lambda v, e: v**e, x, exponent, compute=ctx.out_dtype)


@lowers(aten.ldexp.Tensor)
def ldexp(ctx: GraphLowering, x: TensorBox, exponent: TensorBox) -> TensorBox:
    """x * 2 ** exponent, the power rounded to the exponent's type, as eager does: in float16 it overflows."""
    d = ctx.dag

    def value(v: Node, e: Node) -> Node:
        power = exp2(e)
        if exponent.dtype in HALF_TYPES and {x.dtype, ctx.out_dtype} <= {exponent.dtype, torch.float32}:
            power = d.to_dtype(d.to_dtype(power, exponent.dtype), power.dtype)
        return v * power

    return ctx.elementwise(value, x, exponent, compute=ctx.out_dtype)
