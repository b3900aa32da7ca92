"""Workspaces: blocks of memory that are kept between calls.

A fresh block of 32 MiB and more is mapped by the operating system at each allocation, and its page faults
cost as much as the kernels that use it. So blocks go back to a pool, from which the next call takes the one
that was used last. A block belongs to one call at a time: calls in other threads and calls inside a call get
others.
"""

from __future__ import annotations

from typing import Any

import torch

from braze._torch.native import empty_strided_here, reinterpret_tensor

__all__ = ["Block", "WorkspacePool", "on_device", "release", "workspaces"]

_KEPT_BYTES = 1 << 30
_ROUND = 1 << 16


class Block:
    """Memory of ``nbytes`` bytes at ``address``, aligned to 64.

    ``views`` keeps tensors that were made of it, under keys of their makers' choosing.
    """

    __slots__ = ("_bases", "address", "nbytes", "views")

    def __init__(self, nbytes: int, device: str | None = None) -> None:
        with torch.inference_mode(False):  # tensors of a kept block are used in every mode
            if device is None:
                data = empty_strided_here((nbytes,), (1,), torch.uint8)
            else:
                data = torch.empty((nbytes,), dtype=torch.uint8, device=device)
        self.nbytes = nbytes
        self.address = data.data_ptr()
        self.views: dict[Any, Any] = {}
        self._bases = {torch.uint8: data}

    def tensor(
        self, offset: int, dtype: torch.dtype, sizes: tuple[int, ...], strides: tuple[int, ...]
    ) -> torch.Tensor:
        """A tensor at ``offset`` bytes, a multiple of the dtype's size; strides in elements."""
        base = self._bases.get(dtype)
        if base is None:
            with torch.inference_mode(False):
                base = self._bases[dtype] = self._bases[torch.uint8].view(dtype)
        return reinterpret_tensor(base, sizes, strides, offset // dtype.itemsize)


def on_device(nbytes: int, device: str) -> Block:
    """A block on a device whose own allocator keeps what is freed."""
    return Block(max(nbytes, 1), device)


class WorkspacePool:
    """Blocks that wait for their next call, the last used on top; at most about ``limit`` bytes of them.

    The list is only touched by its own atomic methods, so the common case takes no lock.
    """

    def __init__(self, limit: int = _KEPT_BYTES) -> None:
        self.limit = limit
        self._blocks: list[Block] = []

    def take(self, nbytes: int) -> Block:
        """A block of at least ``nbytes``, for the caller alone until `give`. What is not given back is freed
        with its last reference."""
        try:
            block = self._blocks.pop()
        except IndexError:
            return self._new(nbytes)
        return block if block.nbytes >= nbytes else self._search(block, nbytes)

    def _search(self, small: Block, nbytes: int) -> Block:
        """The uppermost block that is large enough, below one that is not; a new one takes that one's
        place."""
        others: list[Block] = []
        try:
            while (block := self._blocks.pop()).nbytes < nbytes:
                others.append(block)
        except IndexError:
            self._blocks.extend(reversed(others))
            return self._new(nbytes)
        self._blocks.extend([*reversed(others), small])
        return block

    @staticmethod
    def _new(nbytes: int) -> Block:
        return Block(-(-max(nbytes, 1) // _ROUND) * _ROUND)

    def give(self, block: Block) -> None:
        """Back for the next call; it is freed instead where the pool would hold more than its limit."""
        if block.nbytes + (self.nbytes if self._blocks else 0) <= self.limit:
            self._blocks.append(block)

    def forget_views(self, key: object) -> None:
        """Drop what is kept under ``key`` in waiting blocks."""
        for block in self._blocks.copy():
            block.views.pop(key, None)

    @property
    def nbytes(self) -> int:
        """Bytes that wait."""
        return sum([block.nbytes for block in self._blocks.copy()])

    def release(self) -> int:
        """Free every block that waits; how many bytes that were."""
        blocks, self._blocks = self._blocks, []
        return sum(block.nbytes for block in blocks)


workspaces = WorkspacePool()
"""The process's pool."""


def release() -> int:
    """Give the memory that waits in `workspaces` back to the system; how many bytes that were."""
    return workspaces.release()
