"""What a compile job carries of PyTorch's global state.

What the compiler (lowering, schedule, codegen, and the shape functions of PyTorch that it calls) reads while
it compiles a graph:

======================  ==========================================  ======================================
state                   read by                                     in a job
======================  ==========================================  ======================================
default dtype           type promotion with Python numbers          carried
deterministic mode      decompositions inside PyTorch's shape       carried
                        functions
Braze's options         everything                                  carried whole, see `config.using`
======================  ==========================================  ======================================

What it does not read: the number of threads (asked for at each call of compiled code), gradient, inference
and autocast modes (traced into the graph before it gets here), the default device (a worker's is the CPU,
where the compiler's own tables belong), precision of matrix products and the switches of ``torch.backends``
(read by ATen when the graph runs), random number generators. `braze._torch.state` is the only door to what is
carried, and raises in a worker to whom it was not sent.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal, cast, get_args

import msgspec
import torch

from braze._torch.state import as_sent
from braze.dtypes import dtype_named, torch_name
from braze.errors import InternalError, UnserializableError
from braze.runtime.ending import fork_lock

__all__ = ["TorchState", "apply", "capture"]

FloatName = Literal["float16", "bfloat16", "float32", "float64"]
DeterministicMode = Literal["default", "warn", "error"]

_MODES: tuple[DeterministicMode, ...] = ("default", "warn", "error")


class TorchState(msgspec.Struct, frozen=True):
    """A value of each switch. ``deterministic``: as `torch.set_deterministic_debug_mode` spells it."""

    default_dtype: FloatName
    deterministic: DeterministicMode


def capture() -> TorchState:
    """The state that holds now. Raises `UnserializableError` for a default dtype that is none of the four."""
    default = torch.get_default_dtype()
    name = torch_name(default)
    if name not in get_args(FloatName):
        raise UnserializableError(f"the default dtype {default} has no place in a compile job")
    return TorchState(cast(FloatName, name), _MODES[torch.get_deterministic_debug_mode()])


def _set(state: TorchState) -> None:
    torch.set_default_dtype(dtype_named(state.default_dtype))
    torch.set_deterministic_debug_mode(state.deterministic)


_mine: ContextVar[TorchState | None] = ContextVar("braze_applied_state", default=None)
_turn = threading.Condition(fork_lock())
_inside = 0
_before: TorchState | None = None


def _enter(state: TorchState) -> None:
    global _inside, _before
    with _turn:
        _turn.wait_for(lambda: _inside == 0 or capture() == state)
        if _inside == 0:
            _before = capture()
            if _before != state:
                _set(state)
        _inside += 1


def _leave() -> None:
    global _inside, _before
    with _turn:
        _inside -= 1
        if _inside == 0:
            if _before is not None and _before != capture():
                _set(_before)
            _before = None
            _turn.notify_all()


def _after_fork() -> None:
    """Blocks of other threads are the parent's."""
    while _inside > (_mine.get() is not None):
        _leave()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@contextmanager
def apply(state: TorchState) -> Iterator[None]:
    """Inside this block PyTorch's switches are as in `state`.

    They belong to the process, not to a thread: jobs that want them alike run side by side, and a job that
    wants others waits for its turn, so that an executor of threads gives right results too. Nothing is
    changed where they are as wanted already. Raises `InternalError` for another state inside a block of this
    thread.
    """
    mine = _mine.get()
    if mine is not None and mine != state:
        raise InternalError(f"{state} inside a block of {mine}")
    _enter(state)
    token = _mine.set(state)
    try:
        with as_sent():
            yield
    finally:
        _mine.reset(token)
        _leave()
