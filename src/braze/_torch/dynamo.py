"""Dynamo: the list of backends and the counters that it keeps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from torch._dynamo.backends import registry
from torch._dynamo.utils import counters

__all__ = ["graph_breaks", "register_backend"]


def register_backend(name: str, function: Callable[..., Any]) -> None:
    """Make `torch.compile(backend=name)` find `function`. Does nothing where the name is taken, as it is when
    the installed package's entry point was found first."""
    if name not in registry.list_backends(exclude_tags=()):
        registry.register_backend(function, name=name)


def graph_breaks() -> Counter[str]:
    """Reason of each graph break since the last `torch._dynamo.reset()`, and how often it happened."""
    return Counter(counters["graph_break"])
