"""Devices, by the names that PyTorch has for them."""

from __future__ import annotations

from typing import Final

import torch

__all__ = ["HOST", "HOST_DEVICE", "in_host_memory", "is_host"]

HOST: Final = "cpu"
"""The type of the device whose memory this process reads and writes itself."""

HOST_DEVICE: Final = torch.device(HOST)


def in_host_memory(value: torch.Tensor) -> bool:
    """Whether the elements of a tensor lie where this process can read them."""
    return value.device.type == HOST


def is_host(device: torch.device | str) -> bool:
    """The same for a device."""
    return torch.device(device).type == HOST
