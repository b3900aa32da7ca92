"""Rounding errors put in at random: what a result differs by then says how well it is determined.

A file of its own: how noise is made is a subject apart from how programs are run.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch

from braze._torch.dispatch import each_operator, is_zero_without_memory
from braze._torch.schema import operator_info
from braze.ir.externs import map_leaves

__all__ = ["noise_of"]

_MOVES = frozenset(f"aten.{name}" for name in "clone copy_ _to_copy fill_ zero_ _local_scalar_dense".split())
"""Operators that round nothing; nor do views."""


def noise_of(dtype: torch.dtype, source: random.Random) -> AbstractContextManager[Any]:
    """Within it every ATen operator, those of gradients too, computes for operands that are off by as much as
    rounding to ``dtype`` may put them off, and its result is off by as much again. Steps inside of a
    composite are operators of their own here, so what cancels between them shows."""
    epsilon = torch.finfo(dtype).eps
    generator = torch.Generator().manual_seed(source.getrandbits(62))

    def factors(like: torch.Tensor) -> torch.Tensor:
        drawn = torch.rand(like.shape, generator=generator, dtype=like.dtype)
        return 1 + epsilon * (2 * drawn - 1)

    def off(value: Any) -> Any:
        """A tensor with noise; anything else as it is."""
        rounds = isinstance(value, torch.Tensor) and value.is_floating_point()
        return value * factors(value) if rounds and not is_zero_without_memory(value) else value

    def call(operator: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        info = operator_info(operator)
        if info.is_view or info.name.rpartition(".")[0] in _MOVES:
            return operator(*args, **kwargs)
        if not info.mutates:
            return map_leaves(operator(*map_leaves(args, off), **kwargs), off)
        result = operator(*args, **kwargs)
        if isinstance(result, torch.Tensor) and result.is_floating_point():
            result.mul_(factors(result))
        return result

    return each_operator(call)
