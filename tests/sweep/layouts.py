"""The ways in which an operator's arguments may lie in memory, and other things that they may be."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch

from tests.numerics import map_tensors
from tests.sweep.calls import Call, fresh

Change = Callable[[torch.Tensor], "torch.Tensor | None"]


def permuted(x: torch.Tensor) -> torch.Tensor | None:
    """The first dimension innermost."""
    if x.ndim < 2:
        return None
    order = tuple(reversed(range(x.ndim)))
    return x.permute(order).contiguous().permute(order)


def channels_last(x: torch.Tensor) -> torch.Tensor | None:
    """Images with their channels innermost."""
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    return x.contiguous(memory_format=formats[x.ndim]) if x.ndim in formats else None


def sliced(x: torch.Tensor) -> torch.Tensor | None:
    """Part of something larger, that begins somewhere in it."""
    if x.ndim == 0:
        return torch.cat([x.new_zeros(2), x.reshape(1)])[2]
    whole = x.new_zeros((*x.shape[:-1], x.shape[-1] + 3))
    part = whole[..., 2 : 2 + x.shape[-1]]
    return part.copy_(x)


def gaps(x: torch.Tensor) -> torch.Tensor | None:
    """Every second column of something twice as wide."""
    if x.ndim == 0:
        return None
    return x.new_zeros((*x.shape[:-1], 2 * x.shape[-1]))[..., ::2].copy_(x)


def expanded(x: torch.Tensor) -> torch.Tensor | None:
    """One row, repeated without being stored again. Not of indices: many belong to each other."""
    if x.ndim == 0 or x.shape[0] < 2 or not x.is_floating_point():
        return None
    return fresh(x[:1].contiguous()).expand(x.shape)


def transposed_last(x: torch.Tensor) -> torch.Tensor | None:
    """The last two dimensions exchanged in memory."""
    return x.transpose(-1, -2).contiguous().transpose(-1, -2) if x.ndim >= 3 else None


def special(x: torch.Tensor) -> torch.Tensor | None:
    """Zeros of either sign, infinities, NaN and steps among the values."""
    if not x.is_floating_point() or x.ndim == 0:
        return None
    values = (0.0, -0.0, 1.0, -1.0, math.inf, -math.inf, math.nan, 0.5, 3.0, -3.0)
    taken = list(itertools.islice(itertools.cycle(values), x.numel()))
    return torch.tensor(taken, dtype=x.dtype).reshape(x.shape)


def zeros(x: torch.Tensor) -> torch.Tensor | None:
    """Zeros of either sign among the values."""
    if not x.is_floating_point():
        return None
    result = fresh(x.contiguous())
    flat = result.view(-1)
    flat[::4], flat[1::4] = 0.0, -0.0
    return result


LAYOUTS: dict[str, Change] = {
    "permuted": permuted,
    "channels_last": channels_last,
    "transposed": transposed_last,
    "sliced": sliced,
    "gaps": gaps,
    "expanded": expanded,
}
VALUES: dict[str, Change] = {"zeros": zeros, "special": special}


def variants(call: Call, checked: bool = True) -> Iterator[tuple[str, Call]]:
    """The call itself and others like it, by name, no two of the same signature but for `VALUES`.

    ``checked``: whether the operator looks at its arguments before it reads memory. If not, only those come
    that it can be given without risk."""
    yield "contiguous", call
    seen = {call.signature}
    for name, change in LAYOUTS.items():
        if change is expanded and not checked:
            continue
        for whose in ("all", "first", "others"):
            other = _changed(call, change, whose)
            if other is not None and other.signature not in seen:
                seen.add(other.signature)
                yield f"{name} {whose}", other
    others = (
        ("0-d", _as_scalar),
        ("wider", _wider),
        ("empty", _empty),
        ("one row", _one_row),
        ("one column", _one_column),
    )
    for name, make in others if checked else ():
        other = make(call)
        if other is not None and other.signature not in seen:
            seen.add(other.signature)
            yield name, other
    for name, change in VALUES.items():
        other = _changed(call, change, "all")
        if other is not None:
            yield name, other


def _changed(call: Call, change: Change, whose: str) -> Call | None:
    position = itertools.count()
    count = 0

    def convert(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal count
        first = next(position) == 0
        if (whose == "first" and not first) or (whose == "others" and first):
            return tensor
        other = change(tensor)
        count += other is not None
        return tensor if other is None else other

    changed = Call(map_tensors(call.args, convert), map_tensors(call.kwargs, convert))
    return changed if count else None


def _second(call: Call, change: Change) -> Call | None:
    """The call with its second tensor (the first, if there is but one) changed."""
    last = min(1, len(call.tensors) - 1)
    position = itertools.count()
    done = False

    def convert(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal done
        if next(position) != last:
            return tensor
        other = change(tensor)
        done = done or other is not None
        return tensor if other is None else other

    changed = Call(map_tensors(call.args, convert), map_tensors(call.kwargs, convert))
    return changed if done else None


def _as_scalar(call: Call) -> Call | None:
    """A number in a tensor without dimensions, of a wider type, beside tensors."""

    def change(x: torch.Tensor) -> torch.Tensor | None:
        if x.ndim == 0 or x.numel() == 0:
            return None
        wide = torch.float64 if x.is_floating_point() else x.dtype
        return x.reshape(-1)[0].to(wide).clone()

    return _second(call, change)


def _wider(call: Call) -> Call | None:
    """Two types of one category."""
    return _second(call, lambda x: x.to(torch.float64) if x.is_floating_point() else None)


def _empty(call: Call) -> Call | None:
    """Nothing along the first dimension of what is as long as the first tensor is."""
    if not call.tensors or call.tensors[0].ndim == 0:
        return None
    length = call.tensors[0].shape[0]

    def convert(x: torch.Tensor) -> torch.Tensor:
        return fresh(x[:0]) if x.ndim and x.shape[0] == length else x

    return Call(map_tensors(call.args, convert), map_tensors(call.kwargs, convert))


def _one_row(call: Call) -> Call | None:
    """One element along the first dimension of what is as long as the first tensor is; its stride is that of
    something longer."""
    return _cut(call, 0)


def _one_column(call: Call) -> Call | None:
    """The same along the last dimension."""
    return _cut(call, -1)


def _cut(call: Call, dim: int) -> Call | None:
    if not call.tensors or call.tensors[0].ndim == 0 or call.tensors[0].shape[dim] < 2:
        return None
    length = call.tensors[0].shape[dim]

    def convert(x: torch.Tensor) -> torch.Tensor:
        return x.narrow(dim, 0, 1) if x.ndim and x.shape[dim] == length else x

    return Call(map_tensors(call.args, convert), map_tensors(call.kwargs, convert))


def describe(call: Call) -> str:
    """The arguments in one line."""

    def shown(x: torch.Tensor) -> Any:
        strides = "" if x.is_contiguous() else f" strides {x.stride()}"
        return f"{str(x.dtype).removeprefix('torch.')}{list(x.shape)}{strides}"

    args, kwargs = map_tensors(call.args, shown), map_tensors(call.kwargs, shown)
    return ", ".join([*map(str, args), *(f"{k}={v}" for k, v in kwargs.items())])
