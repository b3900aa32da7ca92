"""PyTorch's own decompositions of ATen operators into simpler ones.

A file of its own: a part of PyTorch that nothing else here touches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import _decomp
from torch._decomp import get_decompositions

__all__ = ["core_table", "multiply_add", "table_of"]


def core_table() -> dict[Any, Callable[..., Any]]:
    """PyTorch's table for its core operator set."""
    # the public one adds what AOTAutograd takes apart by itself, and loads torch.export for that (0.15 s)
    short = getattr(_decomp, "_core_aten_decompositions_post_autograd", None)
    return dict(_decomp.core_aten_decompositions() if short is None else short())


def table_of(operators: Iterable[Any]) -> dict[Any, Callable[..., Any]]:
    """PyTorch's decompositions of these operators, overloads or packets; it may lack some."""
    return dict(get_decompositions(list(operators)))


def multiply_add() -> Any | None:
    """``prims.fma(a, b, c)``, which Dynamo writes for some optimisers since torch 2.12, and defines when it
    first does; None until then."""
    packet = getattr(torch.ops.prims, "fma", None)
    return None if packet is None else packet.default
