"""Elementwise arithmetic: sums, products, quotients, remainders, powers, extrema."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from braze.ir.boxes import TensorBox
from braze.lowering.casts import converted
from braze.lowering.promotion import Operand, Scalar, number
from braze.lowering.registry import Unsupported, lowers
from braze.ops.dag import Node
from braze.ops.dtypes import HALF_TYPES, integer_limits, is_float
from braze.ops.ranges import value_range
from braze.runtime.expr import Expr

if TYPE_CHECKING:
    from braze.lowering.graph import GraphLowering

aten = torch.ops.aten


def _scaled(ctx: GraphLowering, v: Node, factor: Scalar) -> Node:
    """v * factor, the factor in the precision of the result."""
    if isinstance(factor, (int, float)) and factor == 1:
        return v
    return ctx.dag.op("mul", v, converted(ctx, number(ctx, factor, v.dtype), ctx.out_dtype))


@lowers(aten.add.Tensor, aten.add.Scalar)
def add(ctx: GraphLowering, a: Operand, b: Operand, alpha: Scalar = 1) -> TensorBox:
    """a + alpha * b; of booleans: or."""
    if ctx.out_dtype is torch.bool:
        if not alpha:
            return ctx.elementwise(lambda x: x, a, compute=torch.bool)
        return ctx.elementwise(lambda x, y: ctx.dag.op("logical_or", x, y), a, b, compute=torch.bool)
    return ctx.elementwise(
        lambda x, y: ctx.dag.op("add", x, _scaled(ctx, y, alpha)), a, b, compute=ctx.out_dtype
    )


@lowers(aten.sub.Tensor, aten.sub.Scalar)
def sub(ctx: GraphLowering, a: Operand, b: Operand, alpha: Scalar = 1) -> TensorBox:
    """a - alpha * b."""
    return ctx.elementwise(
        lambda x, y: ctx.dag.op("sub", x, _scaled(ctx, y, alpha)), a, b, compute=ctx.out_dtype
    )


@lowers(aten.mul.Tensor, aten.mul.Scalar)
def mul(ctx: GraphLowering, a: Operand, b: Operand) -> TensorBox:
    """a * b; of booleans: and."""
    name = "logical_and" if ctx.out_dtype is torch.bool else "mul"
    return ctx.elementwise(lambda x, y: ctx.dag.op(name, x, y), a, b, compute=ctx.out_dtype, wide=1)


@lowers(aten.div.Tensor, aten.div.Scalar, aten.true_divide.Tensor)
def div(ctx: GraphLowering, a: Operand, b: Operand) -> TensorBox:
    """The quotient, always in floating point."""
    return ctx.elementwise(lambda x, y: quotient(ctx, x, y), a, b, compute=ctx.out_dtype, wide=1)


def quotient(ctx: GraphLowering, x: Node, y: Node) -> Node:
    """x / y; by a power of two, the product with its inverse, which is the same number."""
    if y.op == "constant":
        divisor = float(y.attrs[0])  # type: ignore[arg-type]
        if (
            math.isfinite(divisor)
            and divisor
            and abs(math.frexp(divisor)[0]) == 0.5
            and abs(math.log2(abs(divisor))) < 100
        ):
            return x if divisor == 1 else ctx.dag.op("mul", x, ctx.dag.constant(1 / divisor, y.dtype))
    return ctx.dag.op("truediv", x, y)


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
        raise Unsupported("division of booleans")
    return ctx.elementwise(
        lambda x, y: ctx.dag.op(name, x, _nonzero_divisor(ctx, y)),
        a,
        b,
        compute=compute,
        exact=True,
        wide=1 if name in ("floordiv", "truncdiv") else None,
    )


@lowers(aten.neg.default)
def neg(ctx: GraphLowering, x: TensorBox) -> TensorBox:
    """-x."""
    return ctx.elementwise(lambda v: ctx.dag.op("neg", v), x, compute=ctx.out_dtype)


@lowers(aten.abs.default)
def abs_(ctx: GraphLowering, x: TensorBox) -> TensorBox:
    """The absolute value."""
    if x.dtype in (torch.bool, torch.uint8):
        return ctx.elementwise(lambda v: v, x, compute=x.dtype)
    return ctx.elementwise(lambda v: ctx.dag.op("abs", v), x, compute=ctx.out_dtype)


@lowers(aten.sign.default)
def sign(ctx: GraphLowering, x: TensorBox) -> TensorBox:
    """-1, 0 or 1 (0 for NaN)."""
    d = ctx.dag
    if x.dtype is torch.bool:
        return ctx.elementwise(lambda v: v, x, compute=x.dtype)

    def value(v: Node) -> Node:
        zero, one = d.constant(0, v.dtype), d.constant(1, v.dtype)
        positive = d.where(d.op("gt", v, zero), one, zero)
        return d.where(d.op("lt", v, zero), d.constant(-1, v.dtype), positive)

    return ctx.elementwise(value, x, compute=x.dtype, exact=True)


@lowers(aten.reciprocal.default)
def reciprocal(ctx: GraphLowering, x: TensorBox) -> TensorBox:
    """1 / x, in floating point."""
    return ctx.elementwise(
        lambda v: ctx.dag.op("truediv", ctx.dag.constant(1, v.dtype), v), x, compute=ctx.out_dtype
    )


def _extremum(name: str) -> Callable[..., TensorBox]:
    def lowering(ctx: GraphLowering, a: Operand, b: Operand) -> TensorBox:
        return ctx.elementwise(lambda x, y: ctx.dag.op(name, x, y), a, b, compute=ctx.out_dtype)

    return lowering


lowers(aten.maximum.default)(_extremum("maximum"))
lowers(aten.minimum.default)(_extremum("minimum"))


def _bounded(ctx: GraphLowering, v: Node, bound: Node, beyond: str) -> Node:
    """v, or the bound where v is ``beyond`` it ("lt" or "gt"). As in eager, a zero stays what it is beside a
    zero of the other sign; a NaN stays, and a bound that is NaN gives NaN."""
    d = ctx.dag
    outside = d.op(beyond, v, bound)
    known = bound.op == "constant" and bound.attrs[0] == bound.attrs[0]
    if is_float(v.dtype) and not known:
        outside = d.op("logical_or", outside, d.op("isnan", bound))
    return d.where(outside, bound, v)


def _extremum_of_numbers(beyond: str) -> Callable[..., TensorBox]:
    def lowering(ctx: GraphLowering, a: Operand, b: Operand) -> TensorBox:
        d = ctx.dag

        def value(x: Node, y: Node) -> Node:
            if ctx.out_dtype is torch.bfloat16:  # of two zeros eager takes the second here, else the first
                x, y = y, x
            taken = d.op(beyond, y, x)
            if is_float(x.dtype):
                taken = d.op("logical_or", taken, d.op("isnan", x))
            return d.where(taken, y, x)

        return ctx.elementwise(value, a, b, compute=ctx.out_dtype)

    return lowering


lowers(aten.fmax.default)(_extremum_of_numbers("gt"))
lowers(aten.fmin.default)(_extremum_of_numbers("lt"))


def _at_least(ctx: GraphLowering, v: Node, low: Operand, bound: Node) -> Node:
    # eager takes the maximum of two tensors, but compares with a number
    by_number = is_float(v.dtype) and not isinstance(low, TensorBox)
    return _bounded(ctx, v, bound, "lt") if by_number else ctx.dag.op("maximum", v, bound)


def _at_most(ctx: GraphLowering, v: Node, high: Operand, bound: Node) -> Node:
    by_number = is_float(v.dtype) and not isinstance(high, TensorBox)
    return _bounded(ctx, v, bound, "gt") if by_number else ctx.dag.op("minimum", v, bound)


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
            v = _at_least(ctx, v, low, nodes.pop(0))
        return v if high is None else _at_most(ctx, v, high, nodes.pop(0))

    return ctx.elementwise(value, x, *given, compute=ctx.out_dtype)


@lowers(aten.relu.default)
def relu(ctx: GraphLowering, x: TensorBox) -> TensorBox:
    """max(x, 0)."""
    return ctx.elementwise(
        lambda v: _at_least(ctx, v, 0, ctx.dag.constant(0, v.dtype)), x, compute=ctx.out_dtype
    )


def power(ctx: GraphLowering, v: Node, exponent: int) -> Node:
    """v to a whole power of at least 1, by repeated squaring."""
    result: Node | None = None
    while True:
        if exponent & 1:
            result = v if result is None else ctx.dag.op("mul", result, v)
        exponent >>= 1
        if not exponent:
            assert result is not None
            return result
        v = ctx.dag.op("mul", v, v)


def _half_root(ctx: GraphLowering, v: Node, exponent: float) -> Node:
    """v ** 0.5 or v ** -0.5 as `pow` defines them, which eager calls for float16: of -0 as of 0, of minus
    infinity as of infinity."""
    d = ctx.dag
    infinite, zero = d.constant(math.inf, v.dtype), d.constant(0, v.dtype)
    plain = d.where(d.op("eq", v, d.op("neg", infinite)), infinite, d.where(d.op("eq", v, zero), zero, v))
    return d.op("sqrt" if exponent > 0 else "rsqrt", plain)


def _pow_by_scalar(ctx: GraphLowering, v: Node, exponent: int | float) -> Node:
    d = ctx.dag
    if is_float(v.dtype):
        if exponent == 0:
            return d.constant(1, v.dtype)
        if ctx.out_dtype is torch.float16 and exponent in (0.5, -0.5):
            return _half_root(ctx, v, exponent)
        if exponent in (1, 2, 3):
            return power(ctx, v, int(exponent))
        if exponent == 0.5:
            return d.op("sqrt", v)
        if exponent == -0.5:
            return d.op("rsqrt", v)
        if exponent in (-1, -2):
            return d.op("truediv", d.constant(1, v.dtype), power(ctx, v, -int(exponent)))
        return d.op("pow", v, converted(ctx, d.constant(exponent, v.dtype), ctx.out_dtype))
    whole = int(exponent)
    if whole < 0:
        raise Unsupported("negative powers of integers")
    return power(ctx, v, whole) if whole else d.constant(1, v.dtype)


@lowers(aten.pow.Tensor_Scalar)
def pow_scalar(ctx: GraphLowering, x: TensorBox, exponent: Scalar) -> TensorBox:
    """x ** exponent: by multiplication, square roots and reciprocals where eager does so."""
    if ctx.out_dtype is torch.bool:
        raise Unsupported("powers of booleans")
    if isinstance(exponent, (Expr, Node)):
        if not is_float(ctx.out_dtype):
            raise Unsupported("a symbolic power of integers")
        return ctx.elementwise(lambda v, e: ctx.dag.op("pow", v, e), x, exponent, compute=ctx.out_dtype)
    return ctx.elementwise(lambda v: _pow_by_scalar(ctx, v, exponent), x, compute=ctx.out_dtype)


def _integer_power(ctx: GraphLowering, v: Node, exponent: Node) -> Node:
    """v ** exponent of integers, wrapping, by repeated squaring over every bit that the exponent can
    have. Negative
    powers are 0, except those of 1 and -1."""
    d, dtype = ctx.dag, v.dtype

    def c(k: int) -> Node:
        return d.constant(k, dtype)

    odd = d.op("ne", d.op("bitwise_and", exponent, c(1)), c(0))
    result, square = d.where(odd, v, c(1)), v
    for bit in range(1, integer_limits(dtype)[1].bit_length()):
        square = d.op("mul", square, square)
        taken = d.op("ne", d.op("bitwise_and", exponent, c(1 << bit)), c(0))
        result = d.where(taken, d.op("mul", result, square), result)
    if integer_limits(dtype)[0] == 0:
        return result
    sign = d.where(odd, c(-1), c(1))
    inverse = d.where(d.op("eq", v, c(1)), c(1), d.where(d.op("eq", v, c(-1)), sign, c(0)))
    return d.where(d.op("lt", exponent, c(0)), inverse, result)


@lowers(aten.pow.Scalar, aten.pow.Tensor_Tensor)
def pow_tensor(ctx: GraphLowering, x: Operand, exponent: TensorBox) -> TensorBox:
    """x ** exponent, element by element."""
    d = ctx.dag
    if ctx.out_dtype is torch.bool:
        raise Unsupported("powers of booleans")
    if not is_float(ctx.out_dtype):
        return ctx.elementwise(lambda v, e: _integer_power(ctx, v, e), x, exponent, compute=ctx.out_dtype)
    if isinstance(x, (int, float)) and x == 1:
        return ctx.elementwise(lambda e: d.constant(1, e.dtype), exponent, compute=ctx.out_dtype)
    if isinstance(x, (int, float)) and x == 2:
        return ctx.elementwise(lambda e: d.op("exp2", e), exponent, compute=ctx.out_dtype)
    return ctx.elementwise(lambda v, e: d.op("pow", v, e), x, exponent, compute=ctx.out_dtype)


def _binary_float(name: str) -> Callable[..., TensorBox]:
    def lowering(ctx: GraphLowering, a: Operand, b: Operand) -> TensorBox:
        return ctx.elementwise(lambda x, y: ctx.dag.op(name, x, y), a, b, compute=ctx.out_dtype)

    return lowering


lowers(aten.atan2.default)(_binary_float("atan2"))
lowers(aten.copysign.Tensor, aten.copysign.Scalar)(_binary_float("copysign"))
lowers(aten.hypot.default)(_binary_float("hypot"))


@lowers(aten.nextafter.default)
def nextafter(ctx: GraphLowering, a: TensorBox, b: TensorBox) -> TensorBox:
    """The next number of the same type after a, towards b."""
    if ctx.out_dtype in (torch.float16, torch.bfloat16):
        raise Unsupported("nextafter of half types")
    return ctx.elementwise(lambda x, y: ctx.dag.op("nextafter", x, y), a, b, compute=ctx.out_dtype)


@lowers(aten.ldexp.Tensor)
def ldexp(ctx: GraphLowering, x: TensorBox, exponent: TensorBox) -> TensorBox:
    """x * 2 ** exponent, the power rounded to the exponent's type, as eager does: in float16 it overflows."""
    d = ctx.dag

    def value(v: Node, e: Node) -> Node:
        power = d.op("exp2", e)
        if exponent.dtype in HALF_TYPES and {x.dtype, ctx.out_dtype} <= {exponent.dtype, torch.float32}:
            power = d.to_dtype(d.to_dtype(power, exponent.dtype), power.dtype)
        return d.op("mul", v, power)

    return ctx.elementwise(value, x, exponent, compute=ctx.out_dtype)
