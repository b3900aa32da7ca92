"""What the scheduler asks a backend about its machine."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Limits"]


@dataclass(frozen=True)
class Limits:
    """A backend's answers, for the kernels of one type of device.

    Attributes:
        buffers: how many buffers a kernel may touch at most.
        stores: how many stores it may have at most.
        shared_elements: kernels without a dependency are joined only for a common input of at least this many
            elements; what is smaller stays in a cache from one kernel to the next.
        small_work: up to this many iterations a kernel is not worth more than one worker, so that its rows
            need not be many.
        rows: otherwise a kernel of rows needs at least this many of them, to be shared among workers.
        local_bytes: a row that a kernel keeps for itself is at most this large; a larger one goes through the
            workspace.
        alignment: bytes; what lies in a workspace begins at multiples of it.
    """

    buffers: int
    stores: int
    shared_elements: int
    small_work: int
    rows: int
    local_bytes: int
    alignment: int
