"""PyTorch's own decompositions of ATen operators into simpler ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch._decomp import core_aten_decompositions

__all__ = ["core_table"]


def core_table() -> dict[Any, Callable[..., Any]]:
    """PyTorch's table for its core operator set."""
    return dict(core_aten_decompositions())
