"""What is known of a compiled graph: kept beside it for ``braze.inspect``, and counted for the process.

Nothing here is needed to run a graph. Texts are made when they are asked for.
"""

from __future__ import annotations

import weakref
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from braze import notices
from braze.artifact.schema import ExternCall, Fallback, GraphInfo
from braze.runtime.ending import fork_lock

if TYPE_CHECKING:  # whoever only counts need not load the compiler
    from braze.codegen.backend import KernelReport
    from braze.ir.graph import Graph
    from braze.runtime.callgen import CompiledCall, Instrument
    from braze.runtime.plan import Plan
    from braze.schedule.schedule import Schedule

__all__ = ["GraphReport", "Ledger", "Totals", "ledger", "warn_of"]


@dataclass(frozen=True, eq=False)
class GraphReport:
    """One compiled graph. ``seconds``: how long each phase of its compilation took; ``call``: None where it
    was not linked; ``inner``: the graphs that it chooses from or repeats, whose
    ``externs`` and ``fallbacks`` are among its own."""

    name: str
    kind: str
    graph: Graph
    schedule: Schedule
    plan: Plan
    kernels: tuple[KernelReport, ...]
    externs: tuple[ExternCall, ...]
    fallbacks: tuple[Fallback, ...]
    seconds: dict[str, float]
    call: CompiledCall | None
    rebuild: Callable[[Instrument | None], CompiledCall] = field(repr=False)
    inner: tuple[GraphReport, ...] = ()

    def all_kernels(self) -> int:
        """How many kernels there are, those of the graphs inside included."""
        return len(self.kernels) + sum(graph.all_kernels() for graph in self.inner)


@dataclass
class Totals:
    """Counts since the process began. ``loaded``: those of the graphs whose code was there already (in the
    cache, or in a package)."""

    graphs: int = 0
    kernels: int = 0
    loaded: int = 0
    eager_graphs: int = 0
    externs: dict[str, int] = field(default_factory=dict)
    fallbacks: list[Fallback] = field(default_factory=list)


class Ledger:
    """The process's account of compilations. Reports are kept as long as their graphs live."""

    def __init__(self) -> None:
        self._lock = fork_lock()
        self._totals = Totals()
        self._reports: deque[weakref.ref[GraphReport]] = deque(maxlen=4096)
        self._listeners: list[Callable[[GraphReport], None]] = []

    def record(self, report: GraphReport) -> None:
        """A graph was compiled."""
        with self._lock:
            self._count(report.all_kernels(), report.externs, report.fallbacks)
            self._reports.append(weakref.ref(report))
            listeners = list(self._listeners)
        for listen in listeners:
            listen(report)

    def record_made(self, info: GraphInfo) -> None:
        """A graph was compiled elsewhere, for this process."""
        metrics = info.metrics
        with self._lock:
            self._count(metrics.counters.get("kernels", 0), metrics.externs, metrics.fallbacks)

    def record_loaded(self, info: GraphInfo) -> None:
        """A graph's code was there already."""
        self.record_made(info)
        with self._lock:
            self._totals.loaded += 1

    def _count(self, kernels: int, externs: Sequence[ExternCall], fallbacks: Sequence[Fallback]) -> None:
        totals = self._totals
        totals.graphs += 1
        totals.kernels += kernels
        for name, count in Counter(e.op for e in externs).items():
            totals.externs[name] = totals.externs.get(name, 0) + count
        totals.fallbacks.extend(fallbacks)

    def record_eager(self, fallback: Fallback) -> None:
        """A whole graph was given to eager PyTorch."""
        with self._lock:
            self._totals.graphs += 1
            self._totals.eager_graphs += 1
            self._totals.fallbacks.append(fallback)

    def totals(self) -> Totals:
        """A copy of the counts."""
        with self._lock:
            t = self._totals
            return Totals(t.graphs, t.kernels, t.loaded, t.eager_graphs, dict(t.externs), list(t.fallbacks))

    def reports(self) -> Sequence[GraphReport]:
        """Those of the graphs that are alive, oldest first."""
        with self._lock:
            return [r for ref in self._reports if (r := ref()) is not None]

    def listen(self, listener: Callable[[GraphReport], None]) -> Callable[[], None]:
        """Have ``listener`` called with each new report; returns what ends that."""
        with self._lock:
            self._listeners.append(listener)

        def stop() -> None:
            with self._lock:
                self._listeners.remove(listener)

        return stop


def warn_of(fallbacks: Sequence[Fallback]) -> None:
    """Say, once for each operator and place where eager PyTorch runs it, which, where, and why."""
    with notices.held():
        for fallback in fallbacks:
            text = msgspec.structs.replace(fallback, op=notices.SUBJECT)
            notices.say(f"runs as eager PyTorch: {text}", subject=fallback.op, where=fallback.source)


ledger = Ledger()
