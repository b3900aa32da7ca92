"""What the decompositions share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor

__all__ = [
    "HALF_TYPES",
    "Decomposition",
    "Table",
    "computation",
    "rounded",
]

Decomposition: TypeAlias = Callable[..., Any]
Table: TypeAlias = dict[Any, Decomposition]

HALF_TYPES = (torch.float16, torch.bfloat16)


def rounded(x: Tensor, dtype: torch.dtype) -> Tensor:
    """`x`, of the computation dtype, rounded to `dtype`: where eager stores a step of a composite."""
    return computation(x.to(dtype))


def computation(x: Tensor) -> Tensor:
    """`x` in its computation dtype."""
    return x.to(torch.float32) if x.dtype in HALF_TYPES else x
