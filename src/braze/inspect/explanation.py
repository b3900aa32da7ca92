"""What `explain` finds out, as data."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.console import Console, RenderableType

from braze.artifact.schema import Fallback
from braze.codegen.backend import KernelReport
from braze.compile.report import GraphReport
from braze.inspect.machine import Machine
from braze.inspect.render import Rendered

__all__ = ["Explanation", "Extern", "Graph", "GraphBreak", "Kernel", "Memory", "Refusal"]


@dataclass(frozen=True, kw_only=True)
class Work:
    """Something that runs. Figures are of all its launches in one call of the function together.

    Attributes:
        name: a kernel's own name, or an extern's operator.
        launches: how often it runs in one call.
        operators: the ATen operators that it stands for, without namespace and overload, in order.
        source: the user's line that it comes from first, as ``file:line: code``; ``sources`` has them all.
        time_us: microseconds, the median over calls.
        share: of all kernels and externs together, from 0 to 1.
        bytes: to be read and written at least. flops: to be carried out.
        held_by: what bounds it on this machine, ``memory`` or ``arithmetic``; empty where nothing is known.
        efficiency: the time that this bound allows, divided by the time taken. Above 1 where data lies in the
            caches, whose bandwidth is another one.
    """

    name: str
    launches: int
    operators: tuple[str, ...]
    sources: tuple[str, ...]
    time_us: float
    bytes: int
    flops: int
    share: float = 0.0
    held_by: str = ""
    efficiency: float = 0.0

    @property
    def source(self) -> str:
        return self.sources[0] if self.sources else ""


@dataclass(frozen=True, kw_only=True)
class Kernel(Work):
    """A fused loop nest that Braze made. Kernels with equal code are one entry; ``names`` has them all.

    ``vector``: the loop that lies on vectors, and how many elements these have, such as ``16 x i1``;
    ``parallel``: the loop whose iterations threads share, ``-`` where one thread runs it;
    ``graph``: the graph that it is in.
    """

    names: tuple[str, ...]
    graph: str
    vector: str
    parallel: str
    report: KernelReport = field(repr=False)

    @property
    def ir(self) -> str:
        """The kernel's loops and bodies."""
        return str(self.report.kernel)

    @property
    def loop_plan(self) -> str:
        """How the loops are vectorised, unrolled and shared among threads, and how memory is accessed."""
        return str(self.report.loop_plan)

    @property
    def program(self) -> str:
        """The loops, step by step, as pseudo-code; made when it is asked for, since it is large."""
        return str(self.report.program() or "")

    @property
    def code(self) -> str:
        """The text that Braze wrote for the kernel: LLVM IR, for a CPU."""
        return self.report.code

    def asm(self) -> str:
        """The assembly that became of that; made when asked for, in some milliseconds."""
        return self.report.assembly()


@dataclass(frozen=True, kw_only=True)
class Extern(Work):
    """Calls of an operator of ATen's. ``fallback``: not by design, but because Braze cannot compile it."""

    fallback: bool


@dataclass(frozen=True)
class GraphBreak:
    """A place where Dynamo ended a graph; ``source`` is the user's line."""

    reason: str
    source: str

    def __str__(self) -> str:
        return f"{self.reason} ({self.source})" if self.source else self.reason


@dataclass(frozen=True)
class Refusal:
    """Why the operator ``consumer`` did not join the kernel of ``producer``; ``count`` times in ``graph``."""

    graph: str
    producer: str
    consumer: str
    reason: str
    source: str
    count: int

    def __str__(self) -> str:
        times = f" ({self.count} times)" if self.count > 1 else ""
        return f"{self.consumer} not fused with {self.producer}: {self.reason}{times}"


@dataclass(frozen=True)
class Memory:
    """Bytes of a graph's intermediates: in ``workspace``, which they share, and what they would take without
    sharing (``separate``)."""

    workspace: int
    separate: int


@dataclass(frozen=True)
class Graph:
    """One graph. ``kind``: inference, forward or backward; ``calls``: how often it runs in one call of the
    function; ``compile_seconds``: of Braze's own compilation; ``reason``: why eager PyTorch runs it, None
    where it is compiled (then there is a ``report``)."""

    name: str
    kind: str
    calls: int
    kernels: int
    externs: int
    compile_seconds: float
    memory: Memory
    reason: str | None
    report: GraphReport | None = field(repr=False)


@dataclass(frozen=True)
class Explanation:
    """What became of a function; ``print`` shows it as tables. ``call_us``: microseconds of one call, with
    everything around the kernels; ``first_call_seconds``: of the first one, which compiled."""

    function: str
    kernels: Sequence[Kernel]
    externs: Sequence[Extern]
    fallbacks: Sequence[Fallback]
    graph_breaks: Sequence[GraphBreak]
    graphs: Sequence[Graph]
    refusals: Sequence[Refusal]
    machine: Machine
    call_us: float
    first_call_seconds: float

    @property
    def memory(self) -> Memory:
        """Of all graphs together."""
        return Memory(
            sum(g.memory.workspace for g in self.graphs), sum(g.memory.separate for g in self.graphs)
        )

    def __rich__(self) -> RenderableType:
        return Rendered(self)

    def __str__(self) -> str:
        # As wide as the terminal, or as COLUMNS says; 100 columns where neither is known.
        console = Console(file=io.StringIO(), width=Console().width if Console().is_terminal else 100)
        with console.capture() as capture:
            console.print(Rendered(self))
        return "\n".join(line.rstrip() for line in capture.get().splitlines())
