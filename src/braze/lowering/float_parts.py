"""Operators on the bits of floating-point numbers: mantissa and exponent, and the next number.

A file of its own: each family of operators has one."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch

from braze.ir.boxes import TensorBox
from braze.lowering.registry import lowers
from braze.ops.dag import Node
from braze.ops.dtypes import HALF_TYPES
from braze.ops.functions import isinf, isnan, where

if TYPE_CHECKING:
    from braze.lowering.graph import GraphLowering

aten = torch.ops.aten


class _Format(NamedTuple):
    """``bits``: the integer type of the same width; ``mantissa``: how many bits the fraction has; ``bias``:
    the exponent field of numbers in [1/2, 1)."""

    bits: torch.dtype
    mantissa: int
    bias: int

    @property
    def field(self) -> int:
        """The exponent's mask, without the sign."""
        return 2 * self.bias + 3


_FORMATS = {torch.float32: _Format(torch.int32, 23, 126), torch.float64: _Format(torch.int64, 52, 1022)}


def _split(v: Node) -> tuple[Node, Node]:
    """The mantissa of v, from 1/2 to 1, and the exponent (int32); v itself and 0 where it is zero, infinite
    or NaN."""
    d, form = v.dag, _FORMATS[v.dtype]
    plain = v.eq(0) | isinf(v) | isnan(v)
    # a subnormal number becomes a normal one
    subnormal = abs(v) < math.ldexp(0.5, 2 - form.bias)
    bits = d.bitcast(where(subnormal, v * 2.0**form.mantissa, v), form.bits)
    exponent = ((bits >> form.mantissa) & form.field) - form.bias
    exponent = exponent - where(subnormal, bits.like(form.mantissa), 0)
    whole = (bits & ~(form.field << form.mantissa)) | (form.bias << form.mantissa)
    return where(plain, v, d.bitcast(whole, v.dtype)), d.to_dtype(where(plain, 0, exponent), torch.int32)


@lowers(aten.frexp.Tensor)
def frexp(ctx: GraphLowering, x: TensorBox) -> tuple[TensorBox, TensorBox]:
    """Mantissa and exponent: x = mantissa * 2^exponent."""
    parts = [
        ctx.elementwise(lambda v, k=k: _split(v)[k], x, compute=x.dtype, out=out, exact=True)
        for k, out in enumerate((x.dtype, torch.int32))
    ]
    return parts[0], parts[1]


def _next(x: Node, y: Node, dtype: torch.dtype) -> Node:
    """The next number of a half type after x, in the direction of y, by its bits."""
    d = x.dag
    bits = d.bitcast(d.to_dtype(x, dtype), torch.int16)
    stepped = bits + where((y > x).eq(x > 0), bits.like(1), -1)
    smallest = where(y > 0, bits.like(1), -0x7FFF)
    found = d.bitcast(where(x.eq(0), smallest, stepped), dtype)
    value = where(x.eq(y), y, d.to_dtype(found, x.dtype))
    return where(isnan(x) | isnan(y), x + y, value)


@lowers(aten.nextafter.default)
def nextafter(ctx: GraphLowering, a: TensorBox, b: TensorBox) -> TensorBox:
    """The next number of the same type after a, towards b."""
    dtype = ctx.out_dtype

    def value(x: Node, y: Node) -> Node:
        return _next(x, y, dtype) if dtype in HALF_TYPES else ctx.dag.op("nextafter", x, y)

    return ctx.elementwise(value, a, b, compute=dtype, exact=True)
