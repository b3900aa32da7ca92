"""The launch plan's instructions that run kernels: segments, which are the way of one backend, and launches,
which are that of all others.

A file of its own: backends differ in these; a plan's other instructions are the same for all.
"""

from __future__ import annotations

from typing import Final

from braze.runtime.expr import ZERO, Expr
from braze.runtime.spec import Node, listed

__all__ = ["SEGMENTS", "BindStream", "BufferArg", "KernelEntry", "Launch", "RunSegment", "signature"]

SEGMENTS: Final = "cpu"
"""The backend whose code runs in segments."""


def signature(entry: str, buffers: int, sizes: int) -> str:
    """The second name of a segment's entry, by which the code says how many buffers and sizes it takes."""
    return f"{entry}.args.{buffers}.{sizes}"


class BufferArg(Node, frozen=True):
    """A pointer for a segment: where a tensor begins, or ``offset`` bytes after that. A workspace counts as a
    tensor of bytes."""

    name: str
    offset: Expr = ZERO

    def __str__(self) -> str:
        return self.name if self.offset == 0 else f"{self.name} + {self.offset}"


class KernelEntry(Node, frozen=True):
    """One kernel of a segment: the name people see, and the symbol of a function with the segment's own
    signature and arguments that runs this kernel alone. Used under a profiler and by `explain`."""

    name: str
    entry: str


class RunSegment(Node, frozen=True, tag="run_segment"):
    """Call machine code of the backend `SEGMENTS`: ``int64 entry(int64 *args, int64 threads)``.

    ``args[0]`` points to the error words ``int64[4]``: id (0: no error), value, bound, reserved. Then come
    the buffers' pointers and then the sizes. It returns 0; or, having done nothing, 1 where a buffer does not
    begin at a multiple of its element's size: it is called again with copies that do. ``work`` decides
    whether it is worth more than one thread (see ``config.min_parallel_work``). ``checked``: it may write to
    the error words (otherwise they are not looked at). ``threads``: the name that `BindThreads` gave to the
    number of threads, where that must be it.
    """

    entry: str
    buffers: tuple[BufferArg, ...]
    sizes: tuple[Expr, ...]
    work: Expr
    kernels: tuple[KernelEntry, ...] = ()
    checked: bool = False
    threads: str | None = None

    def __str__(self) -> str:
        sizes = f"; {listed(self.sizes)}" if self.sizes else ""
        kernels = f" kernels {listed([k.name for k in self.kernels])}" if self.kernels else ""
        checked = " checked" if self.checked else ""
        return f"run {self.entry}({listed(self.buffers)}{sizes}) work {self.work}{kernels}{checked}"


class BindStream(Node, frozen=True, tag="bind_stream"):
    """``out`` becomes the stream to which work goes that this call launches: a number that the engine of
    ``kind`` gives."""

    out: str
    kind: str

    def __str__(self) -> str:
        return f"{self.out} = stream of {self.kind}"


class Launch(Node, frozen=True, tag="launch"):
    """Launch an entry of a backend's code: ``entry(*addresses, *sizes, error, grid, stream)``.

    ``addresses`` are those of the buffers. ``error`` is that of the error words (see `RunSegment`), which
    are looked at afterwards where it is ``checked``. ``grid``: how many blocks there are to run, in each
    dimension; nothing where the code finds that out. ``stream``: the name that `BindStream` gave it, None
    where the backend has none. ``work`` is the number of iterations, and ``kernel`` the name people see.
    """

    kind: str
    entry: str
    kernel: str
    buffers: tuple[BufferArg, ...]
    sizes: tuple[Expr, ...]
    work: Expr
    grid: tuple[Expr, ...] = ()
    stream: str | None = None
    checked: bool = False

    def __str__(self) -> str:
        sizes = f"; {listed(self.sizes)}" if self.sizes else ""
        grid = f" grid ({listed(self.grid)})" if self.grid else ""
        stream = "" if self.stream is None else f" on {self.stream}"
        checked = " checked" if self.checked else ""
        run = f"launch {self.kind} {self.entry}({listed(self.buffers)}{sizes}){grid}{stream}"
        return f"{run} work {self.work} kernels {self.kernel}{checked}"

    @property
    def kernels(self) -> tuple[KernelEntry, ...]:
        """The one kernel, as a segment lists its own."""
        return (KernelEntry(self.kernel, self.entry),)
