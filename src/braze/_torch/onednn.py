"""oneDNN's operators as PyTorch's CPU builds register them, for their own use.

A file of its own: a part of PyTorch that nothing else here touches.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch

__all__ = ["linear_operator"]


@lru_cache(maxsize=1)
def linear_operator() -> Any | None:
    """``(x, weight, bias, attr, scalars, algorithm) -> x @ weight.t() + bias``: float32 tensors of any
    strides, ``attr`` "none". None where this build of PyTorch, or this CPU, has no oneDNN."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return None
    packet = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
    return getattr(packet, "default", None)
