"""The tensors that a graph holds: their content hash, and how they travel beside the text."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch

from braze._torch.devices import in_host_memory
from braze._torch.fakes import is_plain
from braze.errors import UnserializableError

__all__ = ["as_stored", "content_hash", "with_strides"]

MAX_GAPS = 4
"""A constant whose strides leave gaps may take at most so many times its own memory."""


def as_stored(tensor: torch.Tensor) -> torch.Tensor:
    """The contiguous CPU tensor of the same content, with which a file of tensors can be made. Raises
    `UnserializableError` for what holds no plain numbers in memory."""
    if not is_plain(tensor) or hasattr(tensor, "fake_mode"):
        raise UnserializableError(f"a constant is a {type(tensor).__name__}, which has no numbers to store")
    if tensor.layout is not torch.strided or tensor.is_quantized or not in_host_memory(tensor):
        raise UnserializableError(f"a constant is a {tensor.layout} tensor on {tensor.device}")
    if not _can_have(tensor.shape, tensor.stride()):
        raise UnserializableError(f"a constant has the strides {tuple(tensor.stride())}")
    return tensor.detach().resolve_conj().resolve_neg().contiguous()


def content_hash(stored: torch.Tensor) -> str:
    """The SHA-256 of a contiguous tensor's bytes, in hexadecimal."""
    flat = stored.reshape(-1).view(torch.uint8) if stored.numel() else torch.empty([0], dtype=torch.uint8)
    return hashlib.sha256(flat.numpy().data).hexdigest()


def with_strides(stored: torch.Tensor, stride: Sequence[int]) -> torch.Tensor:
    """The same content under other strides; 0 in a dimension along which it does not change. Raises
    ValueError for strides that no tensor of a printed graph has."""
    if tuple(stride) == stored.stride():
        return stored
    if len(stride) != stored.ndim or not _can_have(stored.shape, stride):
        raise ValueError(f"a constant of the sizes {tuple(stored.shape)} cannot have these strides")
    source = stored
    for dim, step in enumerate(stride):
        if step == 0 and stored.shape[dim] > 1:
            source = source.narrow(dim, 0, 1)
    result = torch.empty_strided(source.shape, tuple(stride), dtype=stored.dtype).copy_(source)
    return result.expand(stored.shape)


def _can_have(size: Sequence[int], stride: Sequence[int]) -> bool:
    """Whether elements lie apart (but for expanded dimensions), and not too far apart."""
    numel, reach = 1, 1
    for step, n in sorted(zip(stride, size, strict=True)):
        if step < 0:
            return False
        if step and n > 1:
            if step < reach:
                return False
            reach += step * (n - 1)
            numel *= n
    return reach <= MAX_GAPS * numel or 0 in size
