"""Quick code first, better code later: each backend's quickest way at once, the usual one in the background,
from the same sources."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import msgspec

from braze import config
from braze.artifact.compiled_graph import CompiledFxGraph, Module, Variant
from braze.artifact.output_code import OutputCode
from braze.artifact.schema import Part
from braze.compile.failing import described
from braze.compile.fx_compile import CompileRequest, FxCompile
from braze.compile.switching import SwitchingCode
from braze.config import Config
from braze.errors import BrazeError
from braze.runtime.ending import busy, start

__all__ = ["ProgressiveFxCompile", "improved"]

_log = logging.getLogger("braze")


@dataclass(frozen=True)
class ProgressiveFxCompile:
    """Has ``inner`` compile under each backend's ``quick`` options, and replaces its code when the backends
    are done with the same modules under those that were asked for."""

    inner: FxCompile

    def compile(self, request: CompileRequest) -> OutputCode:
        # the lazy seam: the compiler is needed now
        from braze.compile.pipeline import backends  # noqa: PLC0415

        quick = request.config
        for one in backends():
            quick = one.quick(quick) or quick
        first = self.inner.compile(replace(request, config=quick))
        if not isinstance(first, CompiledFxGraph) or not first.variant().modules:
            return first
        code = SwitchingCode(first)
        options = request.config
        if start(f"braze-improve-{first.name}", lambda: _improve(code, first, options)) is None:
            return first
        return code


def _improve(code: SwitchingCode, first: CompiledFxGraph, options: Config) -> None:
    with busy():
        try:
            with config.using(options):
                better = improved(first, options)
                better.post_compile(min_parallel_work=options.min_parallel_work)
            code.switch_to(better)
        except Exception as error:
            what = error.what if isinstance(error, BrazeError) else described(error)
            _log.warning("%s keeps its first code: %s", first.name, what)
            return
        _log.info("%s: better code takes over", first.name)


def improved(graph: CompiledFxGraph, options: Config) -> CompiledFxGraph:
    """The same graph, its modules for this machine compiled again. Raises ``BrazeError``."""
    # the lazy seam: this is loaded by then
    from braze.compile.pipeline import backend  # noqa: PLC0415

    old = graph.variant()
    parts: list[Part] = []
    modules: list[Module] = []
    for part, own in old.parts:
        better = backend(part.kind).improved(part.made_for, own, options) if own else own
        parts.append(msgspec.structs.replace(part, opt_levels=tuple([m.opt_level for m in better])))
        modules += better
    info = msgspec.structs.replace(old.info, parts=tuple(parts))
    return replace(
        graph,
        info=msgspec.structs.replace(graph.info, variants=(info,)),
        variants=(Variant(info, tuple(modules)),),
        report=None,
    )
