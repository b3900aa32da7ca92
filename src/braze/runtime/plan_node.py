"""What the parts of a launch plan have in common."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from msgspec import Struct

from braze.dtypes import torch_name

__all__ = ["Node", "listed", "shape_text"]


class Node(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A part of a plan: immutable, and stored without what is as always."""


def listed(values: Sequence[object]) -> str:
    """Values as plans print them; None stands for what does not matter."""
    return ", ".join("_" if v is None else str(v) for v in values)


def shape_text(dtype: torch.dtype, sizes: Sequence[object], strides: Sequence[object]) -> str:
    """``float32[2, s0] stride (s0, 1)``."""
    return f"{torch_name(dtype)}[{listed(sizes)}] stride ({listed(strides)})"
