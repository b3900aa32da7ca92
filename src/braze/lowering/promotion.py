"""PyTorch's rules of type promotion, and other things that most elementwise lowerings need."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch

from braze._torch.state import default_dtype
from braze.ir.boxes import TensorBox
from braze.lowering.casts import converted, held
from braze.ops.dag import Node
from braze.ops.dtypes import compute_dtype, is_float
from braze.runtime.expr import Expr

if TYPE_CHECKING:
    from braze.lowering.graph import GraphLowering

Scalar = bool | int | float | complex | Expr | Node
"""A number: known, or an expression of sizes, or a value without loop variables (of float64 or bool)."""
Operand = TensorBox | Scalar
NodeFn = Callable[..., Node]


def scalar_type(value: object) -> torch.dtype:
    """The type of a Python number, as a tensor operation sees it."""
    if isinstance(value, bool) or (isinstance(value, Node) and value.dtype is torch.bool):
        return torch.bool
    if isinstance(value, complex):
        return default_dtype().to_complex()
    return default_dtype() if isinstance(value, (float, Node)) else torch.int64


def result_type(*operands: Operand | None) -> torch.dtype:
    """The type in which an operation on ``operands`` is done: ``torch.result_type`` of any number of them.

    Tensors with dimensions come before those without, and these before numbers; what comes later counts
    only where it is of a higher category (bool, integer, floating, complex).
    """
    ranks: list[torch.dtype | None] = [None, None, None]
    for x in operands:
        if x is None:
            continue
        if isinstance(x, TensorBox):
            rank, dtype = (0 if x.ndim else 1), x.dtype
        else:
            rank, dtype = 2, scalar_type(x)
        known = ranks[rank]
        ranks[rank] = dtype if known is None else torch.promote_types(known, dtype)
    result = _combine(ranks[0], _combine(ranks[1], ranks[2]))
    assert result is not None
    return result


def _combine(higher: torch.dtype | None, lower: torch.dtype | None) -> torch.dtype | None:
    if higher is None or lower is None:
        return lower if higher is None else higher
    if _category(higher) >= _category(lower):
        return higher
    return torch.promote_types(higher, lower)


def _category(dtype: torch.dtype) -> int:
    if dtype is torch.bool:
        return 0
    return 3 if dtype.is_complex else 2 if is_float(dtype) else 1


def number(ctx: GraphLowering, value: Scalar, dtype: torch.dtype) -> Node:
    """A number as a value of type ``dtype``."""
    if isinstance(value, Node):
        return ctx.dag.to_dtype(value, dtype)
    return ctx.dag.index_expr(value, dtype) if isinstance(value, Expr) else ctx.dag.constant(value, dtype)


def operand(
    ctx: GraphLowering,
    x: Operand,
    indices: Sequence[Expr],
    size: Sequence[Expr],
    dtype: torch.dtype,
    *,
    exact: bool = False,
    wide: bool = False,
) -> Node:
    """``x``, broadcast to ``size``, at ``indices``, in the compute type of ``dtype``, and with the precision
    of ``dtype`` where it comes from another type.

    A value of a half type may be more precise than that while it has not been stored. ``exact``: it is
    rounded, because the operation makes much of a small difference. ``wide``: a number, or a tensor of one
    element, beside tensors of a half type keeps the precision of the computation."""
    compute = compute_dtype(dtype)
    if not isinstance(x, TensorBox):
        v = number(ctx, x, compute)
        return v if wide else converted(ctx, v, dtype)
    v = ctx.broadcast_load(x, indices, size)
    if exact or x.dtype is not dtype:
        v = held(ctx, v, x.dtype)
    if x.dtype is dtype or (wide and all(n.constant == 1 for n in x.size)):
        return ctx.dag.to_dtype(v, compute)
    return converted(ctx, v, dtype)


def dims_of(dims: int | Sequence[int] | None, ndim: int) -> list[int]:
    """Dimensions as non-negative numbers, in order; all of them for ``None`` or an empty list."""
    if isinstance(dims, int):
        dims = [dims]
    if not dims:
        return list(range(ndim))
    return sorted({d % ndim for d in dims}) if ndim else []


def nonzero(v: Node) -> Node:
    """``v != 0`` as a boolean."""
    return v.dag.to_dtype(v, torch.bool) if v.dtype.is_complex else v if v.dtype is torch.bool else v.ne(0)
