"""From what was recorded of each graph to the entries of an explanation."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from braze.compile.report import GraphReport
from braze.inspect.cost import extern_cost, kernel_cost
from braze.inspect.explanation import Extern, Graph, Kernel, Memory, Refusal, Work
from braze.inspect.machine import Machine, roofline
from braze.inspect.timing import Timing, WatchedGraph
from braze.ir.buffers import Operation
from braze.ir.externs import FallbackKernel
from braze.runtime.expr import Expr
from braze.runtime.plan import CallExtern, Launch, RunSegment
from braze.schedule.schedule import externs as scheduled_externs

__all__ = ["all_work", "graph_of", "operator_word", "refusals_of"]

_NEVER = Timing(0, 0.0)
_W = TypeVar("_W", bound=Work)


def all_work(graphs: Sequence[WatchedGraph], here: Machine) -> tuple[tuple[Kernel, ...], tuple[Extern, ...]]:
    """The kernels and externs of all graphs: those with equal code, and calls of one operator, are one entry
    each; the longest time first."""
    kernels: list[Kernel] = []
    externs: list[Extern] = []
    for watched in graphs:
        if watched.report is not None:
            kernels += _kernels(watched, watched.report)
            externs += _externs(watched, watched.report)
    kernels = _merged(kernels, lambda k: (k.report.symbol, k.bytes // k.launches, k.flops // k.launches))
    externs = _merged(externs, lambda e: (e.name, e.fallback))
    total = sum(w.time_us for w in (*kernels, *externs))
    return tuple(_judged(kernels, total, here)), tuple(_judged(externs, total, here))


# -- one graph --------------------------------------------------------------------------------------------
def _kernels(watched: WatchedGraph, report: GraphReport) -> Iterable[Kernel]:
    timings = watched.timings()
    places = [
        (position, index, one)
        for position, one in enumerate(report.plan.instructions)
        if isinstance(one, (RunSegment, Launch))
        for index in range(len(one.kernels))
    ]
    for (position, index, segment), kernel in zip(places, report.kernels, strict=True):
        timing = timings.get((position, index), _NEVER)
        if not timing.launches:
            continue
        cost = kernel_cost(kernel.kernel, watched.sizes)
        loops = kernel.loops()
        parallel = loops.parallel
        if _value(segment.work, watched) < watched.request.config.min_parallel_work:
            parallel = "-"
        yield Kernel(
            name=kernel.kernel.name,
            launches=timing.launches,
            time_us=timing.microseconds,
            bytes=cost.bytes * timing.launches,
            flops=cost.flops * timing.launches,
            operators=tuple(dict.fromkeys(map(operator_word, kernel.kernel.origins))),
            sources=kernel.kernel.sources,
            names=(kernel.kernel.name,),
            graph=report.name,
            vector=loops.vector,
            parallel=parallel,
            report=kernel,
        )


def _externs(watched: WatchedGraph, report: GraphReport) -> Iterable[Extern]:
    timings = watched.timings()
    calls = [p for p, one in enumerate(report.plan.instructions) if isinstance(one, CallExtern)]
    for position, op in zip(calls, scheduled_externs(report.schedule), strict=True):
        timing = timings.get((position, 0), _NEVER)
        if timing.launches:
            operators = [o.operator for o in op.origins] or [op.qualified_name]
            cost = extern_cost(op, watched.sizes)
            yield Extern(
                name=operator_word(op.qualified_name),
                launches=timing.launches,
                time_us=timing.microseconds,
                bytes=cost.bytes * timing.launches,
                flops=cost.flops * timing.launches,
                operators=tuple(dict.fromkeys(map(operator_word, operators))),
                sources=tuple(dict.fromkeys(o.source for o in op.origins if o.source)),
                fallback=isinstance(op, FallbackKernel),
            )


def graph_of(watched: WatchedGraph) -> Graph:
    """The entry of a graph."""
    report = watched.report
    return Graph(
        name=watched.request.name,
        kind=watched.request.kind,
        calls=watched.calls,
        kernels=0 if report is None else len(report.kernels),
        externs=0 if report is None else len(scheduled_externs(report.schedule)),
        compile_seconds=0.0 if report is None else sum(report.seconds.values()),
        memory=Memory(0, 0) if report is None else _memory(watched, report),
        reason=watched.reason,
        report=report,
    )


def _memory(watched: WatchedGraph, report: GraphReport) -> Memory:
    plan = report.schedule.memory
    layouts = [report.graph.buffers[name].layout for name in plan.offsets]
    separate = sum(_value(one.extent, watched) * one.dtype.itemsize for one in layouts)
    return Memory(_value(plan.size, watched), separate)


def refusals_of(watched: WatchedGraph) -> list[Refusal]:
    """Why operators of a graph were not fused, in words that its user knows; equal ones once."""
    if watched.report is None:
        return []
    operations = {op.name: op for op in watched.report.graph.operations}
    found: Counter[tuple[str, str, str]] = Counter()
    sources: dict[tuple[str, str, str], str] = {}
    for refusal in watched.report.schedule.refusals:
        consumer = operations.get(refusal.consumer)
        key = (
            _in_words(refusal.producer, operations),
            _in_words(refusal.consumer, operations),
            _in_words(refusal.reason, operations),
        )
        found[key] += 1
        origins = () if consumer is None else consumer.origins
        sources.setdefault(key, next((o.source for o in origins if o.source), ""))
    name = watched.request.name
    return [Refusal(name, *key, sources[key], count) for key, count in found.most_common()]


def _in_words(text: str, operations: Mapping[str, Operation]) -> str:
    """Operations named by their operators instead of by their names, buffers by nothing but being one."""

    def operator(found: re.Match[str]) -> str:
        operation = operations.get(found.group())
        if operation is None or not operation.origins:
            return found.group()
        return operator_word(operation.origins[-1].operator)

    return re.sub(r"\bbuf\d+\b", "the result", re.sub(r"\bop\d+\b", operator, text))


def operator_word(name: str) -> str:
    """``aten.native_layer_norm.default`` is ``native_layer_norm``, and so is ``aten::native_layer_norm``."""
    parts = re.split(r"::|\.", name)
    return parts[1] if len(parts) > 1 else name


def _value(e: Expr, watched: WatchedGraph) -> int:
    """A size as a number; symbols that the inputs do not tell are taken at their lower bounds."""
    known = {s.name: watched.sizes.get(s.name, s.lower) for s in e.free_symbols}
    return e.evaluate(known)


# -- all graphs -------------------------------------------------------------------------------------------
def _merged(entries: Iterable[_W], key: Callable[[_W], Hashable]) -> list[_W]:
    """One entry for those with the same key, with their figures added up."""
    merged: dict[Hashable, _W] = {}
    for entry in entries:
        known = merged.get(key(entry))
        if known is None:
            merged[key(entry)] = entry
            continue
        changes: dict[str, object] = {
            "launches": known.launches + entry.launches,
            "time_us": known.time_us + entry.time_us,
            "bytes": known.bytes + entry.bytes,
            "flops": known.flops + entry.flops,
            "operators": tuple(dict.fromkeys((*known.operators, *entry.operators))),
            "sources": tuple(dict.fromkeys((*known.sources, *entry.sources))),
        }
        if isinstance(known, Kernel) and isinstance(entry, Kernel):
            changes["names"] = (*known.names, *entry.names)
        merged[key(entry)] = replace(known, **changes)  # type: ignore[arg-type]
    return list(merged.values())


def _judged(entries: Iterable[_W], total_us: float, here: Machine) -> list[_W]:
    """Each entry with its share of the time, and held against the machine; the longest time first."""
    judged = []
    for entry in sorted(entries, key=lambda e: -e.time_us):
        least, held_by = roofline(entry.bytes, entry.flops, here)
        judged.append(
            replace(
                entry,
                share=entry.time_us / total_us if total_us else 0.0,
                held_by=held_by if entry.bytes or entry.flops else "",
                efficiency=least * 1e6 / entry.time_us if entry.time_us else 0.0,
            )
        )
    return judged
