"""On which devices functions are fused, and which tensors can be given to a fused kernel."""

from __future__ import annotations

import weakref
from typing import Any, Protocol

import torch

from braze._torch.devices import HOST
from braze.ops.dtypes import is_supported
from braze.runtime.engines import device_types, engine, kind_for

__all__ = ["Forgetful", "can_fuse_on", "disable", "enable", "is_enabled", "remember_to_tell", "unfusable"]


class Forgetful(Protocol):
    """Something that has prepared itself for a device."""

    def forget(self) -> None:
        """What was prepared may not be used any more."""
        ...


_enabled: dict[str, bool] = {}
_told: weakref.WeakSet[Forgetful] = weakref.WeakSet()


def remember_to_tell(one: Forgetful) -> None:
    """Have ``one`` forget what it has prepared whenever a device is enabled or disabled."""
    _told.add(one)


def _tell() -> None:
    for one in list(_told):
        one.forget()


def can_fuse_on(device: str | torch.device) -> bool:
    """Whether Braze makes fused kernels for this type of device, and is not told to leave it alone."""
    return is_enabled(device)


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
    _enabled[kind] = True
    _tell()


def disable(device: str | torch.device = HOST) -> None:
    """Run fused functions by eager operators on this type of device, until `enable`."""
    _enabled[torch.device(device).type] = False
    _tell()


def is_enabled(device: str | torch.device = HOST) -> bool:
    """Whether functions are fused on this type of device: there is a generator, and it is not disabled."""
    kind = torch.device(device).type
    return _enabled.get(kind, True) and _fuses(kind)


def unfusable(value: Any) -> str | None:
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
