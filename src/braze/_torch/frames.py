"""Where a thread is, told from its stack alone.

A file of its own: it is asked while Python ends, when nothing can be loaded any more.
"""

from __future__ import annotations

from types import FrameType

__all__ = ["is_compiling"]

_COMPILING = "torch._dynamo.convert_frame"
"""The module that is on the stack while Dynamo traces, and not while compiled code runs."""


def is_compiling(frame: FrameType | None) -> bool:
    """Whether Dynamo is compiling something in the thread that is at `frame`."""
    while frame is not None:
        if frame.f_globals.get("__name__") == _COMPILING:
            return True
        frame = frame.f_back
    return False
