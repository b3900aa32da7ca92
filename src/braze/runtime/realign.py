"""Segments over tensors that do not begin at a multiple of their element's size.

Machine code relies on such addresses, and looks at them before it does anything (see `plan.RunSegment`):
torch's own tensors have them, and those made by ``torch.frombuffer`` at an odd offset do not. That takes a
call nothing that can be measured, and costs copies where it is needed.

A file of its own: generated code calls it, and nothing of how that is written matters here.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

import torch

from braze.errors import InternalError
from braze.runtime.spec import byte_span

__all__ = ["run_realigned"]

_GREATEST_ITEMSIZE: Final = 16
Entry: TypeAlias = Callable[[bytes, int], int]


def run_realigned(
    entry: Entry, args: bytes, threads: int, tensors: Sequence[tuple[int, torch.Tensor]]
) -> None:
    """Call a segment again that found a misaligned buffer.

    ``args`` are its arguments; ``tensors`` those of its buffers that are tensors, with their positions in
    ``args``. Each that may be misaligned for any dtype is copied, and what the segment wrote there is copied
    back; memory that it did not write to is not written to here either, it may be read-only. Raises
    `InternalError` if that does not help.
    """
    words = list(struct.unpack(f"={len(args) // 8}q", args))
    copies: dict[tuple[int, int], tuple[torch.Tensor, bytes]] = {}
    for position, tensor in tensors:
        begin, nbytes = tensor.data_ptr(), byte_span(tensor)
        if begin % _GREATEST_ITEMSIZE == 0 or not nbytes:
            continue
        if (begin, nbytes) not in copies:
            before = ctypes.string_at(begin, nbytes)
            copy = torch.empty(nbytes, dtype=torch.uint8)  # aligned to 64
            ctypes.memmove(copy.data_ptr(), before, nbytes)
            copies[begin, nbytes] = copy, before
        words[position] += copies[begin, nbytes][0].data_ptr() - begin
    if entry(struct.pack(f"={len(words)}q", *words), threads):
        raise InternalError("machine code finds a buffer misaligned that is not")
    for (begin, nbytes), (copy, before) in copies.items():
        if ctypes.string_at(copy.data_ptr(), nbytes) != before:
            ctypes.memmove(begin, copy.data_ptr(), nbytes)
