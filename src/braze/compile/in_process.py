"""Compile a graph here and now, in the calling thread."""

from __future__ import annotations

from dataclasses import dataclass

from braze import config
from braze.artifact.compiled_graph import CompiledFxGraph
from braze.artifact.output_code import OutputCode
from braze.compile.eager_graph import run_eagerly
from braze.compile.failing import described, given_up
from braze.compile.fx_compile import CompileRequest
from braze.compile.report import warn_of

__all__ = ["InProcessFxCompile", "compile_for", "eager_or_raise"]


@dataclass(frozen=True)
class InProcessFxCompile:
    """Lower, schedule and generate code in this process. What fails runs as eager PyTorch, with one warning
    that names the node, the reason and the user's line; `config.strict` raises instead."""

    def compile(self, request: CompileRequest) -> OutputCode:
        try:
            # the compiler is loaded for the first graph that needs it: a cache hit or a package never does
            from braze.compile.pipeline import compile_graph  # noqa: PLC0415

            compiled = compile_graph(request)
        except Exception as error:
            return eager_or_raise(request, error)
        warn_of(compiled.info.metrics.fallbacks)
        return compiled


def eager_or_raise(request: CompileRequest, error: Exception) -> OutputCode:
    """The failure policy for a whole graph. Raises `FallbackError`, or the `BrazeError` itself, in strict
    mode."""
    code = None if request.config.strict else run_eagerly(request, described(error))
    given_up(request.name, error, request.gm, strict=code is None)
    assert code is not None
    return code


def compile_for(request: CompileRequest, cpu: str) -> CompiledFxGraph:
    """The graph with code for a CPU, by a name that `config.target_cpu` takes. It is not linked here, where
    it may not run. Raises what the compiler raises: there is no eager graph to fall back to."""
    # the compiler is loaded for the first graph that needs it: a cache hit or a package never does
    from braze.compile.pipeline import compile_graph  # noqa: PLC0415

    with config.using(request.config.replace(target_cpu=cpu)):
        compiled = compile_graph(request, link=False)
    warn_of(compiled.info.metrics.fallbacks)
    return compiled
