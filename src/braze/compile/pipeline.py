"""The compiler proper: ATen graph -> IR -> schedule -> object code and launch plan -> callable.

Loaded on the first graph that has to be compiled. Where a kernel or node cannot be compiled, the pipeline
names it and the caller decides; ``strict`` turns every fallback into an error.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from braze.artifact.compiled_graph import CompiledFxGraph
from braze.artifact.graph_call import GraphCall
from braze.codegen.backend import KernelFailure
from braze.codegen.backends import backend, backends, generate, limits_under
from braze.codegen.plan.build import build_plan
from braze.compile.assemble import assemble
from braze.compile.debug import DebugFolder, log_compiled
from braze.compile.fx_compile import CompileRequest
from braze.compile.guards import GuardWatch
from braze.compile.inner_graphs import calls_of_graphs
from braze.compile.report import GraphReport, ledger
from braze.compile.verifying import KernelVerifier
from braze.errors import Refused, WorkerError
from braze.lowering import families as families  # fills the registry of lowerings
from braze.lowering.graph import GraphLowering
from braze.runtime.callgen import CompiledCall, Instrument
from braze.schedule.schedule import schedule

__all__ = ["backend", "backends", "compile_graph"]

MAX_ATTEMPTS = 6
"""How often a graph is compiled again without the nodes of a kernel that could not be."""


def compile_graph(request: CompileRequest, *, link: bool = True) -> CompiledFxGraph:
    """Compile one graph in this process. Raises ``BrazeError``.

    link: make it callable here, and count it; without, it is for another process, or for one that will load
        its bytes, and may be for another machine."""
    folder = DebugFolder.of(request)
    forced: dict[str, str] = {}
    mishaps = 0
    watch = GuardWatch(request.shape_env)
    try:
        inner = calls_of_graphs(request, lambda part: compile_graph(part, link=False))
        for _ in range(MAX_ATTEMPTS - 1):
            try:
                return _compile(request, folder, inner, watch, forced, link, mishaps)
            except KernelFailure as failure:
                mishaps += isinstance(failure.__cause__, WorkerError)
                # The nodes of this kernel go to eager operators, and the rest is compiled without them.
                new = {n: failure.what for n in failure.kernel.nodes if n not in forced}
                if request.config.strict or not new:
                    raise
                forced.update(new)
        return _compile(request, folder, inner, watch, forced, link, mishaps)
    except Exception as error:
        folder.fail(error)
        raise


def _compile(
    request: CompileRequest,
    folder: DebugFolder,
    inner: Mapping[str, GraphCall | Refused],
    watch: GuardWatch,
    forced: Mapping[str, str],
    link: bool,
    mishaps: int,
) -> CompiledFxGraph:
    """``mishaps``: how many of the forced fallbacks are a worker's doing, and not the kernel's."""
    seconds: dict[str, float] = {}
    config = request.config
    with _timed(seconds, "lower"):
        lowering = GraphLowering(
            request.gm, config, request.static_inputs, request.visible_outputs, forced, inner
        )
        graph = lowering.run()
    folder.write("ir.txt", graph)
    with _timed(seconds, "schedule"):
        limits = limits_under(config)
        scheduled = schedule(graph, limits)
    folder.write("schedule.txt", scheduled)
    with _timed(seconds, "generate"):
        code = generate(scheduled, config)
    folder.write_kernels(code)
    with _timed(seconds, "plan"):
        assumed = watch.assumed(lowering.sizes.condition)
        symbols = lowering.sizes.symbols
        built = build_plan(scheduled, code, limits, request.name, symbols, assumed)
    folder.write("plan.txt", built.plan)
    with _timed(seconds, "code"):
        modules = {kind: part.modules() for kind, part in code.parts.items()}
    compiled = assemble(
        request,
        scheduled,
        code,
        modules,
        built,
        guards=watch,
        fallbacks=lowering.fallbacks,
        mishaps=mishaps,
        seconds=seconds,
    )
    if link:
        with _timed(seconds, "link"):
            verifier = KernelVerifier(code.reports, folder.path) if config.verify else None
            compiled.post_compile(min_parallel_work=config.min_parallel_work, instrument=verifier)

    def rebuild(instrument: Instrument | None) -> CompiledCall:
        return compiled.bind(instrument, min_parallel_work=config.min_parallel_work)

    report = GraphReport(
        request.name,
        request.kind,
        graph,
        scheduled,
        built.plan,
        code.reports,
        compiled.info.metrics.externs,
        compiled.info.metrics.fallbacks,
        seconds,
        compiled.run if link else None,
        rebuild,
        tuple(_inner_reports(compiled)),
    )
    compiled.report = report
    if link:
        ledger.record(report)
    folder.finish(report)
    log_compiled(report, folder)
    return compiled


def _inner_reports(compiled: CompiledFxGraph) -> Iterator[GraphReport]:
    for call in compiled.calls.values():
        for graph in call.graphs:
            assert isinstance(graph.report, GraphReport)
            yield graph.report


@contextmanager
def _timed(seconds: dict[str, float], phase: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[phase] = time.perf_counter() - start
