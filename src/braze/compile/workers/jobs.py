"""The jobs that compile workers know: a closed table of functions from bytes to bytes.

A message names a job by its key in `JOBS`, and nothing else can be reached by it. `warm` is called once in
each worker, before it says hello. Other executors (`ProcessPoolExecutor`, Dask's) take the same functions;
these are module-level, so that pickle sends them by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from braze.compile.remote_job import compile_request

__all__ = ["JOBS", "echo", "warm"]


def echo(payload: bytes) -> bytes:
    """Give back what came: for measuring, and for seeing that workers work."""
    return payload


def warm() -> None:
    """Load torch, the compiler, and what backends need in this process."""
    import torch  # noqa: PLC0415  the parent imports this module too, for the table alone

    # the lazy seam: a worker is there to have the compiler loaded
    from braze.compile.pipeline import backends  # noqa: PLC0415

    torch.set_num_threads(1)
    for backend in backends():
        backend.warm()


JOBS: Mapping[str, Callable[[bytes], bytes]] = {"compile": compile_request, "echo": echo}
