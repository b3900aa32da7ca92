"""How results lie in memory, and of which type they are: rules for the results of an operator, and what holds
a decomposition to them.

A decomposition says what the values are. Where its arithmetic alone would lay them out otherwise than the
operator does, its entry in the table names rules. Later nodes rely on strides: a view is refused, or shows
other elements, where they are not eager's."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any, TypeAlias

import torch
from torch import Tensor

from braze._torch.shapes import same_layout, same_size, true_or_guard
from braze.frontend.decomps.common import Decomposition
from braze.runtime.spec import contiguous_strides

__all__ = [
    "Rule",
    "both",
    "contiguous",
    "elementwise",
    "format_of",
    "is_row_major",
    "laid_out",
    "laid_out_like",
    "of_index",
    "of_ldexp",
    "of_roll",
    "of_where",
    "preserved",
    "promoted",
    "promoted_list",
    "same_as",
    "whole",
    "whole_unless_plain",
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
    gaps, dimensions in the order in which the first argument that tells two of them apart has them. What is
    of another type than the arithmetic is converted first, to memory without gaps or repetitions."""

    def rule(args: Sequence[Any], result: Tensor) -> Tensor:
        operands = [args[k] for k in positions if k < len(args) and isinstance(args[k], Tensor)]
        dtype = result.dtype
        if dtype is torch.bool:
            dtype = functools.reduce(torch.result_type, operands[1:], operands[0])
        return _ordered(result, _elementwise_order(operands, result.shape, dtype))

    return rule


def of_where(args: Sequence[Any], result: Tensor) -> Tensor:
    """As other elementwise operators, but the condition counts as it lies."""
    condition, *values = args
    strides = [_aligned(condition, condition.stride(), result.shape)]
    strides += [_aligned(x, _strides_as(x, result.dtype), result.shape) for x in values]
    return _ordered(result, _order_by(strides, result.shape))


def preserved(position: int) -> Rule:
    """As `empty_like` lies: without gaps, in the order of the argument's strides, those of dimensions of size
    1 included."""
    return lambda args, result: _ordered(result, _order_by([args[position].stride()], result.shape))


def format_of(position: int) -> Rule:
    """Channels-last where the argument's strides look like it, else row-major."""

    def rule(args: Sequence[Any], result: Tensor) -> Tensor:
        last = _is_channels_last(args[position]) and result.ndim in _CHANNELS_LAST
        return _ordered(result, _CHANNELS_LAST[result.ndim] if last else range(result.ndim))

    return rule


def of_ldexp(args: Sequence[Any], result: Tensor) -> Tensor:
    """As a product of x and a power of two, which is row-major however its exponents lie, where x is of
    integers, or both are of floating point and x of float32. Elsewhere it is written to memory like x's, or,
    where that is too small, laid out as x and the exponents are."""
    x, exponents = args
    if not x.is_floating_point() or (x.dtype is torch.float32 and exponents.is_floating_point()):
        strides = [_strides_as(x, result.dtype), contiguous_strides(exponents.shape)]
    elif x.shape == result.shape:
        return preserved(0)(args, result)
    else:
        strides = [x.stride(), exponents.stride()]
    aligned = [_aligned(y, steps, result.shape) for y, steps in zip(args, strides, strict=True)]
    return _ordered(result, _order_by(aligned, result.shape))


def of_roll(args: Sequence[Any], result: Tensor) -> Tensor:
    """As `roll(x, shifts, dims=[])` joins its pieces: in the format of x; without `dims`, row-major."""
    return (format_of(0) if len(args) > 2 and args[2] else contiguous)(args, result)


def of_index(args: Sequence[Any], result: Tensor) -> Tensor:
    """As ``index(x, indices)`` walks: the whole dimensions of x among each other as they lie in x, those that
    the index tensors make as they lie in these."""
    x, indices = args[0], _indices(args[1])
    if all(_is_plain(one) for one in (x, *indices.values())):
        return contiguous(args, result)
    rank = max(i.ndim for i in indices.values())
    dims = list(indices)
    adjacent = dims == list(range(dims[0], dims[0] + len(dims)))
    lead = dims[0] if adjacent else 0
    kept = [x.stride(d) for d in range(x.ndim) if d not in indices]
    strides: list[list[Size]] = [[*kept[:lead], *[0] * rank, *kept[lead:]]]
    size = result.shape[lead : lead + rank]
    for index in indices.values():
        own = _aligned(index, index.stride(), size)
        strides.append(_among(own, size, lead, result.shape))
    return _ordered(result, _order_by(strides, result.shape))


def _is_plain(x: Tensor) -> bool:
    """Whether a tensor is row-major, and has no dimensions of size 1 among others, which have any strides."""
    return x.ndim < 2 or (is_row_major(x) and not any(same_size(n, 1) for n in x.shape))


def _among(strides: Sequence[Size], size: Sizes, lead: int, whole: Sizes) -> list[Size]:
    """The strides of an index tensor of a size as one of all dimensions of the result, `lead` of them before
    its own. Eager views it with dimensions of size 1 for the others, whose strides count where the result's
    sizes are 1, too."""
    found: list[Size] = [0] * len(whole)
    running = strides[-1] if strides else 1
    for dim in reversed(range(len(whole))):
        inside = lead <= dim < lead + len(size)
        if inside and not same_size(size[dim - lead], 1):
            found[dim] = strides[dim - lead]
            running = found[dim] * size[dim - lead]
        elif same_size(whole[dim], 1):
            found[dim] = running
    return found


def _indices(given: Sequence[Tensor | None]) -> dict[int, Tensor]:
    """The index tensors by the dimension of the source that they index: a mask is one for each of its
    dimensions."""
    found: dict[int, Tensor] = {}
    dim = 0
    for index in given:
        if index is None:
            dim += 1
        elif index.dtype in (torch.bool, torch.uint8):
            found.update(dict.fromkeys(range(dim, dim + index.ndim), index.reshape(-1)))
            dim += index.ndim
        else:
            found[dim] = index
            dim += 1
    return found


def laid_out_like(example: Any, made: Any) -> Any:
    """What a decomposition made, with results that lie as those of ``example`` do. Raises ``TypeError`` where
    they are of another number, type or size."""
    several = isinstance(example, (tuple, list))
    wanted = list(example) if several else [example]
    given = list(made) if isinstance(made, (tuple, list)) else [made]
    if len(wanted) != len(given):
        raise TypeError(f"it returned {len(given)} results, and the operator returns {len(wanted)}")
    found = []
    for one, like in zip(given, wanted, strict=True):
        if not isinstance(one, Tensor):
            raise TypeError(f"it returned a {type(one).__name__}, and not a tensor")
        alike = one.ndim == like.ndim and all(true_or_guard(a == b) for a, b in zip(one.shape, like.shape))
        if one.dtype is not like.dtype or not alike:
            raise TypeError(
                f"it returned {one.dtype} of {list(one.shape)}, and the operator returns"
                f" {like.dtype} of {list(like.shape)}"
            )
        found.append(_ordered(one, _order_by([like.stride()], one.shape)))
    return type(example)(found) if several else found[0]


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


def laid_out(rules: Sequence[Rule | None], args: Sequence[Any], results: Any) -> Any:
    """What a decomposition of `args` gave, held to `rules`, one for each of its first results (None: as they
    come). A result that lies otherwise is copied, and that copy becomes part of what computes it."""
    if not rules:
        return results
    if isinstance(results, Tensor):
        return results if rules[0] is None else rules[0](args, results)
    if not isinstance(results, (tuple, list)):
        return results
    found = list(results)
    for position, rule in enumerate(rules):
        if rule is not None and isinstance(found[position], Tensor):
            found[position] = rule(args, found[position])
    return tuple(found)


_WHOLE: ContextVar[Any] = ContextVar("whole", default=None)


def whole(operator: Any) -> Decomposition:
    """A decomposition that takes nothing apart: the operator's own node, for results that are held to rules
    because PyTorch's fake versions lie otherwise than eager's."""

    def itself(*args: Any, **kwargs: Any) -> Any:
        if _WHOLE.get() is operator:
            return NotImplemented
        token = _WHOLE.set(operator)
        try:
            return operator(*args, **kwargs)
        finally:
            _WHOLE.reset(token)

    return itself


def whole_unless_plain(operator: Any, decomposition: Decomposition | None = None) -> Decomposition:
    """The same, for an elementwise operator whose fake version lies right for row-major operands; where there
    is a decomposition that takes some calls apart, for the others."""
    itself = whole(operator)

    def decompose(*args: Any, **kwargs: Any) -> Any:
        found = NotImplemented if decomposition is None else decomposition(*args, **kwargs)
        if found is NotImplemented and not all(_is_plain(x) for x in args if isinstance(x, Tensor)):
            return itself(*args, **kwargs)
        return found

    return decompose


def _ordered(result: Tensor, order: Sequence[int]) -> Tensor:
    """The result with dense strides in an order of its dimensions, outermost first."""
    if result.ndim < 2 or _has_order(result, order, exactly=True):
        return result
    back = sorted(range(len(order)), key=order.__getitem__)
    return result.permute(list(order)).clone(memory_format=torch.contiguous_format).permute(back)


def is_row_major(x: Tensor) -> bool:
    """Whether a tensor is contiguous, as far as can be seen without a guard."""
    return _has_order(x, range(x.ndim))


def _has_order(x: Tensor, order: Sequence[int], *, exactly: bool = False) -> bool:
    """Whether the strides are dense ones in this order, as far as can be seen without a guard; exactly: those
    of dimensions of size 1 as well, by which convolutions tell memory formats apart."""
    running: Size = 1
    for dim in reversed(order):
        if same_size(x.shape[dim], 1) and not exactly:
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


def _elementwise_order(operands: Sequence[Tensor], size: Sizes, dtype: torch.dtype) -> list[int]:
    """Dimensions, outermost first, of arithmetic in a type. Each is moved outwards past those that lie inside
    of it in memory."""
    rank = len(size)
    if all(_is_plain(x) for x in operands) or all(_has_size(x, size) and is_row_major(x) for x in operands):
        return list(range(rank))
    strides = [_aligned(x, _strides_as(x, dtype), size) for x in operands if x.ndim <= rank]
    return _order_by(strides, size)


def _has_size(x: Tensor, size: Sizes) -> bool:
    return x.ndim == len(size) and all(same_size(n, m) for n, m in zip(x.shape, size))


def _strides_as(x: Tensor, dtype: torch.dtype) -> Sequence[Size]:
    """The strides of x as a tensor of a type: its own, or those of a copy that keeps the order of the
    dimensions as far as they have one."""
    if x.dtype is dtype:
        return x.stride()
    strides: list[Size] = [1] * x.ndim
    running: Size = 1
    for dim in reversed(_order_by([x.stride()], x.shape)):
        strides[dim] = running
        running = running * x.shape[dim]
    return strides


def _order_by(strides: Sequence[Sequence[Size]], size: Sizes) -> list[int]:
    """The same for the operands' strides, 0 where one does not change."""
    rank = len(size)
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


def _aligned(x: Tensor, strides: Sequence[Size], size: Sizes) -> list[Size]:
    """Strides of x, broadcast to a size: 0 where it is repeated."""
    lead = len(size) - x.ndim
    repeated = [same_size(n, 1) and not same_size(m, 1) for n, m in zip(x.shape, size[lead:])]
    return [0] * lead + [0 if r else s for r, s in zip(repeated, strides)]


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
