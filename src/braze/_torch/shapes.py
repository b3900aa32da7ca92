"""Symbolic sizes: what the trace knows of them, what it may still learn, and what must hold at run time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeAlias, cast

import torch
from torch._dynamo.exc import TorchDynamoException
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException
from torch.fx.experimental import symbolic_shapes as shapes
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from braze._torch.integers import LEAST
from braze._torch.shape_envs import values_in_trace, whole_number

__all__ = [
    "Size",
    "bounds_in",
    "bounds_of",
    "decides_by_data",
    "expression_of",
    "guard",
    "guard_int",
    "hint",
    "is_of_tracing",
    "is_surely_nonnegative",
    "is_surely_positive",
    "is_symbolic",
    "is_unbacked",
    "range_of",
    "same_layout",
    "same_size",
    "shape_env_of",
    "symbols_of",
    "true_if_known",
    "true_or_guard",
    "value_in_trace",
]

Size: TypeAlias = "int | torch.SymInt"


def is_symbolic(value: object) -> bool:
    """Whether `value` is a symbolic integer, float or boolean."""
    return isinstance(value, (torch.SymInt, torch.SymFloat, torch.SymBool))


def expression_of(value: torch.SymInt | torch.SymFloat | torch.SymBool) -> tuple[Any, ShapeEnv]:
    """A symbolic value's sympy expression, simplified by what the trace knows, and the trace's ShapeEnv."""
    node = value.node
    # a symbol that was found to be a constant is replaced by it
    return node.shape_env.simplify(node.expr), node.shape_env


def symbols_of(value: Size) -> set[Any]:
    """The symbols that a size, symbolic or not, is computed from."""
    return set(expression_of(value)[0].free_symbols) if isinstance(value, torch.SymInt) else set()


def shape_env_of(values: Iterable[Any]) -> ShapeEnv | None:
    """The ShapeEnv of the first symbolic number, or fake tensor made with one, among `values`."""
    for value in values:
        if is_symbolic(value):
            return cast("ShapeEnv | None", value.node.shape_env)
        env = getattr(getattr(value, "fake_mode", None), "shape_env", None)
        if env is not None:
            return cast(ShapeEnv, env)
    return None


def hint(value: Any) -> int | None:
    """The number that a symbolic integer stood for in the trace; None for one that depends on data."""
    if not is_symbolic(value):
        return int(value)
    found = value.node.maybe_as_int() if hasattr(value.node, "maybe_as_int") else None
    if found is not None:
        return int(found)
    # `SymNode.hint` gives None for an unbacked symbol
    return whole_number(value.node.hint)


def value_in_trace(symbol: Any, env: ShapeEnv) -> int | None:
    """The number that a symbol stood for in the trace; None for one that depends on data."""
    if not symbol.is_integer or is_unbacked(env, symbol):
        return None
    return whole_number(values_in_trace(env).get(symbol))


def guard(condition: bool | torch.SymBool) -> bool:
    """Decide `condition` for good: the answer of the trace becomes a guard, and another one compiles again.
    Raises where the condition depends on data."""
    return shapes.guard_bool(condition)


def guard_int(value: Size) -> int:
    """The value of a size, made a constant of the compiled graph by a guard."""
    return shapes.guard_int(value)


def true_if_known(condition: bool | torch.SymBool) -> bool:
    """Whether `condition` holds for every size that the guards so far admit. Adds no guard."""
    return bool(shapes.statically_known_true(condition))


def true_or_guard(condition: bool | torch.SymBool) -> bool:
    """Like `guard`, but False where the condition depends on data."""
    return bool(shapes.guard_or_false(condition))


def is_unbacked(env: ShapeEnv, symbol: Any) -> bool:
    """Whether a symbol's value comes out of the graph's data (`nonzero`, `item`) instead of its inputs."""
    return bool(env.is_unbacked_symint(symbol))


def range_of(symbol: Any, env: ShapeEnv) -> tuple[int, int | None]:
    """The least and greatest value of a symbol; None where it has no greatest. An integer that is no size may
    be negative: without a least value it has that of 64 bits."""
    known = env.var_to_range.get(symbol)
    if known is None:
        return LEAST, None
    # sympy has infinities of its own, and PyTorch adds one for integers: none of them is an Integer
    lower = int(known.lower) if known.lower.is_Integer else LEAST
    upper = int(known.upper) if known.upper.is_Integer else None
    return lower, upper


def bounds_of(value: Size) -> tuple[int, int | None]:
    """The least and greatest number that an integer may be, as far as the trace knows; None where there is no
    greatest."""
    if isinstance(value, int):
        return value, value
    return bounds_in(*expression_of(value))


def bounds_in(expression: Any, env: ShapeEnv) -> tuple[int, int | None]:
    """The same for a sympy expression of a trace."""
    known = env.bound_sympy(expression)
    lower = int(known.lower) if known.lower.is_Integer else LEAST
    upper = int(known.upper) if known.upper.is_Integer else None
    return max(lower, LEAST), upper


def is_surely_positive(value: Any) -> bool:
    """Whether a number, symbolic or not, is greater than 0 for all sizes that the guards so far admit."""
    if not is_symbolic(value):
        return bool(value > 0)
    expression, env = expression_of(value)
    return bool(env.bound_sympy(expression).lower > 0)


def is_surely_nonnegative(value: Any) -> bool:
    """Whether a number, symbolic or not, is not less than 0 for all sizes that the guards so far admit."""
    if not is_symbolic(value):
        return bool(value >= 0)
    expression, env = expression_of(value)
    return bool(env.bound_sympy(expression).lower >= 0)


def is_of_tracing(error: BaseException) -> bool:
    """Whether an exception is about the trace and not about an operator: something depends on data, or Dynamo
    is to trace in another way."""
    return isinstance(
        error,
        (
            shapes.GuardOnDataDependentSymNode,
            DataDependentOutputException,
            DynamicOutputShapeException,
            TorchDynamoException,
        ),
    )


def decides_by_data(error: BaseException) -> bool:
    """Whether an exception says that a trace has to know a number that only the running graph knows."""
    return isinstance(error, shapes.GuardOnDataDependentSymNode)


def same_size(a: Size, b: Size) -> bool:
    """Whether two sizes are equal as far as can be seen without adding a guard."""
    if isinstance(a, int) and isinstance(b, int):
        return a == b
    if isinstance(a, int) or isinstance(b, int):
        return False
    return bool(a.node.expr == b.node.expr)


def same_layout(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether two tensors have the same sizes and strides, as far as can be seen without adding a guard."""
    return a.ndim == b.ndim and all(
        same_size(x, y)
        for x, y in (*zip(a.shape, b.shape, strict=True), *zip(a.stride(), b.stride(), strict=True))
    )
