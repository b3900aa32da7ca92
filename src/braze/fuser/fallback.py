"""What is fused and what runs as eager PyTorch: devices, tensors, reasons, and the counts of it all."""

from __future__ import annotations

import threading
import weakref
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import torch

from braze import config as configuration
from braze import notices
from braze._torch.devices import HOST
from braze.errors import FallbackError
from braze.ops.dtypes import is_supported
from braze.runtime.engines import device_types, engine, kind_for

__all__ = [
    "EMPTY",
    "FuserStats",
    "can_fuse_on",
    "count",
    "disable",
    "enable",
    "fall_back",
    "is_enabled",
    "on_change",
    "stats",
    "unfusable",
]


EMPTY: Final = "a tensor has no elements"
"""Why a function that looks at shapes is run as it is: there is little to compute, and less to launch."""


# -- counts -------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class FuserStats:
    """Counts since the process began.

    Attributes:
        functions: functions and graphs that were registered.
        traces: how often one was traced, for a kind of arguments that was new.
        compiled: kernels that were made by the compiler. ``loaded``: kernels that the cache had.
        bound: argument shapes for which a launch was prepared.
        fallbacks: for each reason how many calls ran by eager operators.
        empty: calls whose results have no elements, so that nothing was launched.
    """

    functions: int = 0
    traces: int = 0
    compiled: int = 0
    loaded: int = 0
    bound: int = 0
    empty: int = 0
    fallbacks: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        rows = [
            ("functions", self.functions, "registered"),
            ("traces", self.traces, "kinds of arguments that had to be traced"),
            ("compiled", self.compiled, "kernels made by the compiler"),
            ("loaded", self.loaded, "kernels found in the cache"),
            ("bound", self.bound, "argument shapes prepared for"),
            ("empty", self.empty, "calls without an element to compute"),
            ("fallbacks", sum(self.fallbacks.values()), "calls that ran by eager operators"),
        ]
        lines = [f"{name:<10} {number:>8}  {what}" for name, number, what in rows]
        reasons = sorted(self.fallbacks.items(), key=lambda item: -item[1])
        lines += [f"{'':<10} {number:>8}    {reason}" for reason, number in reasons]
        return "\n".join(["fuser", *lines])


_lock = threading.Lock()
_counts: Counter[str] = Counter()
_fallbacks: Counter[str] = Counter()


def count(name: str, number: int = 1) -> None:
    """Count something that `FuserStats` names."""
    with _lock:
        _counts[name] += number


def stats() -> FuserStats:
    """What the fuser has done since the process began; prints as a table."""
    with _lock:
        return FuserStats(**_counts, fallbacks=dict(_fallbacks))


def fall_back(function: Callable[[], Any], name: str, reason: str, *, quiet: bool = False) -> Any:
    """The result of ``function``, which is called ``name`` and runs exactly as it is, for it is not fused for
    ``reason``. Said once, and counted; ``quiet``: it is only counted, for that is how it should be.

    Raises `FallbackError` in strict mode, and what ``function`` raises."""
    if configuration.current().strict and not quiet:
        raise FallbackError(f"{name} would run as eager PyTorch: {reason}")
    result = function()  # an error of its own is no fallback
    with _lock:
        _fallbacks[reason] += 1
    if not quiet:
        notices.say(f"{name} runs as eager PyTorch: {reason}", topic=(name, reason), everywhere=True)
    return result


# -- devices ------------------------------------------------------------------------------------------------
_enabled: dict[str, bool] = {}
_listeners: weakref.WeakSet[Any] = weakref.WeakSet()


def on_change(listener: Any) -> None:
    """Have ``listener.forget()`` called whenever a device is enabled or disabled, as long as it lives."""
    _listeners.add(listener)


def _set(kind: str, enabled: bool) -> None:
    _enabled[kind] = enabled
    for one in list(_listeners):
        one.forget()


def _fuses(device: str) -> bool:
    """Whether there is a backend for this type of device that makes fused kernels."""
    kind = kind_for(device)
    return kind is not None and engine(kind).fuses


def enable(device: str | torch.device = HOST) -> None:
    """Fuse on this type of device (it is the default). Raises ``ValueError`` where Braze has no code
    generator for it."""
    kind = torch.device(device).type
    if not _fuses(kind):
        kinds = ", ".join(filter(_fuses, device_types()))
        raise ValueError(f"Braze makes no fused kernels for {kind}; it does for {kinds}")
    _set(kind, True)


def disable(device: str | torch.device = HOST) -> None:
    """Run fused functions by eager operators on this type of device, until `enable`."""
    _set(torch.device(device).type, False)


def is_enabled(device: str | torch.device = HOST) -> bool:
    """Whether functions are fused on this type of device: there is a generator, and it is not disabled."""
    kind = torch.device(device).type
    return _enabled.get(kind, True) and _fuses(kind)


def can_fuse_on(device: str | torch.device) -> bool:
    """Whether Braze makes fused kernels for this type of device, and is not told to leave it alone."""
    return is_enabled(device)


def unfusable(value: torch.Tensor) -> str | None:
    """Why a tensor cannot be given to a fused kernel; None where it can."""
    if type(value) not in (torch.Tensor, torch.nn.Parameter):
        return f"a {type(value).__name__} is not a plain tensor"
    if value.is_nested:
        return "nested tensors are not fused"
    if value.layout is not torch.strided:
        return f"tensors of layout {value.layout} are not fused"
    if value.is_quantized:
        return "quantized tensors are not fused"
    if not is_supported(value.dtype):
        return f"tensors of {value.dtype} are not fused"
    kind = value.device.type
    if not _fuses(kind):
        return f"tensors on {kind} are not fused"
    if not is_enabled(kind):
        return f"the fuser is disabled on {kind}"
    if value.is_neg() or value.is_conj():
        return "tensors that are negated or conjugated lazily are not fused"
    return None
