"""PyTorch's own decompositions of ATen operators into simpler ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch._decomp import core_aten_decompositions, get_decompositions

__all__ = ["core_table", "table_of"]


def core_table() -> dict[Any, Callable[..., Any]]:
    """PyTorch's table for its core operator set."""
    return dict(core_aten_decompositions())


def table_of(operators: Iterable[Any]) -> dict[Any, Callable[..., Any]]:
    """PyTorch's decompositions of these operators, overloads or packets; those it has none for are left out."""
    return dict(get_decompositions(list(operators)))
