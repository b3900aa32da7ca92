"""Running a function on graphs that are compiled anew, and timing each of their kernels and extern calls."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from braze.artifact.output_code import OpaqueCode, OutputCode
from braze.compile.fx_compile import CompileRequest
from braze.compile.in_process import InProcessFxCompile
from braze.compile.report import GraphReport
from braze.runtime.callgen import CompiledCall
from braze.runtime.plan import Event

__all__ = ["Timing", "Watch", "WatchedGraph"]

_WARMUPS = 2
_LEAST_RUNS = 5
_MOST_RUNS = 100


@dataclass(frozen=True)
class Timing:
    """Of one kernel or extern call: how often it runs in one call of the function, and the microseconds that
    all these runs take together (the median over calls)."""

    launches: int
    microseconds: float

    def __add__(self, other: Timing) -> Timing:
        return Timing(self.launches + other.launches, self.microseconds + other.microseconds)


class _Span:
    """Times one block."""

    __slots__ = ("event", "spans", "start")

    def __init__(self, event: Event, spans: list[tuple[Event, float]]) -> None:
        self.event = event
        self.spans = spans

    def __enter__(self) -> None:
        self.start = time.perf_counter_ns()

    def __exit__(self, *error: object) -> None:
        self.spans.append((self.event, (time.perf_counter_ns() - self.start) * 1e-3))


@dataclass
class Round:
    """What a graph did in one timed call of the function: how often it ran, and each kernel and extern call
    with its microseconds."""

    calls: int = 0
    spans: list[tuple[Event, float]] = field(default_factory=list)


@dataclass(eq=False)
class WatchedGraph:
    """One graph: ``report`` is None, and ``reason`` says why, where eager PyTorch runs it. ``sizes``: the
    values of its size symbols, as far as its inputs tell them."""

    request: CompileRequest
    code: OutputCode
    report: GraphReport | None
    reason: str | None
    sizes: dict[str, int] = field(default_factory=dict)
    rounds: list[Round] = field(default_factory=list)
    timed: bool = False
    _instrumented: CompiledCall | None = None

    def run(self, inputs: list[Any]) -> Sequence[Any]:
        """The graph itself, or in a timed round the graph whose parts are timed."""
        if self.timed:
            self.rounds[-1].calls += 1
        if self.report is None:
            return self.code.run(inputs)
        if not self.timed:
            if not self.sizes:
                self.sizes = self.report.plan.size_reader()(inputs)
            return self.code.run(inputs)
        if self._instrumented is None:
            self._instrumented = self.report.rebuild(self._span)
        return self._instrumented(inputs)

    def _span(self, event: Event, _values: Sequence[int]) -> AbstractContextManager[object]:
        return _Span(event, self.rounds[-1].spans)

    @property
    def calls(self) -> int:
        """How often it runs in one call of the function."""
        return round(statistics.median(one.calls for one in self.rounds)) if self.rounds else 0

    def timings(self) -> dict[tuple[int, int], Timing]:
        """By the position of its instruction, and the number of the kernel there."""
        counts: dict[tuple[int, int], list[int]] = {}
        sums: dict[tuple[int, int], list[float]] = {}
        for one in self.rounds:
            count: Counter[tuple[int, int]] = Counter()
            total: dict[tuple[int, int], float] = {}
            for event, microseconds in one.spans:
                key = (event.instruction, event.index)
                count[key] += 1
                total[key] = total.get(key, 0.0) + microseconds
            for key, number in count.items():
                counts.setdefault(key, []).append(number)
                sums.setdefault(key, []).append(total[key])
        return {
            key: Timing(round(statistics.median(counts[key])), statistics.median(sums[key])) for key in counts
        }


class Watch:
    """A strategy that compiles as usual, and keeps what it compiled in ``graphs``."""

    def __init__(self) -> None:
        self.graphs: list[WatchedGraph] = []
        self._inner = InProcessFxCompile()

    def compile(self, request: CompileRequest) -> OutputCode:
        """Compile a graph; see `FxCompile`."""
        code = self._inner.compile(request)
        report = getattr(code, "report", None)
        watched = WatchedGraph(
            request,
            code,
            report if isinstance(report, GraphReport) else None,
            getattr(code, "reason", None),
        )
        self.graphs.append(watched)

        def run(inputs: list[Any]) -> Sequence[Any]:  # a function: the caller leaves a mark on it
            return watched.run(inputs)

        return OpaqueCode(request.name, run, code.output_strides)

    def measure(self, call: Callable[[], object], seconds: float) -> tuple[float, float]:
        """Call for about that long, each call followed by one whose kernels are timed. Returns the seconds of
        the very first call, and the median microseconds of a call that is not timed inside."""
        start = time.perf_counter()
        call()
        first = time.perf_counter() - start
        for _ in range(_WARMUPS):
            call()
        whole: list[float] = []
        end = time.perf_counter() + seconds
        while len(whole) < _LEAST_RUNS or (len(whole) < _MOST_RUNS and time.perf_counter() < end):
            whole.append(self._called(call, timed=False))
            self._called(call, timed=True)
        for watched in self.graphs:
            watched.rounds = watched.rounds[1:]  # in the first one the timed function was made
        return first, statistics.median(whole)

    def _called(self, call: Callable[[], object], *, timed: bool) -> float:
        for watched in self.graphs:
            watched.timed = timed
            if timed:
                watched.rounds.append(Round())
        start = time.perf_counter()
        try:
            call()
        finally:
            duration = (time.perf_counter() - start) * 1e6
            for watched in self.graphs:
                watched.timed = False
        return duration
