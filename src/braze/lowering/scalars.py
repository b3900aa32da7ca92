"""Numbers that are not known before the graph runs: read from a tensor, or computed from symbolic sizes.

An integer is an ``Expr``. A floating-point number or a truth value is a node of float64 or bool without loop
variables. Kernels compute what IEEE arithmetic rounds in one way only, so that it is bit for bit what Python
would have found; everything else Python computes, in a call of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.fx import Node as FxNode

from braze._torch.integers import LEAST
from braze._torch.number_functions import number_function_name
from braze._torch.shapes import bounds_of, is_surely_nonnegative, is_surely_positive
from braze.errors import Refused
from braze.ir.boxes import TensorBox
from braze.ir.externs import (
    BindSymbol,
    CheckCondition,
    ComputeNumber,
    ItemRef,
    NumberBuffer,
    TensorRef,
    map_leaves,
)
from braze.ir.loops import Pointwise
from braze.lowering.casts import held
from braze.lowering.promotion import Scalar, number
from braze.lowering.registry import lowers
from braze.ops.dag import Node
from braze.ops.functions import sqrt
from braze.runtime.expr import Expr, Symbol, as_expr
from braze.runtime.guard import FALSE, TRUE, BoolExpr, all_of, compare
from braze.runtime.spec import tensor_spec

if TYPE_CHECKING:
    from braze.lowering.graph import GraphLowering

aten = torch.ops.aten

_KINDS: dict[type, torch.dtype] = {
    torch.SymFloat: torch.float64,
    float: torch.float64,
    torch.SymInt: torch.int64,
    int: torch.int64,
    torch.SymBool: torch.bool,
    bool: torch.bool,
}
_COMPARISONS = frozenset("py::eq py::ne py::lt py::le py::gt py::ge".split())
_ARITHMETIC = frozenset("py::add py::sub py::mul py::neg py::abs".split())
_SQUARE_ROOTS = frozenset("torch::sym_sqrt torch::_sym_sqrt math::sqrt".split())
_LOGIC = {"py::and_": "logical_and", "py::or_": "logical_or", "py::xor": "logical_xor"}


def number_type(example: Any) -> torch.dtype | None:
    """The element type of a tensor that holds such a number; None for what is none."""
    return _KINDS.get(type(example))


def number_buffer(name: str, dtype: torch.dtype) -> NumberBuffer:
    """A buffer for a number of that type, not declared yet."""
    return NumberBuffer(name, tensor_spec(dtype, ()))


def number_in(ctx: GraphLowering, buffer: NumberBuffer, example: Any) -> Scalar:
    """The number that ``buffer`` will stand for, as lowerings see it. ``buffer`` has been declared."""
    if buffer.dtype is torch.int64:
        return bind_integer(ctx, TensorRef(buffer, buffer.layout), example)
    return TensorBox.of(buffer).load(ctx.dag, ())


def bind_integer(ctx: GraphLowering, source: TensorRef, example: Any) -> Expr:
    """The integer in ``source`` as an expression: that of the trace where it is a symbol of its own, or an
    expression of known sizes, with which it is compared; else a new symbol, which stands for the trace's
    expression from now on."""
    name = ctx.graph.operation_name()
    value = ctx.sizes.try_expr(example)
    known = value is not None and ctx.sizes.is_bound(value, ctx.graph)
    if value is None or (value.symbol is None and not known):
        value = Symbol(f"read_{name}", *bounds_of(example)).expr
        ctx.sizes.define(example, value)
    # a number that the program promises to be another one is read under a name of its own, and compared
    symbol = value.symbol if value.symbol is not None and not known else Symbol(f"read_{name}", LEAST)
    ctx.graph.add_operation(BindSymbol(name, symbol.name, source, origins=[ctx.origin]))
    ctx.graph.know(symbol.expr)
    if known:
        check(ctx, compare(symbol.expr, "==", value), f"a number in a tensor is not {value}")
    return value


def stored_number(ctx: GraphLowering, value: Node) -> ItemRef:
    """A number that kernels compute, in memory: where a call reads it."""
    if value.op == "load" and isinstance(buffer := ctx.graph.buffers[value.buffer], NumberBuffer):
        return ItemRef(TensorRef(buffer, buffer.layout))
    return ItemRef(ctx.graph.ref(ctx.graph.box(Pointwise(value.dtype, (), value))))


@lowers(aten._local_scalar_dense.default)
def item(ctx: GraphLowering, x: TensorBox) -> Scalar:
    """The only element of a tensor as a number: as it is now, whatever is written to the tensor later."""
    dtype = number_type(ctx.example)
    if dtype is None:
        raise Refused(f"a number of type {type(ctx.example).__name__} read from a tensor")
    if dtype is torch.int64:
        return bind_integer(ctx, ctx.graph.ref(x), ctx.example)
    value = ctx.dag.to_dtype(held(ctx, x.load(ctx.dag, [as_expr(0)] * x.ndim), x.dtype), dtype)
    kept = ctx.graph.box(Pointwise(dtype, (), value))
    ctx.graph.realize(kept)
    return kept.load(ctx.dag, ())


def check(ctx: GraphLowering, condition: BoolExpr, message: str) -> None:
    """Raise ``RuntimeError(message)`` at this point of the graph unless the condition holds."""
    if condition.constant is not True:
        name = ctx.graph.operation_name()
        ctx.graph.add_operation(CheckCondition(name, condition, message, origins=[ctx.origin]))


@lowers(aten._assert_scalar.default)
def assert_scalar(ctx: GraphLowering, condition: Any, message: str) -> None:
    """A condition on sizes, or on numbers that were read from tensors."""
    traced = _traced(ctx.node.args[0])
    said = ctx.sizes.try_condition(traced) if isinstance(traced, torch.SymBool) else None
    if said is not None and ctx.sizes.is_bound(said, ctx.graph):
        return check(ctx, said, message)
    if isinstance(condition, Node):
        source = stored_number(ctx, condition).ref
        name = ctx.graph.operation_name()
        answer = Symbol(f"read_{name}", 0, 1)
        ctx.graph.add_operation(BindSymbol(name, answer.name, source, origins=[ctx.origin]))
        ctx.graph.know(answer.expr)
        condition = answer.expr
    if isinstance(condition, Expr):
        return check(ctx, compare(condition, "!=", 0), message)
    return check(ctx, TRUE if condition else FALSE, message)


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


def computed_number(ctx: GraphLowering) -> Scalar | None:
    """What the current node computes from numbers; None where it is no function on numbers."""
    name = number_function_name(ctx.node.target)
    example = ctx.example
    dtype = number_type(example)
    if name is None or dtype is None:
        return None
    if isinstance(example, (bool, float)):  # the trace knows it, whatever the sizes
        return example
    args = ctx.args_of(ctx.node.args)
    native = None if dtype is torch.int64 else _native(ctx, name, args)
    if native is not None:
        return native
    given = map_leaves(tuple(args), lambda leaf: stored_number(ctx, leaf) if isinstance(leaf, Node) else leaf)
    buffer = number_buffer(ctx.graph.buffer_name(), dtype)
    ctx.graph.add_operation(
        ComputeNumber(ctx.graph.operation_name(), name, given, buffer, origins=[ctx.origin])
    )
    return number_in(ctx, buffer, example)


def _native(ctx: GraphLowering, name: str, args: Sequence[Any]) -> Node | None:
    """The number as kernels compute it, if that is exactly what Python would find."""
    d = ctx.dag
    if not all(isinstance(a, (bool, int, float, Expr, Node)) for a in args):
        return None
    if name in _COMPARISONS:
        whole = all(isinstance(a, (int, Expr)) for a in args)
        compared = torch.int64 if whole else torch.float64
        left, right = (number(ctx, a, compared) for a in args)
        return d.op(name.removeprefix("py::"), left, right)
    if name in _LOGIC and all(_is_truth(a) for a in args):
        return d.op(_LOGIC[name], *[number(ctx, a, torch.bool) for a in args])
    if name in ("torch::sym_not", "py::not_") and _is_truth(args[0]):
        return ~number(ctx, args[0], torch.bool)
    if ctx.example.__class__ is not torch.SymFloat:
        return None
    values = [number(ctx, a, torch.float64) for a in args]
    if name in ("torch::sym_float", "py::float", "py::pos"):
        return values[0]
    if name in _ARITHMETIC:
        return d.op(name.removeprefix("py::"), *values)
    if name == "py::truediv" and is_surely_positive(_traced(ctx.node.args[1])):
        return values[0] / values[1]
    if name in _SQUARE_ROOTS and is_surely_nonnegative(_traced(ctx.node.args[0])):
        return sqrt(values[0])
    return None


def _is_truth(value: Scalar) -> bool:
    return isinstance(value, bool) or (isinstance(value, Node) and value.dtype is torch.bool)


def _traced(value: Any) -> Any:
    """An argument of the node as the trace knows it."""
    return value.meta.get("val") if isinstance(value, FxNode) else value
