"""What a tensor is, and where its elements lie: the one place that knows sizes, strides and offsets.

Numbers are counted in elements. They are plain integers, or expressions where a size is a symbol: the
functions here take both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, TypeVar, overload

import torch
from msgspec import Struct

from braze._torch.devices import HOST
from braze.dtypes import torch_name
from braze.runtime.expr import ZERO, Expr, ExprLike, as_expr, known_nonnegative

__all__ = [
    "Node",
    "TensorSpec",
    "byte_span",
    "contiguous_strides",
    "exprs",
    "is_dense",
    "listed",
    "overlaps_itself",
    "restrided",
    "same_strides",
    "shape_text",
    "span",
    "stride_order",
    "tensor_spec",
]

N = TypeVar("N")


class Node(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A part of a plan: immutable, and stored without what is as always."""


def listed(values: Sequence[object]) -> str:
    """Values as plans print them; None stands for what does not matter."""
    return ", ".join("_" if v is None else str(v) for v in values)


def shape_text(dtype: torch.dtype, sizes: Sequence[object], strides: Sequence[object]) -> str:
    """``float32[2, s0] stride (s0, 1)``."""
    return f"{torch_name(dtype)}[{listed(sizes)}] stride ({listed(strides)})"


def exprs(values: Sequence[ExprLike]) -> tuple[Expr, ...]:
    """Each value as an `Expr`: for writing sizes and strides as plain integers."""
    return tuple([as_expr(v) for v in values])


# -- sizes and strides ------------------------------------------------------------------------------------
def contiguous_strides(sizes: Sequence[Any]) -> tuple[Any, ...]:
    """Row-major strides; a dimension of size 0 counts as 1, as in torch. Sizes may be sympy's, too."""
    strides: list[Any] = []
    step: Any = 1
    for n in reversed(sizes):
        strides.append(step)
        if n != 0:
            step = n * step
    return tuple(reversed(strides))


def stride_order(sizes: Sequence[ExprLike], strides: Sequence[ExprLike]) -> list[int]:
    """The dimensions from innermost to outermost, by increasing stride; ties keep the later one inside."""
    if all(isinstance(step, int) for step in strides):
        return sorted(range(len(sizes)), key=lambda dim: (strides[dim], -dim))
    steps = exprs(strides)

    def key(dim: int) -> tuple[int, int, int]:
        value = steps[dim].constant
        if value is None:
            low = steps[dim].bounds()[0]
            return max(low or 0, 1), len(steps[dim].terms[0][0]), -dim
        return value, 0, -dim

    dims = sorted(range(len(sizes)), key=key)
    # Symbolic strides: a pass of adjacent swaps where the order is provable otherwise.
    for a in range(len(dims) - 1):
        if known_nonnegative(steps[dims[a]] - steps[dims[a + 1]] - 1):
            dims[a], dims[a + 1] = dims[a + 1], dims[a]
    return dims


def is_dense(sizes: Sequence[ExprLike], strides: Sequence[ExprLike]) -> bool:
    """Whether the elements lie without gaps and without overlap, in some order of the dimensions."""
    running: ExprLike = 1
    for dim in stride_order(sizes, strides):
        if sizes[dim] == 1:
            continue
        if strides[dim] != running:
            return False
        running = running * sizes[dim]
    return True


def same_strides(sizes: Sequence[object], have: Sequence[object], want: Sequence[object]) -> bool:
    """Whether strides agree wherever they count: not in dimensions of size 1, and nowhere in a tensor
    without elements."""
    pairs = zip(sizes, have, want, strict=True)
    return have == want or 0 in sizes or all(n == 1 or a == b for n, a, b in pairs)


@overload
def span(sizes: Sequence[int], strides: Sequence[int]) -> int: ...
@overload
def span(sizes: Sequence[ExprLike], strides: Sequence[ExprLike]) -> ExprLike: ...
def span(sizes: Sequence[Any], strides: Sequence[Any]) -> Any:
    """Elements from a tensor's first to its last, both included; 0 where there are none."""
    if 0 in sizes:
        return 0
    return 1 + sum([(n - 1) * step for n, step in zip(sizes, strides, strict=True)])


def overlaps_itself(sizes: Sequence[int], strides: Sequence[int]) -> bool:
    """Whether two elements of a tensor may share a place in memory: False where each step is longer than all
    that the smaller ones span."""
    if 0 in sizes:
        return False
    reach = 0
    for stride, size in sorted((s, n) for n, s in zip(sizes, strides, strict=True) if n > 1):
        if stride <= reach:
            return True
        reach += (size - 1) * stride
    return False


# -- tensors ------------------------------------------------------------------------------------------------
def byte_span(tensor: torch.Tensor) -> int:
    """Bytes from a tensor's first element to the end of its last."""
    return span(tensor.shape, tensor.stride()) * tensor.element_size()


def restrided(tensor: torch.Tensor, strides: Sequence[int]) -> torch.Tensor:
    """A tensor with these strides: itself where those that count are the same, else a copy."""
    if same_strides(tensor.shape, tensor.stride(), strides):
        return tensor
    return torch.empty_strided(tensor.shape, strides, dtype=tensor.dtype, device=tensor.device).copy_(tensor)


# -- the spec -----------------------------------------------------------------------------------------------
class TensorSpec(Node, Generic[N], frozen=True):
    """The type of a tensor's elements, and where they lie in its storage: ``offset`` is that of the first
    one. Numbers are expressions, or integers where nothing is symbolic; None stands for one that does not
    matter."""

    dtype: torch.dtype
    sizes: tuple[N, ...]
    strides: tuple[N, ...]
    offset: Expr = ZERO
    device: str = HOST

    def __str__(self) -> str:
        """``float32[2, s0] stride (s0, 1)``."""
        return shape_text(self.dtype, self.sizes, self.strides)


def tensor_spec(
    dtype: torch.dtype, sizes: Sequence[ExprLike], strides: Sequence[ExprLike] | None = None, **more: Any
) -> TensorSpec[Expr]:
    """A spec of numbers of either kind; row-major unless there are ``strides``."""
    strides = contiguous_strides(sizes) if strides is None else strides
    return TensorSpec(dtype, exprs(sizes), exprs(strides), **more)
