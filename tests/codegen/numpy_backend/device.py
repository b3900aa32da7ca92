"""A device that PyTorch has in name only: tensors on ``npy``, whose elements lie in arrays of numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

from tests.codegen.numpy_backend.backend import DEVICE

_setup_privateuseone_for_python_backend(DEVICE)

_library = torch.library.Library("aten", "IMPL")


class OnDevice(torch.Tensor):
    """A contiguous tensor. ``raw``: its bytes, which begin at a multiple of 64."""

    raw: np.ndarray[Any, Any]

    def data_ptr(self) -> int:
        return int(self.raw.ctypes.data)

    @property
    def array(self) -> torch.Tensor:
        """The elements as a tensor of this process."""
        flat = torch.from_numpy(self.raw).view(self.dtype)[: self.numel()]
        return flat.reshape(self.shape)


def _made(size: Any, dtype: torch.dtype) -> torch.Tensor:
    tensor = torch._C._acc.create_empty_tensor(tuple(size), dtype)  # type: ignore[attr-defined]
    tensor.__class__ = OnDevice
    padded = np.full(tensor.numel() * dtype.itemsize + 64, 0xEE, np.uint8)
    begin = -padded.ctypes.data % 64
    tensor.raw = padded[begin : begin + tensor.numel() * dtype.itemsize]
    return tensor


def _empty(size: Any, *, dtype: Any = None, **options: Any) -> torch.Tensor:
    return _made(size, dtype or torch.get_default_dtype())


def _empty_strided(size: Any, stride: Any, *, dtype: Any = None, **options: Any) -> torch.Tensor:
    made = _made(size, dtype or torch.get_default_dtype())
    if made.stride() != tuple(stride):
        raise NotImplementedError("tensors on this device are contiguous")
    return made


_library.impl("empty.memory_format", _empty, "PrivateUse1")
_library.impl("empty_strided", _empty_strided, "PrivateUse1")


def to_device(value: torch.Tensor) -> OnDevice:
    """A copy on the device."""
    made = torch.empty(value.shape, dtype=value.dtype, device=DEVICE)
    assert isinstance(made, OnDevice)
    made.array.copy_(value)
    return made
