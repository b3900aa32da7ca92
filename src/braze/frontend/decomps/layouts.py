"""How results lie in memory, and of which type they are: rules for the results of an operator, and what holds
a decomposition to them.

A decomposition says what the values are. Where its arithmetic alone would lay them out otherwise than the
operator does, its entry in the table names rules. Later nodes rely on strides: a view is refused, or shows
other elements, where they are not eager's."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from braze._torch.shapes import same_layout, same_size, true_or_guard
from braze.frontend.decomps.common import Decomposition

__all__ = [
    "Rule",
    "both",
    "contiguous",
    "elementwise",
    "format_of",
    "is_row_major",
    "laid_out",
    "of_roll",
    "promoted",
    "promoted_list",
    "same_as",
]

Size: TypeAlias = "int | torch.SymInt"
Sizes: TypeAlias = "Sequence[Size]"
Rule: TypeAlias = Callable[[Sequence[Any], Tensor], Tensor]
"""From an operator's arguments and a result with the right values to that result as it has to be."""

_CHANNELS_LAST = {4: [0, 2, 3, 1], 5: [0, 2, 3, 4, 1]}


def contiguous(args: Sequence[Any], result: Tensor) -> Tensor:
    """Row-major."""
    return _ordered(result, range(result.ndim))


def elementwise(*positions: int) -> Rule:
    """As elementwise operators lay out a result for the arguments at these positions, broadcast: without
    gaps, dimensions in the order in which the first argument that tells two of them apart has them."""

    def rule(args: Sequence[Any], result: Tensor) -> Tensor:
        operands = [args[k] for k in positions if k < len(args) and isinstance(args[k], Tensor)]
        return _ordered(result, _elementwise_order(operands, result.shape))

    return rule


def format_of(position: int) -> Rule:
    """Channels-last where the argument's strides look like it, else row-major."""

    def rule(args: Sequence[Any], result: Tensor) -> Tensor:
        last = _is_channels_last(args[position]) and result.ndim in _CHANNELS_LAST
        return _ordered(result, _CHANNELS_LAST[result.ndim] if last else range(result.ndim))

    return rule


def of_roll(args: Sequence[Any], result: Tensor) -> Tensor:
    """As `roll(x, shifts, dims=[])` joins its pieces: in the format of x; without `dims`, row-major."""
    return (format_of(0) if len(args) > 2 and args[2] else contiguous)(args, result)


def same_as(position: int) -> Rule:
    """With the strides of an argument of the same shape, gaps included."""

    def rule(args: Sequence[Any], result: Tensor) -> Tensor:
        like = args[position]
        if like.dtype is not result.dtype:
            like = torch.empty_strided(like.shape, like.stride(), dtype=result.dtype, device=result.device)
        copied: Tensor = result if same_layout(like, result) else torch.ops.aten.copy.default(like, result)
        return copied

    return rule


def promoted(*positions: int) -> Rule:
    """Of the type that arithmetic on the arguments at these positions is done in; of one: of its type."""

    def rule(args: Sequence[Any], result: Tensor) -> Tensor:
        first, *others = [args[k] for k in positions]
        dtype = torch.result_type(first, others[0]) if others else first.dtype
        return result if result.dtype is dtype else result.to(dtype)

    return rule


def promoted_list(args: Sequence[Any], result: Tensor) -> Tensor:
    """Of the type that arithmetic on a list of tensors, the first argument, is done in: those without
    dimensions count only where they are of a higher category."""
    kinds = [torch.bool, torch.bool]
    for x in args[0]:
        kinds[not x.ndim] = torch.promote_types(kinds[not x.ndim], x.dtype)
    dtype = kinds[0] if _category(kinds[0]) >= _category(kinds[1]) else torch.promote_types(*kinds)
    return result if result.dtype is dtype else result.to(dtype)


def _category(dtype: torch.dtype) -> int:
    return 3 if dtype.is_complex else 2 if dtype.is_floating_point else int(dtype is not torch.bool)


def both(one: Rule, other: Rule) -> Rule:
    """One rule after the other."""
    return lambda args, result: other(args, one(args, result))


def laid_out(function: Decomposition, *rules: Rule | None) -> Decomposition:
    """A decomposition held to `rules`, one for each of its first results (None: as they come). A result that
    lies otherwise is copied, and that copy becomes part of what computes it."""

    @functools.wraps(function)
    def decomposition(*args: Any, **kwargs: Any) -> Any:
        results = function(*args, **kwargs)
        if isinstance(results, Tensor):
            return results if rules[0] is None else rules[0](args, results)
        if not isinstance(results, (tuple, list)):
            return results
        found = list(results)
        for position, rule in enumerate(rules):
            if rule is not None and isinstance(found[position], Tensor):
                found[position] = rule(args, found[position])
        return tuple(found)

    return decomposition


def _ordered(result: Tensor, order: Sequence[int]) -> Tensor:
    """The result with dense strides in an order of its dimensions, outermost first."""
    if result.ndim < 2 or _has_order(result, order):
        return result
    back = sorted(range(len(order)), key=order.__getitem__)
    return result.permute(list(order)).clone(memory_format=torch.contiguous_format).permute(back)


def is_row_major(x: Tensor) -> bool:
    """Whether a tensor is contiguous, as far as can be seen without a guard."""
    return _has_order(x, range(x.ndim))


def _has_order(x: Tensor, order: Sequence[int]) -> bool:
    """Whether the strides are dense ones in this order, as far as can be seen without a guard."""
    running: Size = 1
    for dim in reversed(order):
        if same_size(x.shape[dim], 1):
            continue
        if not same_size(x.stride(dim), running):
            return same_size(x.numel(), 0)
        running = running * x.shape[dim]
    return True


def _is_channels_last(x: Tensor) -> bool:
    """Whether strides grow from channels over columns and rows to images. Where all could be row-major as
    well, they are."""
    if x.ndim not in _CHANNELS_LAST:
        return False
    least: Size = 0
    for dim in reversed(_CHANNELS_LAST[x.ndim]):
        size, stride = x.shape[dim], x.stride(dim)
        if true_or_guard(size == 0) or true_or_guard(stride < least):
            return False
        if dim == 0 and true_or_guard(least == x.stride(1)):
            return False
        least = stride * size if true_or_guard(size > 1) else stride
    return True


def _elementwise_order(operands: Sequence[Tensor], size: Sizes) -> list[int]:
    """Dimensions, outermost first. Each is moved outwards past those that lie inside of it in memory."""
    rank = len(size)
    strides = [_broadcast_strides(x, rank) for x in operands if x.ndim <= rank]
    if all(x.ndim == rank and is_row_major(x) for x in operands):
        return list(range(rank))
    inward = list(reversed(range(rank)))
    for start in range(1, rank):
        at = start
        for inner in reversed(range(start)):
            side = _compared(inward[inner], inward[at], strides, size)
            if side < 0:
                break
            if side > 0:
                inward[inner], inward[at] = inward[at], inward[inner]
                at = inner
    return inward[::-1]


def _broadcast_strides(x: Tensor, rank: int) -> list[Size]:
    strides: list[Size] = [0] * (rank - x.ndim)
    return strides + [0 if same_size(n, 1) else s for n, s in zip(x.shape, x.stride())]


def _compared(inner: int, outer: int, strides: Sequence[Sequence[Size]], size: Sizes) -> int:
    """1 where `inner` lies outside of `outer`, -1 where it does not, 0 where no operand tells."""
    for own in strides:
        a, b = own[inner], own[outer]
        if true_or_guard(a == 0) or true_or_guard(b == 0):
            continue
        if true_or_guard(a < b):
            return -1
        if true_or_guard(a > b) or true_or_guard(size[inner] > size[outer]):
            return 1
    return 0
