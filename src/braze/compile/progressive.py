"""Quick code first, better code later: LLVM's lowest level at once, the level that was asked for in the
background, from the same IR."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import msgspec

from braze import config
from braze.artifact.compiled_graph import CompiledFxGraph, Module, Variant
from braze.artifact.output_code import OutputCode
from braze.codegen.llvm.pool import compile_ir
from braze.compile.failing import described
from braze.compile.fx_compile import CompileRequest, FxCompile
from braze.compile.switching import SwitchingCode
from braze.config import Config
from braze.errors import BrazeError
from braze.runtime.ending import busy, start

__all__ = ["ProgressiveFxCompile", "improved"]

QUICK_LEVEL = 0
BETTER_LEVEL = 2
"""What LLVM's own passes still find in code that is vectorised already, at two to three times the price."""

_log = logging.getLogger("braze")


@dataclass(frozen=True)
class ProgressiveFxCompile:
    """Has ``inner`` compile at LLVM's level `QUICK_LEVEL`, and replaces its code when LLVM's workers are done
    with the same modules at the configured level, or at `BETTER_LEVEL` where that is higher."""

    inner: FxCompile

    def compile(self, request: CompileRequest) -> OutputCode:
        level = max(request.config.llvm_opt_level, BETTER_LEVEL)
        quick = replace(request, config=request.config.replace(llvm_opt_level=QUICK_LEVEL))
        first = self.inner.compile(quick)
        if not isinstance(first, CompiledFxGraph) or not first.variant().modules:
            return first
        code = SwitchingCode(first)
        options = request.config
        if start(f"braze-improve-{first.name}", lambda: _improve(code, first, level, options)) is None:
            return first
        return code


def _improve(code: SwitchingCode, first: CompiledFxGraph, level: int, options: Config) -> None:
    with busy():
        try:
            with config.using(options):
                better = improved(first, level)
                better.post_compile(min_parallel_work=options.min_parallel_work)
            code.switch_to(better)
        except Exception as error:
            what = error.what if isinstance(error, BrazeError) else described(error)
            _log.warning("%s keeps its first code: %s", first.name, what)
            return
        _log.info("%s: code of LLVM's level %d takes over", first.name, level)


def improved(graph: CompiledFxGraph, level: int) -> CompiledFxGraph:
    """The same graph, its modules for this machine compiled again by the LLVM workers at ``level``; the
    segments' own module, which only calls, stays as it is. Raises ``LLVMError`` and ``WorkerError``."""
    old = graph.variant()
    kernels, driver = old.modules[:-1], old.modules[-1]
    target = old.target
    jobs = [
        compile_ir(
            bytes(m.ir).decode(), cpu=target.cpu, features=target.features, opt_level=max(level, m.opt_level)
        )
        for m in kernels
    ]
    modules = tuple(
        Module(job.result().object, m.ir, max(level, m.opt_level))
        for m, job in zip(kernels, jobs, strict=True)
    )
    modules = (*modules, driver)
    info = msgspec.structs.replace(old.info, opt_levels=tuple(m.opt_level for m in modules))
    return replace(
        graph,
        info=msgspec.structs.replace(graph.info, variants=(info,)),
        variants=(Variant(info, modules),),
        report=None,
    )
