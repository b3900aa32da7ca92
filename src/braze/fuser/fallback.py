"""Running a function by eager operators, exactly as it is: what happens to whatever cannot be fused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from braze import config as configuration
from braze.errors import FallbackError
from braze.fuser.accounts import counts

__all__ = ["fall_back"]


def fall_back(function: Callable[[], Any], name: str, reason: str, *, quiet: bool = False) -> Any:
    """The result of ``function``, which is called ``name`` and is not fused for ``reason``. Said once, and
    counted; ``quiet``: it is only counted, for that is how it should be.

    Raises `FallbackError` in strict mode, and what ``function`` raises."""
    if configuration.current().strict and not quiet:
        raise FallbackError(f"{name} would run as eager PyTorch: {reason}")
    result = function()  # an error of its own is no fallback
    counts.fell_back(name, reason, quiet=quiet)
    return result
