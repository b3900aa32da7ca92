"""Which ATen operators are taken apart before lowering, and which are kept whole."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from braze._torch import decomps
from braze.config import Config


def decompositions(config: Config) -> Mapping[Any, Callable[..., Any]]:
    """The table for one compile."""
    return decomps.core_table()
