"""Numbers that are not known before the graph runs: read from a tensor, or computed from symbolic sizes.

A symbolic integer is an ``Expr``. A symbolic floating-point number is a float64 node without loop variables.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from braze._torch.integers import LEAST
from braze.ir.boxes import TensorBox
from braze.ir.externs import BindSymbol, CheckCondition
from braze.lowering.promotion import Scalar, number
from braze.lowering.registry import Unsupported, lowers
from braze.ops.dag import Node
from braze.runtime.expr import Expr, Symbol
from braze.runtime.guard import FALSE, TRUE, BoolExpr, all_of, compare

if TYPE_CHECKING:
    from braze.lowering.graph import GraphLowering

aten = torch.ops.aten


@lowers(aten._local_scalar_dense.default)
def item(ctx: GraphLowering, x: TensorBox) -> Expr:
    """The only element of an integer tensor as a number."""
    if not isinstance(ctx.example, torch.SymInt):
        raise Unsupported("a number read from a tensor that is no integer")
    value = ctx.expr(ctx.example)
    known = ctx.sizes.is_bound(value, ctx.graph)
    if value.symbol is None and not known:
        raise Unsupported(f"a number read from a tensor that the trace knows as {value}")
    name = ctx.graph.operation_name()
    # a number that the program promises to be another one is read under a name of its own, and compared
    symbol = value.symbol if value.symbol is not None and not known else Symbol(f"read_{name}", LEAST)
    ctx.graph.add_operation(BindSymbol(name, symbol.name, ctx.graph.ref(x), origins=[ctx.origin]))
    ctx.graph.know(symbol.expr)
    if known:
        check(ctx, compare(symbol.expr, "==", value), f"a number in a tensor is not {value}")
    return value


def check(ctx: GraphLowering, condition: BoolExpr, message: str) -> None:
    """Raise ``RuntimeError(message)`` at this point of the graph unless the condition holds."""
    if condition.constant is not True:
        name = ctx.graph.operation_name()
        ctx.graph.add_operation(CheckCondition(name, condition, message, origins=[ctx.origin]))


@lowers(aten._assert_scalar.default)
def assert_scalar(ctx: GraphLowering, condition: Any, message: str) -> None:
    """A condition on sizes, or on numbers that were read from tensors."""
    if isinstance(condition, Expr):
        condition = compare(condition, "!=", 0)
    elif isinstance(condition, (bool, int)):
        condition = TRUE if condition else FALSE
    if not isinstance(condition, BoolExpr):
        raise Unsupported("a condition outside the grammar of sizes")
    check(ctx, condition, message)


@lowers(aten.sym_constrain_range.default, aten.sym_constrain_range_for_size.default)
def constrain_range(ctx: GraphLowering, size: Any, *, min: int | None = None, max: int | None = None) -> None:
    """Bounds of a number that was read from a tensor."""
    least = [] if min is None else [compare(size, ">=", min)]
    most = [] if max is None else [compare(size, "<=", max)]
    condition = all_of([*least, *most])
    check(ctx, condition, f"a number in a tensor does not fulfil {condition}")


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
