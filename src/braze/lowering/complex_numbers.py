"""Complex tensors, compiled as pairs of real numbers.

An element of a complex tensor is a complex node, a pair of real ones; in memory it is two elements, real part
first, and loops store both at once. What only moves elements needs no lowering of its own. Every other
operator that takes complex tensors has one here, or eager PyTorch runs it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from braze._torch.prims import prims
from braze.errors import Refused
from braze.ir.boxes import ReinterpretView, StorageBox, TensorBox
from braze.ir.buffers import Buffer
from braze.ir.views import ComplexAsReal, RealAsComplex
from braze.lowering import index_writes
from braze.lowering.calls import call_fallback
from braze.lowering.inplace import leaves_graph
from braze.lowering.promotion import Operand, Scalar, number, result_type
from braze.lowering.reductions import Space, count
from braze.lowering.registry import lowers, lowers_complex, same_for_complex
from braze.ops import complex_numbers as numbers
from braze.ops.dag import Node
from braze.ops.dtypes import PARTS
from braze.ops.functions import isinf, isnan, where
from braze.runtime.expr import Expr

if TYPE_CHECKING:
    from braze.lowering.graph import GraphLowering

aten = torch.ops.aten

same_for_complex(
    # views
    aten.alias.default,
    aten.as_strided.default,
    aten.diagonal.default,
    aten.expand.default,
    aten.permute.default,
    aten.reshape.default,
    aten.select.int,
    aten.slice.Tensor,
    aten.squeeze.dims,
    aten.unfold.default,
    aten.unsqueeze.default,
    aten.view.default,
    # copies and conversions
    aten._to_copy.default,
    aten.clone.default,
    aten.copy.default,
    aten.copy_.default,
    aten.lift_fresh_copy.default,
    prims.convert_element_type.default,
    # pieces put together
    aten.cat.default,
    aten.constant_pad_nd.default,
    aten.diagonal_scatter.default,
    aten.flip.default,
    aten.repeat.default,
    aten.select_scatter.default,
    aten.slice_scatter.default,
    aten.where.self,
    # places
    aten.embedding.default,
    aten.gather.default,
    aten.index.Tensor,
    aten.index_select.default,
    aten.index_copy.default,
    aten.scatter.src,
    aten.scatter.value,
    aten.scatter_add.default,
    # truth
    aten.any.default,
    aten.any.dim,
    aten.any.dims,
    aten.logical_and.default,
    aten.logical_not.default,
    aten.logical_or.default,
    aten.logical_xor.default,
    # from nothing
    aten.empty.memory_format,
    aten.empty_permuted.default,
    aten.empty_strided.default,
    aten.full.default,
    aten.full_like.default,
    aten.new_empty_strided.default,
    aten.scalar_tensor.default,
    prims.scalar_tensor.default,
    # what is the same for both parts
    aten.sum.dim_IntList,
)


@lowers_complex(aten.index_add.default)
def index_add(
    ctx: GraphLowering, x: TensorBox, dim: int, index: TensorBox, source: TensorBox, *, alpha: Scalar = 1
) -> TensorBox:
    """x with slices of ``source`` added to its slices ``index`` along one dimension."""
    if alpha != 1:
        raise Refused("complex numbers added to slices, times a number")
    return index_writes.index_add(ctx, x, dim, index, source)


@lowers_complex(aten.index_put.default)
def index_put(
    ctx: GraphLowering,
    x: TensorBox,
    indices: Sequence[TensorBox | None],
    values: TensorBox,
    accumulate: bool = False,
) -> TensorBox:
    """x with ``values``, broadcast, written at ``x[indices]``, or added to it."""
    if accumulate and any(t is not None and t.dtype is torch.bool for t in indices):
        raise Refused("complex numbers added where a mask says")
    return index_writes.index_put(ctx, x, indices, values, accumulate)


# -- pairs and their parts --------------------------------------------------------------------------------
@lowers_complex(aten.complex.default)
def complex_(ctx: GraphLowering, real: TensorBox, imag: TensorBox) -> TensorBox:
    """Two real tensors as one complex one."""
    part = PARTS[ctx.out_dtype]
    return ctx.elementwise(lambda x, y: ctx.dag.complex(x, y), real, imag, compute=part)


@lowers_complex(aten.polar.default)
def polar(ctx: GraphLowering, length: TensorBox, angle: TensorBox) -> TensorBox:
    """Complex numbers of these lengths and angles."""
    return ctx.elementwise(numbers.polar, length, angle, compute=PARTS[ctx.out_dtype])


def _of_memory(x: TensorBox, view: ComplexAsReal | RealAsComplex) -> TensorBox | None:
    """A view of the memory of x; None where x is not in memory, or where strides cannot say it."""
    content = x.content
    if not isinstance(content, (Buffer, ReinterpretView)):
        return None
    layout = view.layout(content.layout)
    if layout is None:
        return None
    return TensorBox(ReinterpretView(content if isinstance(content, Buffer) else content.buffer, layout))


@lowers_complex(aten.view_as_real.default)
def view_as_real(ctx: GraphLowering, x: TensorBox) -> TensorBox:
    """The parts along a new last dimension."""
    view = ComplexAsReal(ctx.out_size)
    found = _of_memory(x, view)
    if found is not None:
        return found

    def value(i: tuple[Expr, ...]) -> Node:
        z = x.load(ctx.dag, i[:-1])
        return where(ctx.dag.index_expr(i[-1]).eq(0), numbers.real(z), numbers.imag(z))

    box = ctx.pointwise(ctx.out_size, PARTS[x.dtype], value)
    if isinstance(box.data, StorageBox) and isinstance(x.data, StorageBox):
        box.data.base = (x.data, view)
    return box


@lowers_complex(aten.view_as_complex.default)
def view_as_complex(ctx: GraphLowering, x: TensorBox) -> TensorBox:
    """The last dimension, of two elements, as complex numbers."""
    found = _of_memory(x, RealAsComplex(ctx.out_size))
    if found is not None:
        return found
    if x.layout is not None and leaves_graph(ctx.node):
        raise Refused("strides of which it is not known whether they are even")

    def value(i: tuple[Expr, ...]) -> Node:
        first, second = (x.load(ctx.dag, [*i, ctx.expr(k)]) for k in range(2))
        return ctx.dag.complex(first, second)

    return ctx.pointwise(ctx.out_size, ctx.out_dtype, value)


@lowers_complex(aten._conj.default)
def conj_view(ctx: GraphLowering, x: TensorBox) -> Any:
    """The conjugate. What leaves the graph is conjugated lazily, and shares memory, as in eager PyTorch."""
    if leaves_graph(ctx.node):
        return call_fallback(ctx, "its memory is returned, to be conjugated lazily")
    return conj(ctx, x)


@lowers_complex(aten._conj_physical.default, aten.conj_physical.default)
def conj(ctx: GraphLowering, x: TensorBox) -> TensorBox:
    """The conjugate, at once."""
    return ctx.pointwise(x.size, x.dtype, lambda i: numbers.conj(x.load(ctx.dag, i)))


@lowers(aten._neg_view.default)
def neg_view(ctx: GraphLowering, x: TensorBox) -> Any:
    """The negative. What leaves the graph is negated lazily, and shares memory, as in eager PyTorch."""
    if leaves_graph(ctx.node):
        return call_fallback(ctx, "its memory is returned, to be negated lazily")
    return ctx.pointwise(x.size, x.dtype, lambda i: -x.load(ctx.dag, i))


# -- arithmetic -------------------------------------------------------------------------------------------
def _of(fn: Callable[..., Node], doc: str) -> Callable[..., TensorBox]:
    def lowering(ctx: GraphLowering, *operands: Operand) -> TensorBox:
        compute = result_type(*operands)
        return ctx.elementwise(fn, *operands, compute=compute)

    lowering.__doc__ = doc
    return lowering


_FUNCTIONS: dict[str, Callable[..., Node]] = {
    "abs.default": numbers.magnitude,
    "angle.default": numbers.angle,
    "cos.default": numbers.cosine,
    "cosh.default": numbers.hyperbolic_cosine,
    "div.Tensor div.Scalar true_divide.Tensor": numbers.divide,
    "eq.Tensor eq.Scalar": numbers.equal,
    "exp.default": numbers.exponential,
    "isinf.default": lambda z: numbers.either(isinf, z),
    "isnan.default": lambda z: numbers.either(isnan, z),
    "log.default": numbers.logarithm,
    "mul.Tensor mul.Scalar": numbers.multiply,
    "ne.Tensor ne.Scalar": lambda z, w: ~numbers.equal(z, w),
    "neg.default": numbers.negated,
    "reciprocal.default": numbers.reciprocal,
    "rsqrt.default": lambda z: numbers.reciprocal(numbers.square_root(z)),
    "sgn.default": numbers.sign,
    "sigmoid.default": numbers.sigmoid,
    "sin.default": numbers.sine,
    "sinh.default": numbers.hyperbolic_sine,
    "sqrt.default": numbers.square_root,
    "tan.default": numbers.tangent,
    "tanh.default": numbers.hyperbolic_tangent,
}

for _names, _fn in _FUNCTIONS.items():
    for _name in _names.split():
        _packet, _overload = _name.split(".")
        lowers_complex(getattr(getattr(aten, _packet), _overload))(_of(_fn, f"{_packet} of complex numbers."))


def _plus_scaled(ctx: GraphLowering, a: Operand, b: Operand, factor: Scalar) -> TensorBox:
    def value(z: Node, w: Node) -> Node:
        # eager multiplies by 1 and by -1, too, and a complex infinity times that may be NaN
        return numbers.add(z, numbers.multiply(w, number(ctx, factor, ctx.out_dtype)))

    return ctx.elementwise(value, a, b, compute=ctx.out_dtype)


@lowers_complex(aten.add.Tensor, aten.add.Scalar)
def add(ctx: GraphLowering, a: Operand, b: Operand, alpha: Scalar = 1) -> TensorBox:
    """a + alpha * b."""
    return _plus_scaled(ctx, a, b, alpha)


@lowers_complex(aten.sub.Tensor, aten.sub.Scalar)
def sub(ctx: GraphLowering, a: Operand, b: Operand, alpha: Scalar = 1) -> TensorBox:
    """a - alpha * b."""
    if isinstance(alpha, Node):
        raise Refused("a symbolic factor of complex numbers")
    return _plus_scaled(ctx, a, b, alpha * -1 if isinstance(alpha, Expr) else -alpha)


@lowers_complex(aten.tanh_backward.default)
def tanh_backward(ctx: GraphLowering, grad: TensorBox, y: TensorBox) -> TensorBox:
    """grad * conj(1 - y^2)."""

    def value(g: Node, v: Node) -> Node:
        slope = numbers.add(v.like(1), numbers.negated(numbers.multiply(v, v)))
        return numbers.multiply(g, numbers.conj(slope))

    return ctx.elementwise(value, grad, y, compute=ctx.out_dtype)


@lowers_complex(aten.sigmoid_backward.default)
def sigmoid_backward(ctx: GraphLowering, grad: TensorBox, y: TensorBox) -> TensorBox:
    """grad * conj((1 - y) * y)."""

    def value(g: Node, v: Node) -> Node:
        slope = numbers.multiply(numbers.add(v.like(1), numbers.negated(v)), v)
        return numbers.multiply(g, numbers.conj(slope))

    return ctx.elementwise(value, grad, y, compute=ctx.out_dtype)


@lowers_complex(aten.pow.Tensor_Scalar)
def pow_scalar(ctx: GraphLowering, x: TensorBox, exponent: Scalar) -> TensorBox:
    """x ** exponent, for the exponents that eager treats by themselves."""
    if isinstance(exponent, (Expr, Node)):
        raise Refused("a symbolic power of complex numbers")

    def value(z: Node) -> Node:
        found = numbers.power(z, exponent)
        if found is None:
            raise Refused(f"complex numbers to the power of {exponent}")
        return found

    return ctx.elementwise(value, x, compute=ctx.out_dtype)


@lowers_complex(aten.mean.dim)
def mean_dim(
    ctx: GraphLowering, x: TensorBox, dims: Any, keepdim: bool = False, *, dtype: Any = None
) -> TensorBox:
    """The mean over some dimensions."""
    out = ctx.out_dtype
    space = Space(ctx, x, dims, keepdim)
    n = count(ctx, space.numel, PARTS[out])
    return space.reduce(
        "sum",
        out,
        lambda i, r: [space.element(i, r, out)],
        finish=lambda z: ctx.dag.each_part(lambda part: part / n, z),
    )
