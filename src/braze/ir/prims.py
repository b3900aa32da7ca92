"""Functions that Braze's graph passes put into an FX graph beside ATen's operators.

Each is an ordinary function on real tensors: a graph that holds them can be run by eager operators, and
means the same there as in compiled code. `METAS` gives their results' metadata."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from braze.ops import random as generators

__all__ = ["METAS", "between", "rand", "randint", "randn", "seeds"]


def seeds(count: int) -> Tensor:
    """`count` int64 seeds from torch's default generator, so that `torch.manual_seed` decides them.

    One draw serves a whole graph. It changes the generator's state; the other functions here are pure.
    """
    return torch.randint(-(2**63), 2**63 - 1, [count], dtype=torch.int64)


def rand(seeds: Tensor, index: int, size: Sequence[int]) -> Tensor:
    """Contiguous float32 of shape `size`, uniform in [0, 1), multiples of 2^-24.

    The element at flat position p is Philox of ``(seeds[index], p)``; see `braze.ops.random`.
    """
    return generators.rand(seeds[index], _positions(size)).view(list(size))


def randn(seeds: Tensor, index: int, size: Sequence[int]) -> Tensor:
    """Contiguous float32 of shape `size`, normal with mean 0 and deviation 1; drawn like `rand`."""
    return generators.randn(seeds[index], _positions(size)).view(list(size))


def randint(seeds: Tensor, index: int, low: int, high: int, size: Sequence[int]) -> Tensor:
    """Contiguous int64 of shape `size`, uniform in [low, high); drawn like `rand`. Requires low < high."""
    bounds = torch.tensor([low, high])
    return generators.randint64(seeds[index], _positions(size), bounds[0], bounds[1]).view(list(size))


def between(x: Tensor, low: float, high: float, text: str) -> Tensor:
    """`x`, of a floating type. Raises RuntimeError(`text`) unless every element lies in [low, high]."""
    if not bool(((x >= low) & (x <= high)).all()):
        raise RuntimeError(text)
    return x


def _positions(size: Sequence[int]) -> Tensor:
    return torch.arange(math.prod(size), dtype=torch.int64)


def _seeds_meta(count: int) -> Tensor:
    return torch.empty([count], dtype=torch.int64)


def _float_meta(seeds: Tensor, index: int, size: Sequence[Any]) -> Tensor:
    return torch.empty(list(size), dtype=torch.float32)


def _int_meta(seeds: Tensor, index: int, low: int, high: int, size: Sequence[Any]) -> Tensor:
    return torch.empty(list(size), dtype=torch.int64)


def _same_meta(x: Tensor, low: float, high: float, text: str) -> Tensor:
    return torch.empty_like(x)


METAS: Mapping[Callable[..., Any], Callable[..., Tensor]] = {
    seeds: _seeds_meta,
    rand: _float_meta,
    randn: _float_meta,
    randint: _int_meta,
    between: _same_meta,
}
"""For each function one with the same arguments that gives a tensor of the right shape and dtype, to be
called in the trace's fake mode."""
