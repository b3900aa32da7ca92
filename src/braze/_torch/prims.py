"""PyTorch's primitive operators, `torch.ops.prims`, which exist only once their module is imported."""

from __future__ import annotations

import torch
import torch._prims

__all__ = ["prims"]

prims = torch.ops.prims
