"""Every call of an ATen operator, as it reaches a kernel.

A file of its own: a part of PyTorch that nothing else here touches.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["each_operator", "is_zero_without_memory"]

Call = Callable[[Any, tuple[Any, ...], Mapping[str, Any]], Any]


def each_operator(call: Call) -> AbstractContextManager[Any]:
    """Within it, ``call(operator, args, kwargs)`` runs in place of each operator, of backwards too; what it
    runs itself is left alone."""
    return _EachOperator(call)


class _EachOperator(TorchDispatchMode):
    def __init__(self, call: Call) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._call = call

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return self._call(func, args, kwargs or {})


def is_zero_without_memory(x: torch.Tensor) -> bool:
    """Whether a tensor is one that autograd makes for a gradient of zeros, and that no kernel can read."""
    return x._is_zerotensor()
