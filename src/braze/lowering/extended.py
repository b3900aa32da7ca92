"""Lowerings and externs that people registered (`braze.lowering`, `braze.extern`), as others are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from braze._torch.schema import bind, operator_info
from braze.errors import Refused
from braze.extensions.registry import Extension, registered
from braze.ir.boxes import TensorBox
from braze.lowering.promotion import operand, result_type
from braze.ops.dag import Node
from braze.ops.dtypes import compute_dtype, is_float
from braze.runtime.expr import Expr

if TYPE_CHECKING:
    from braze.lowering.graph import GraphLowering

__all__ = ["lowering_by_user"]


def lowering_by_user(target: Any) -> Callable[..., Any] | None:
    """The lowering that somebody registered for an operator of their own."""
    extension = registered("lowering", target)
    if extension is None:
        return None
    make = _with_context if extension.whole else _elementwise

    def lowering(ctx: GraphLowering, *args: Any, **kwargs: Any) -> Any:
        try:
            return make(extension, ctx, args, kwargs)
        except Refused:
            raise
        except Exception as error:  # whatever it is, it is an error of the function's
            raise Refused(f"its lowering {extension.name} failed with {_described(error)}") from error

    return lowering


def _described(error: Exception) -> str:
    text = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _with_context(extension: Extension, ctx: GraphLowering, args: Any, kwargs: dict[str, Any]) -> Any:
    assert extension.function is not None
    made = extension.function(ctx, *args, **kwargs)
    values = list(made) if isinstance(made, (tuple, list)) else [made]
    examples = _examples(ctx, len(values))
    for value, example in zip(values, examples, strict=True):
        if not isinstance(value, TensorBox):
            raise TypeError(f"it returned a {type(value).__name__}, and not a tensor of the compiler's")
        if value.dtype is not example.dtype or tuple(value.size) != ctx.exprs(example.shape):
            raise TypeError(
                f"it returned {value.dtype} of {_shown(value.size)}, and the operator returns"
                f" {example.dtype} of {_shown(ctx.exprs(example.shape))}"
            )
    return made


def _elementwise(extension: Extension, ctx: GraphLowering, args: Any, kwargs: dict[str, Any]) -> Any:
    assert extension.function is not None
    function, info = extension.function, operator_info(extension.operator)
    bound = bind(extension.operator, args, kwargs)
    operands = [x for x in bound.values() if _is_operand(x)]
    count = len(info.returns)
    boxes: list[TensorBox] = []
    for position, example in enumerate(_examples(ctx, count)):
        size, dtype = ctx.exprs(example.shape), example.dtype
        for name, x in bound.items():
            if isinstance(x, TensorBox):
                _check_broadcasts(ctx, name, x, size)
        compute = _type_of(operands, dtype)

        def element(
            indices: tuple[Expr, ...],
            size: Sequence[Expr] = size,
            dtype: torch.dtype = dtype,
            compute: torch.dtype = compute,
            position: int = position,
        ) -> Node:
            values = {name: _value(ctx, x, indices, size, compute) for name, x in bound.items()}
            positional = [values[a.name] for a in info.arguments if not a.keyword_only]
            keywords = {a.name: values[a.name] for a in info.arguments if a.keyword_only}
            made = function(*positional, **keywords)
            results = list(made) if isinstance(made, (tuple, list)) else [made]
            if len(results) != count:
                raise TypeError(f"it returned {len(results)} results, and the operator returns {count}")
            result = results[position]
            if isinstance(result, Node):
                return result
            if isinstance(result, (bool, int, float)):
                return ctx.dag.constant(result, compute_dtype(dtype))
            raise TypeError(f"it returned a {type(result).__name__}, and not a value")

        boxes.append(ctx.pointwise(size, dtype, element))
    return boxes[0] if count == 1 else tuple(boxes)


def _examples(ctx: GraphLowering, count: int) -> list[torch.Tensor]:
    example = ctx.example
    found = list(example) if isinstance(example, (tuple, list)) else [example]
    if len(found) != count:
        raise TypeError(f"it returned {count} results, and the operator returns {len(found)}")
    return found


def _is_operand(x: Any) -> bool:
    return isinstance(x, (TensorBox, Expr, Node, int, float)) and not isinstance(x, bool)


def _type_of(operands: Sequence[Any], out: torch.dtype) -> torch.dtype:
    """The type in which all is computed but what is boolean."""
    numeric = [x for x in operands if not (isinstance(x, TensorBox) and x.dtype is torch.bool)]
    if not numeric:
        return out
    common = result_type(*numeric)
    return torch.promote_types(common, out) if is_float(out) else common


def _value(
    ctx: GraphLowering, x: Any, indices: Sequence[Expr], size: Sequence[Expr], dtype: torch.dtype
) -> Any:
    if not _is_operand(x):
        if isinstance(x, (list, tuple)) and any(isinstance(v, TensorBox) for v in x):
            raise TypeError("it takes a list of tensors, for which a lowering needs context=True")
        return x
    own = torch.bool if isinstance(x, TensorBox) and x.dtype is torch.bool else dtype
    return operand(ctx, x, indices, size, own, wide=not isinstance(x, TensorBox))


def _check_broadcasts(ctx: GraphLowering, name: str, x: TensorBox, size: Sequence[Expr]) -> None:
    """Raise where the tensor's elements do not stand for elements of the result."""
    lead = len(size) - x.ndim
    fits = lead >= 0 and all(
        n == size[d + lead] or ctx.sizes.is_repeated(n, size[d + lead]) for d, n in enumerate(x.size)
    )
    if not fits:
        raise TypeError(
            f"{name} has the sizes {_shown(x.size)}, which are not broadcast to the result's {_shown(size)}"
        )


def _shown(size: Sequence[Expr]) -> str:
    return f"[{', '.join(map(str, size))}]"
