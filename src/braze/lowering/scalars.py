"""Numbers that are not known before the graph runs: read from a tensor, or computed from symbolic sizes.

A symbolic integer is an ``Expr``. A symbolic floating-point number is a float64 node without loop variables.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from braze.ir.boxes import TensorBox
from braze.ir.externs import BindSymbol
from braze.lowering.promotion import Scalar, number
from braze.lowering.registry import Unsupported, lowers
from braze.ops.dag import Node
from braze.runtime.expr import Expr

if TYPE_CHECKING:
    from braze.lowering.graph import GraphLowering

aten = torch.ops.aten


@lowers(aten._local_scalar_dense.default)
def item(ctx: GraphLowering, x: TensorBox) -> Expr:
    """The only element of an integer tensor as a number."""
    if not isinstance(ctx.example, torch.SymInt):
        raise Unsupported("a number read from a tensor that is no integer")
    value = ctx.expr(ctx.example)
    if value.symbol is None:
        raise Unsupported(f"a number read from a tensor that the trace knows as {value}")
    source = ctx.graph.ref(x)
    ctx.graph.add_operation(
        BindSymbol(ctx.graph.operation_name(), value.symbol.name, source, origins=[ctx.origin])
    )
    ctx.graph.know(value)
    return value


@lowers(aten._assert_tensor_metadata.default)
def metadata(ctx: GraphLowering, *args: Any, **kwargs: Any) -> None:
    """Nothing: a graph is compiled for one type, layout and device, which its guards see to."""


@lowers(torch.sym_float)
def sym_float(ctx: GraphLowering, x: Scalar) -> Node:
    """A symbolic integer as a floating-point number."""
    return number(ctx, x, torch.float64)


def _arithmetic(name: str) -> Callable[..., Node]:
    def lowering(ctx: GraphLowering, a: Scalar, b: Scalar) -> Node:
        if not isinstance(ctx.example, (float, torch.SymFloat)):
            raise Unsupported("a symbolic integer outside the grammar of sizes")
        return ctx.dag.op(name, number(ctx, a, torch.float64), number(ctx, b, torch.float64))

    lowering.__doc__ = f"{name} of numbers, in float64."
    return lowering


for _function, _name in (
    (operator.add, "add"),
    (operator.sub, "sub"),
    (operator.mul, "mul"),
    (operator.truediv, "truediv"),
    (operator.pow, "pow"),
):
    lowers(_function)(_arithmetic(_name))


@lowers(torch.sym_sqrt)
def sym_sqrt(ctx: GraphLowering, x: Scalar) -> Node:
    """The square root of a number."""
    return ctx.dag.op("sqrt", number(ctx, x, torch.float64))
