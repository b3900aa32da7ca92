"""Compile a graph for another process, maybe on another machine."""

from __future__ import annotations

from braze import config
from braze.artifact.compiled_graph import CompiledFxGraph
from braze.compile.fx_compile import CompileRequest
from braze.compile.report import warn_of

__all__ = ["compile_for"]


def compile_for(request: CompileRequest, cpu: str) -> CompiledFxGraph:
    """The graph with code for a CPU, by a name that `config.target_cpu` takes. It is not linked here, where
    it may not run. Raises what the compiler raises: there is no eager graph to fall back to."""
    # the compiler is loaded for the first graph that needs it: a cache hit or a package never does
    from braze.compile.pipeline import compile_graph  # noqa: PLC0415

    with config.using(request.config.replace(target_cpu=cpu)):
        compiled = compile_graph(request, link=False)
    warn_of(compiled.info.metrics.fallbacks)
    return compiled
