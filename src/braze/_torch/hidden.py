"""Functions that Dynamo calls and does not trace. Loads nothing of Dynamo until there is one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

__all__ = ["untraced"]


def untraced(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, which Dynamo calls and does not trace, where it is called from a compiled frame."""
    disable: Callable[..., Callable[..., Any]] = torch.compiler.disable
    return disable(function, reason="compiled by Braze")
