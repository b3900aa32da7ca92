"""The compiler proper: ATen graph -> IR -> schedule -> object code and launch plan -> callable.

Loaded on the first graph that has to be compiled. Where a kernel or node cannot be compiled, the pipeline
names it and the caller decides; ``strict`` turns every fallback into an error.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from braze.artifact.output_code import CompiledFxGraph, OutputStrides
from braze.codegen.native import KernelFailure, NativeCode, compile_native
from braze.codegen.plan.build import build_plan
from braze.compile.debug import DebugFolder, log_compiled
from braze.compile.fx_compile import CompileRequest
from braze.compile.report import ExternCall, Fallback, GraphReport, KernelReport, ledger
from braze.errors import BrazeWarning
from braze.ir.externs import FallbackKernel, TensorRef
from braze.ir.graph import Graph
from braze.lowering import families as families  # fills the registry of lowerings
from braze.lowering.graph import GraphLowering
from braze.runtime.callgen import CompiledCall, Instrument, build
from braze.runtime.linker import LinkedCode, link
from braze.runtime.target import current_target
from braze.schedule.schedule import Schedule, externs, schedule

__all__ = ["compile_graph"]

MAX_ATTEMPTS = 6
"""How often a graph is compiled again without the nodes of a kernel that could not be."""


def compile_graph(request: CompileRequest) -> CompiledFxGraph:
    """Compile one graph in this process. Raises ``BrazeError``."""
    folder = DebugFolder.of(request)
    forced: dict[str, str] = {}
    try:
        for _ in range(MAX_ATTEMPTS - 1):
            try:
                return _compile(request, folder, forced)
            except KernelFailure as failure:
                # The nodes of this kernel go to eager operators, and the rest is compiled without them.
                new = {n: failure.what for n in failure.kernel.nodes if n not in forced}
                if request.config.strict or not new:
                    raise
                forced.update(new)
        return _compile(request, folder, forced)
    except Exception as error:
        folder.fail(error)
        raise


def _compile(request: CompileRequest, folder: DebugFolder, forced: Mapping[str, str]) -> CompiledFxGraph:
    seconds: dict[str, float] = {}
    config = request.config
    with _timed(seconds, "lower"):
        lowering = GraphLowering(request.gm, config, request.static_inputs, request.visible_outputs, forced)
        graph = lowering.run()
    folder.write("ir.txt", graph)
    with _timed(seconds, "schedule"):
        scheduled = schedule(graph)
    folder.write("schedule.txt", scheduled)
    target = current_target()
    with _timed(seconds, "generate"):
        native = compile_native(scheduled, target, config.llvm_opt_level)
    folder.write_kernels(scheduled, native)
    with _timed(seconds, "plan"):
        built = build_plan(scheduled, native.calls, native.errors, request.name)
    folder.write("plan.txt", built.plan)
    with _timed(seconds, "llvm"):
        objects = native.objects()
    with _timed(seconds, "link"):
        code = link(objects, exports=built.plan.entries) if objects else None

    def make(instrument: Instrument | None) -> CompiledCall:
        return build(
            built.plan,
            code,
            built.constants,
            externs=built.externs,
            instrument=instrument,
            min_parallel_work=config.min_parallel_work,
        )

    with _timed(seconds, "bind"):
        call = make(None)
    report = GraphReport(
        request.name,
        request.kind,
        graph,
        scheduled,
        built.plan,
        _kernel_reports(scheduled, native, code, target),
        tuple(_extern_calls(scheduled)),
        tuple(Fallback(o.operator, reason, o.source) for o, reason in lowering.fallbacks),
        seconds,
        call,
        make,
        config.llvm_opt_level,
    )
    _warn(report)
    ledger.record(report)
    folder.finish(report)
    log_compiled(report, folder)
    return CompiledFxGraph(request.name, call, _strides(graph), report=report)


@contextmanager
def _timed(seconds: dict[str, float], phase: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[phase] = time.perf_counter() - start


def _kernel_reports(
    scheduled: Schedule, native: NativeCode, code: LinkedCode | None, target: object
) -> tuple[KernelReport, ...]:
    return tuple(
        KernelReport(k, c.functions[0], c.plan, c.text, target)  # type: ignore[arg-type]
        for k, c in zip(scheduled.kernels, native.codes, strict=True)
    )


def _extern_calls(scheduled: Schedule) -> Iterator[ExternCall]:
    for op in externs(scheduled):
        if not isinstance(op, FallbackKernel) and op.origins:
            yield ExternCall(op.origins[0].operator, op.origins[0].source)


def _warn(report: GraphReport) -> None:
    """Say once for each operator that eager PyTorch runs, which, where, and why."""
    for fallback in dict.fromkeys(report.fallbacks):
        key = (fallback.op, fallback.reason)
        if key not in _warned:
            _warned.add(key)
            warnings.warn(f"runs as eager PyTorch: {fallback}", BrazeWarning, stacklevel=2)


_warned: set[tuple[str, str]] = set()


def _strides(graph: Graph) -> OutputStrides:
    """The strides of each output that is a tensor, where they are plain numbers."""
    strides: list[tuple[int, ...] | None] = []
    for value in graph.outputs:
        known = None
        if isinstance(value, TensorRef):
            ints = [e.constant for e in value.layout.stride]
            known = tuple(i for i in ints if i is not None) if None not in ints else None
        strides.append(known)
    return tuple(strides)
