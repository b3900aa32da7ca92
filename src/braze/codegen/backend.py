"""What a code generator gets, and what it gives: the interface between the compiler and a backend.

A backend makes code for the kernels of one type of device, or of several. It gets the segments of a
schedule whose kernels run there, and gives code that nobody else looks into, how the launch plan calls it,
and a report of each kernel for people. Its other half, the engine, runs that code (`braze.runtime.engine`).
How to add one is told in ``docs/backends.md``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

from braze.errors import BrazeError, CodegenError
from braze.runtime.expr import Symbol

if TYPE_CHECKING:  # whoever only starts a backend's processes need not load the compiler
    from braze.artifact.compiled_graph import Module
    from braze.codegen.program.program import Program
    from braze.config import Config
    from braze.ops.kernel import Kernel
    from braze.runtime.engine import Engine, MadeFor
    from braze.runtime.expr import Expr
    from braze.runtime.plan import ErrorEntry, KernelEntry
    from braze.schedule.limits import Limits
    from braze.schedule.schedule import Segment

__all__ = [
    "THREADS",
    "Backend",
    "Call",
    "Generated",
    "Job",
    "KernelCall",
    "KernelFailure",
    "KernelReport",
    "Loops",
    "SegmentCall",
]

THREADS = Symbol("threads", 1)
"""How many threads segments get: what sizes scratch memory that each thread has a part of."""


class KernelFailure(CodegenError):
    """One kernel could not be turned into code. ``kernel`` is that kernel."""

    def __init__(self, kernel: Kernel, error: Exception) -> None:
        what = str(error) if isinstance(error, BrazeError) else f"{type(error).__name__}: {error}"
        super().__init__(
            f"code generation failed: {what}",
            node=kernel.name,
            where=kernel.sources[0] if kernel.sources else None,
        )
        self.kernel = kernel


# -- how the plan calls code --------------------------------------------------------------------------------
@dataclass(frozen=True)
class SegmentCall:
    """All kernels of a segment in one call: see ``RunSegment``, which one backend's code has. ``buffers`` are
    storages, or numbers of ``scratch`` areas that the segment needs for itself while it runs (sizes in bytes,
    over size symbols and ``THREADS``)."""

    entry: str
    buffers: tuple[str | int, ...]
    sizes: tuple[Symbol, ...]
    scratch: tuple[Expr, ...]
    kernels: tuple[KernelEntry, ...]
    checked: bool


@dataclass(frozen=True)
class KernelCall:
    """A launch of one kernel: see ``Launch``. ``buffers`` and ``scratch`` as in `SegmentCall`; ``streamed``:
    it goes to the stream that is current when the graph is called."""

    kernel: Kernel
    entry: str
    buffers: tuple[str | int, ...]
    sizes: tuple[Expr, ...]
    scratch: tuple[Expr, ...] = ()
    grid: tuple[Expr, ...] = ()
    streamed: bool = False
    checked: bool = False


Call: TypeAlias = SegmentCall | KernelCall


# -- what people see ----------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Loops:
    """Of the stage of a kernel that does most of the work, in the backend's words: the loop that lies on
    vectors, such as ``16 x i1``, and those whose iterations are shared among workers."""

    vector: str
    parallel: str


class KernelReport(Protocol):
    """One kernel: its loops and bodies, what the backend planned for it, and what it wrote."""

    @property
    def kernel(self) -> Kernel: ...

    @property
    def symbol(self) -> str:
        """Its function in the code; kernels that are the same up to names share one."""
        ...

    @property
    def loop_plan(self) -> object:
        """Prints how its loops are run."""
        ...

    @property
    def code(self) -> str:
        """The text that the backend wrote."""
        ...

    def program(self) -> Program | None:
        """Those steps as data, which prints as pseudo-code, made when asked for; None where the backend has
        no such thing."""
        ...

    def memory(self, values: Sequence[int]) -> tuple[Mapping[str, int], Mapping[str, int]] | None:
        """Of the addresses and sizes of a call, in the order of the launch plan's instruction: those of the
        kernel's buffers and size symbols, by name. None where the memory is not this process's."""
        ...

    def loops(self) -> Loops:
        """Where its loops went."""
        ...

    def assembly(self) -> str:
        """What the machine gets, made when asked for. Raises ``BrazeError`` where that cannot be had."""
        ...


# -- a backend ----------------------------------------------------------------------------------------------
class Generated(Protocol):
    """The code of a schedule's segments, which may be in the making."""

    @property
    def calls(self) -> Sequence[Sequence[Call]]:
        """How each segment is called, in order."""
        ...

    @property
    def errors(self) -> Sequence[ErrorEntry]:
        """The checks that the code may report as failed."""
        ...

    @property
    def reports(self) -> Sequence[KernelReport]:
        """One for each kernel, in order."""
        ...

    @property
    def made_for(self) -> MadeFor: ...

    @property
    def files(self) -> Mapping[str, str]:
        """Texts for the debug folder, by file name, besides those of kernels."""
        ...

    def modules(self) -> tuple[Module, ...]:
        """Wait for the code. Raises ``KernelFailure``, or another ``BrazeError`` where no kernel is to
        blame."""
        ...


@dataclass(frozen=True)
class Job:
    """What a backend is to make. ``segments``: those whose kernels run on its devices; ``first_error``: the
    number of the first check that it may report."""

    segments: tuple[Segment, ...]
    config: Config
    first_error: int = 1


class Backend(Protocol):
    """Makes code. Called from several threads at once; it keeps no state that matters."""

    @property
    def kind(self) -> str:
        """Its name, and its engine's: a short word of lower-case letters, digits and underscores."""
        ...

    @property
    def engine(self) -> Engine: ...

    def limits(self) -> Limits:
        """Answers to the scheduler's questions."""
        ...

    def generate(self, job: Job) -> Generated:
        """Generate code for every kernel, and start compiling it. Raises ``KernelFailure``."""
        ...

    def warm(self) -> None:
        """Load what a compilation needs: called once in a process that does nothing but compile."""
        ...

    def quick(self, config: Config) -> Config | None:
        """The options with which code is made fastest, for a first version that will be replaced; None where
        there is nothing to gain."""
        ...

    def improved(self, made_for: MadeFor, modules: Sequence[Module], config: Config) -> tuple[Module, ...]:
        """The modules that ``quick`` options made, compiled again under the usual ones. Raises
        ``BrazeError``."""
        ...

    def peak(self, threads: int) -> float | None:
        """Float32 operations a second that the machine reaches, measured; None where nobody knows."""
        ...
