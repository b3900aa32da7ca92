"""Tensors that lie right beside memory which must not be touched: whatever reads or writes outside of them,
by a single byte, ends the process. So it is for child processes: see `passes_in_child`."""

from __future__ import annotations

import ctypes
import mmap
import os
import subprocess
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).parents[1]
PLACES = ("end", "begin")
"""Where a guarded tensor lies: its last byte before, or its first one after, what is forbidden."""

_libc = ctypes.CDLL(None, use_errno=True)
_NOTHING = 0


def _forbidden(address: int, size: int) -> None:
    if _libc.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(size), _NOTHING):
        raise OSError(ctypes.get_errno(), "mprotect")


def guarded(tensor: torch.Tensor, place: str = "end") -> torch.Tensor:
    """A copy of a tensor, with its strides, whose memory ends at (``end``) or begins after (``begin``) a page
    that nobody may touch. A tensor without elements has no memory, and is returned as it is."""
    if not tensor.numel():
        return tensor
    reach = 1 + sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride(), strict=True))
    nbytes = reach * tensor.itemsize
    page = mmap.PAGESIZE
    room = -(-nbytes // page) * page
    memory = mmap.mmap(-1, room + 2 * page)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    _forbidden(start, page)
    _forbidden(start + page + room, page)
    offset = page + room - nbytes if place == "end" else page
    flat = torch.frombuffer(memory, dtype=tensor.dtype, count=reach, offset=offset)
    flat.copy_(tensor.detach().as_strided((reach,), (1,)))
    return flat.as_strided(tensor.shape, tensor.stride(), flat.storage_offset())


def passes_in_child(module: str, *arguments: str, seconds: float = 300) -> str:
    """Run ``python -m module`` with arguments, and give back what it printed. Fails where it ends with an
    error, or by a signal: then something touched forbidden memory."""
    command = [sys.executable, "-X", "faulthandler", "-m", module, *arguments]
    environment = {**os.environ, "BRAZE_CACHE": "0", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=seconds, check=False
    )
    tail = f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    assert done.returncode >= 0, f"{module} ended by signal {-done.returncode}:\n{tail}"
    assert done.returncode == 0, f"{module} failed:\n{tail}"
    return done.stdout
