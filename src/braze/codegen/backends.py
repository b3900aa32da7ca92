"""The backends that there are, by kind, and putting together what they make of one graph.

Filled when the modules of backends are imported, and then only read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from braze._torch.devices import HOST
from braze.codegen.backend import Backend, Call, Generated, Job, KernelFailure, KernelReport
from braze.codegen.llvm.backend import CPU_BACKEND
from braze.config import Config
from braze.errors import CodegenError
from braze.runtime import engines

if TYPE_CHECKING:
    from braze.runtime.plan import ErrorEntry
    from braze.schedule.limits import Limits
    from braze.schedule.schedule import Schedule, Segment

__all__ = ["Code", "backend", "backend_for", "backends", "generate", "limits_under", "register", "registered"]

_backends: dict[str, Backend] = {CPU_BACKEND.kind: CPU_BACKEND}


def register(backend: Backend, *, module: str) -> None:
    """Make a backend and its engine known: what ``module`` does once, when it is imported, as compile workers
    do too. Raises ``InternalError`` where its kind, or one of its devices, has a backend already."""
    engines.add(backend.engine, module)
    _backends[backend.kind] = backend


@contextmanager
def registered(backend: Backend, *, module: str) -> Iterator[None]:
    """A backend that is known inside this block, for every thread: for tests."""
    register(backend, module=module)
    try:
        yield
    finally:
        del _backends[backend.kind]
        engines.remove(backend.kind)


def backend(kind: str) -> Backend:
    """The backend of a kind. Raises ``CodegenError`` where there is none."""
    found = _backends.get(kind)
    if found is None:
        raise CodegenError(f"there is no backend {kind!r}")
    return found


def backends() -> Iterator[Backend]:
    """All of them, in the order in which they were registered."""
    return iter(tuple(_backends.values()))


def backend_for(device: str, config: Config | None = None) -> Backend:
    """The backend that makes code for a type of device under these options, or those that hold. Raises
    ``CodegenError`` where there is none."""
    kind = engines.kind_for(device, config)
    if kind is None:
        raise CodegenError(f"no backend makes code for tensors on {device}")
    return backend(kind)


class limits_under:
    """By the type of device, the limits of the backend that makes code for it under ``config``."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._known: dict[str, Limits] = {}

    def __call__(self, device: str) -> Limits:
        found = self._known.get(device)
        if found is None:
            found = self._known[device] = backend_for(device, self._config).limits()
        return found


@dataclass(frozen=True)
class Code:
    """What the backends made of one schedule. ``parts``: by kind, that of the device on which most of the
    graph runs first. ``kinds`` and ``calls``: whose each segment is, and how it is called; ``reports``: one
    for each kernel; all in order."""

    parts: dict[str, Generated]
    kinds: tuple[str, ...]
    calls: tuple[Sequence[Call], ...]
    errors: tuple[ErrorEntry, ...]
    reports: tuple[KernelReport, ...]


def generate(schedule: Schedule, config: Config) -> Code:
    """Have each backend generate code for its segments, and start compiling it. Raises ``KernelFailure``."""
    segments = schedule.segments
    kinds = [backend_for(segment.device, config).kind for segment in segments]
    for segment in segments:
        _check_memory(schedule, segment)
    order = sorted(set(kinds), key=lambda kind: (-kinds.count(kind), kind))
    if not order:
        order = [backend_for(_device(schedule), config).kind]
    parts: dict[str, Generated] = {}
    errors: list[ErrorEntry] = []
    for kind in order:
        own = tuple([s for s, k in zip(segments, kinds, strict=True) if k == kind])
        parts[kind] = backend(kind).generate(Job(own, config, len(errors) + 1))
        errors += parts[kind].errors
    calls = {kind: iter(part.calls) for kind, part in parts.items()}
    reports = {kind: iter(part.reports) for kind, part in parts.items()}
    return Code(
        parts,
        tuple(kinds),
        tuple([next(calls[kind]) for kind in kinds]),
        tuple(errors),
        tuple([next(reports[k]) for s, k in zip(segments, kinds, strict=True) for _ in s.kernels]),
    )


def _device(schedule: Schedule) -> str:
    """Of a graph that runs no kernel: that of its first tensor."""
    return next((b.layout.device for b in schedule.graph.buffers.values()), HOST)


def _check_memory(schedule: Schedule, segment: Segment) -> None:
    """That each kernel's buffers lie where it runs."""
    for item in segment.kernels:
        for buffer in item.kernel.buffers:
            lies = schedule.graph.buffers[buffer.name].layout.device
            if lies != item.kernel.device:
                what = f"{buffer.name} lies on {lies}, and the kernel runs on {item.kernel.device}"
                raise KernelFailure(item.kernel, CodegenError(what))
