"""Operators on lists of tensors, ``torch._foreach_*``: one call for each place of the lists, which is what
eager PyTorch's CPU kernels make of them, too. Optimizers and the clipping of gradients are written so, and
kernels fuse what is done to a tensor.

A file of its own: each family of operators has one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from braze._torch.schema import bind, operator_info
from braze.frontend.decomps.common import Decomposition, Table

__all__ = ["TABLE"]

aten = torch.ops.aten

_LISTS = frozenset({"List[Tensor]", "List[number]"})


def _vector_norm(x: Tensor, order: Any, dtype: torch.dtype | None) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(x, order, dtype=dtype)
    return norm


def _scaled(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """With a number that the function takes by name."""

    def scaled(x: Tensor, a: Tensor, b: Tensor, value: Any) -> Tensor:
        return function(x, a, b, value=value)

    return scaled


def _bound(of_tensors: Callable[..., Tensor], of_number: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def bound(x: Tensor, other: Any) -> Tensor:
        return (of_tensors if isinstance(other, Tensor) else of_number)(x, other)

    return bound


_SINGLE: dict[str, Callable[..., Tensor]] = {
    "addcdiv": _scaled(torch.addcdiv),
    "addcmul": _scaled(torch.addcmul),
    "copy": aten.copy.default,
    "maximum": _bound(torch.maximum, torch.clamp_min),
    "minimum": _bound(torch.minimum, torch.clamp_max),
    "norm": _vector_norm,
    "zero": torch.zeros_like,
}
"""What is done to one tensor, where it is not the function of this name in ``torch``."""

_NAMES = """
    abs acos add addcdiv addcmul asin atan ceil clamp_max clamp_min clone copy cos cosh div erf erfc exp
    expm1 floor frac lerp lgamma log log10 log1p log2 max maximum minimum mul neg norm pow reciprocal round
    rsqrt sigmoid sign sin sinh sqrt sub tan tanh trunc zero
""".split()


def _each(operator: Any, function: Callable[..., Tensor]) -> Decomposition:
    info = operator_info(operator)
    named = {argument.name for argument in info.arguments if argument.keyword_only}
    lists = [argument.name for argument in info.arguments if argument.type in _LISTS]

    def each(*args: Any, **kwargs: Any) -> list[Tensor]:
        given = bind(operator, args, kwargs)
        found = []
        for place in range(len(given[lists[0]])):
            own = {name: value[place] if name in lists else value for name, value in given.items()}
            keywords = {name: own.pop(name) for name in named}
            found.append(function(*own.values(), **keywords))
        return found

    return each


def _table() -> Table:
    table: Table = {}
    for name in _NAMES:
        packet = getattr(aten, f"_foreach_{name}")
        function = _SINGLE.get(name) or getattr(torch, name)
        for overload in packet.overloads():
            operator = getattr(packet, overload)
            last = operator_info(operator).arguments[-1]
            # numbers in a tensor would have to be read
            of_tensor = last.name == "scalars" and last.type == "Tensor"
            if not operator_info(operator).mutates and not of_tensor:
                table[operator] = _each(operator, function)
    return table


TABLE = _table()
