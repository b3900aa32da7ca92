"""From the parts of a compilation to the artefact: specs, metrics, code."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from msgspec.structs import replace

from braze.artifact.compiled_graph import CompiledFxGraph, Module, Variant
from braze.artifact.constants import CompiledFxGraphConstants
from braze.artifact.environment import versions
from braze.artifact.graph_call import GraphCall
from braze.artifact.schema import (
    CallInfo,
    ExternCall,
    Fallback,
    GraphInfo,
    Input,
    KernelInfo,
    Metrics,
    NumberInput,
    Output,
    Part,
    TensorInput,
    TensorOutput,
    UnusedInput,
    ValueOutput,
    VariantInfo,
)
from braze.codegen.backends import Code
from braze.codegen.plan.build import BuiltPlan
from braze.compile.fx_compile import CompileRequest
from braze.compile.guards import GuardWatch
from braze.errors import ExpressionError
from braze.ir.buffers import InputBuffer, Origin
from braze.ir.externs import FallbackKernel, ItemRef, TensorRef
from braze.ir.graph import Graph
from braze.runtime.expr import ZERO, Expr
from braze.runtime.guard import BoolExpr
from braze.runtime.plan import Ref
from braze.runtime.spec import Layout
from braze.schedule.schedule import ExternStep, Schedule, externs

__all__ = ["assemble"]


def assemble(
    request: CompileRequest,
    scheduled: Schedule,
    code: Code,
    modules: Mapping[str, Sequence[Module]],
    built: BuiltPlan,
    *,
    guards: GuardWatch,
    fallbacks: Sequence[tuple[Origin, str]],
    mishaps: int,
    seconds: Mapping[str, float],
) -> CompiledFxGraph:
    """The artefact of one compilation, with one variant; ``modules`` are those of each part of ``code``, and
    ``guards`` has watched the trace since the compilation began."""
    graph = scheduled.graph
    every = tuple([module for kind in code.parts for module in modules[kind]])
    info = VariantInfo(tuple(_parts(code, modules)), built.plan, tuple(_kernels(code)))
    calls = {key: call for key, call in built.externs.items() if isinstance(call, GraphCall)}
    inner = [graph for call in calls.values() for graph in call.graphs]
    metrics = Metrics(
        (*_extern_calls(scheduled), *[one for g in inner for one in g.info.metrics.externs]),
        (
            *[Fallback(o.operator, reason, o.source) for o, reason in fallbacks],
            *[one for g in inner for one in g.info.metrics.fallbacks],
        ),
        dict(seconds),
        {
            "graphs": 1,
            "kernels": len(scheduled.kernels) + _sum(inner, "kernels"),
            "modules": len(every) + _sum(inner, "modules"),
            "mishaps": mishaps + _sum(inner, "mishaps"),
        },
    )
    functions = sorted(built.externs.keys() - calls.keys())
    reason = f"it calls Python functions of this process: {', '.join(functions)}" if functions else None
    reason = next(filter(None, (g.unstorable for g in inner)), reason)
    added: tuple[BoolExpr, ...] = ()
    try:
        added = guards.added()
    except ExpressionError as error:
        reason = f"one of its guards is outside the integer grammar: {error.what}"
    described = GraphInfo(
        request.name,
        request.kind,
        tuple(_inputs(scheduled, built, request.static_inputs)),
        tuple(_outputs(graph)),
        added,
        (info,),
        metrics,
        versions(),
        tuple([CallInfo(key, call.operator, call.single) for key, call in calls.items()]),
    )
    return CompiledFxGraph(
        described,
        (Variant(info, every),),
        CompiledFxGraphConstants(built.constants),
        built.externs,
        trusted=True,
        unstorable=reason,
    )


def _sum(graphs: Sequence[CompiledFxGraph], counter: str) -> int:
    return sum(graph.info.metrics.counters[counter] for graph in graphs)


def _parts(code: Code, modules: Mapping[str, Sequence[Module]]) -> Iterator[Part]:
    for kind, part in code.parts.items():
        made_for = part.made_for
        levels = tuple([module.opt_level for module in modules[kind]])
        yield Part(kind, made_for.name, dict(made_for.traits), levels)


def _kernels(code: Code) -> Iterator[KernelInfo]:
    for report in code.reports:
        kernel = report.kernel
        yield KernelInfo(kernel.name, report.symbol, tuple(kernel.nodes), tuple(kernel.sources))


def _extern_calls(scheduled: Schedule) -> Iterator[ExternCall]:
    for op in externs(scheduled):
        if not isinstance(op, FallbackKernel) and op.origins:
            yield ExternCall(op.origins[0].operator, op.origins[0].source)


def _inputs(scheduled: Schedule, built: BuiltPlan, static: frozenset[int]) -> Iterator[Input]:
    written = _written(scheduled)
    for position, item in enumerate(scheduled.graph.inputs):
        name = built.plan.inputs[position]
        if isinstance(item, InputBuffer):
            layout = item.layout
            yield TensorInput(
                name,
                layout,
                layout.dtype.itemsize,
                position in static,
                item.name in written,
                _expanded(layout),
                not layout.is_injective,
            )
        elif isinstance(item, Expr):
            yield NumberInput(name, item)
        else:
            yield UnusedInput(name)


def _expanded(layout: Layout) -> tuple[int, ...]:
    pairs = enumerate(zip(layout.sizes, layout.strides, strict=True))
    return tuple(d for d, (n, s) in pairs if s.constant == 0 and n.constant != 1)


def _written(scheduled: Schedule) -> set[str]:
    """The storages that the graph writes to."""
    found: set[str] = set()
    for step in scheduled.steps:
        if isinstance(step, ExternStep):
            found |= step.op.writes()
        else:
            for item in step.kernels:
                found |= {b.name for b in item.kernel.buffers if b.role in ("out", "inout")}
    return found


def _outputs(graph: Graph) -> Iterator[Output]:
    positions = {b.name: k for k, b in enumerate(graph.inputs) if isinstance(b, InputBuffer)}
    for value in graph.outputs:
        if isinstance(value, TensorRef):
            layout = value.layout
            home = positions.get(value.buffer.storage)
            yield TensorOutput(replace(layout, offset=ZERO), home)
        elif isinstance(value, ItemRef):
            yield ValueOutput(Ref(value.ref.buffer.name))
        else:
            yield ValueOutput(value)
