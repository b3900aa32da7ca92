"""The switches of PyTorch's that the compiler reads, read in one place.

A worker process is sealed (`braze.config.seal`): there, a switch that did not come with the job raises
instead of taking PyTorch's default.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch

from braze import config
from braze.errors import ConfigError

__all__ = ["as_sent", "default_dtype"]

_sent: ContextVar[bool] = ContextVar("braze_torch_state_sent", default=False)


def default_dtype() -> torch.dtype:
    """``torch.get_default_dtype()``. Raises `ConfigError` in a sealed process outside `as_sent`."""
    if config.sealed() and not _sent.get():
        raise ConfigError(
            "PyTorch's default dtype was read in a worker process, and did not come with the job",
            hint="a job runs in `braze.compile.torch_state.apply(...)` of the state that came with it",
        )
    return torch.get_default_dtype()


@contextmanager
def as_sent() -> Iterator[None]:
    """Inside this block PyTorch's switches are as the job's sender had them: whoever enters has set them."""
    token = _sent.set(True)
    try:
        yield
    finally:
        _sent.reset(token)
