"""The cache's first level: before a graph of ATen operators is compiled, look whether it was before."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass

from braze.artifact import environment
from braze.artifact.compiled_graph import CompiledFxGraph
from braze.artifact.output_code import OutputCode
from braze.cache.keys import Key
from braze.cache.level import CacheHit, CacheLevel, open_level
from braze.compile import guards
from braze.compile.failing import without_cache
from braze.compile.fx_compile import CompileRequest, FxCompile
from braze.compile.report import ledger, warn_of
from braze.compile.switching import SwitchingCode
from braze.compile.text.printer import Canonical, canonical_graph
from braze.errors import ArtifactError, BrazeError, UnserializableError
from braze.runtime.guard import BoolExpr
from braze.words import duration

__all__ = ["CachedFxCompile"]

LEVEL = 1

_log = logging.getLogger("braze")


@dataclass(frozen=True)
class CachedFxCompile:
    """Looks into the cache, and has ``inner`` compile what is not there. No lock is held meanwhile."""

    inner: FxCompile

    def compile(self, request: CompileRequest) -> OutputCode:
        place = without_cache(lambda: _place(request), None)
        if place is None:
            return self.inner.compile(request)
        found = without_cache(lambda: _Lookup(request, place).run(), None)
        if found is not None:
            return found
        code = self.inner.compile(request)

        def keep(final: OutputCode) -> None:
            without_cache(lambda: _keep(place, final), None)

        if isinstance(code, SwitchingCode):
            code.when_final(keep)
        else:
            keep(code)
        return code


@dataclass(frozen=True)
class _Place:
    """Where the code of a graph is kept."""

    cache: CacheLevel
    key: Key
    canonical: Canonical


def _place(request: CompileRequest) -> _Place | None:
    """None where it has no place."""
    cache = open_level(request.config, LEVEL)
    if cache is None:
        return None
    try:
        canonical = canonical_graph(request)
    except UnserializableError as error:
        _log.info("%s is not looked for in the cache: %s", request.name, error.what)
        return None
    return _Place(cache, cache.key((*canonical.parts, *environment.key_parts())), canonical)


@dataclass(frozen=True)
class _Lookup:
    request: CompileRequest
    place: _Place

    def run(self) -> OutputCode | None:
        """What is there; a miss is remembered."""
        cache = self.place.cache
        for found in cache.lookup(self.place.key, self._accepts):
            start = time.perf_counter()
            try:
                code = self._loaded(found)
            except BrazeError as error:
                _log.warning("an entry for %s cannot be used: %s", self.request.name, error.what)
                cache.drop(found)
                continue
            if code is not None:
                cache.record_hit(found)
                warn_of(code.info.metrics.fallbacks)
                ledger.record_loaded(code.info)
                took = duration(1e6 * (time.perf_counter() - start))
                _log.info("%s: loaded from the cache in %s", self.request.name, took)
                return code
        cache.record_miss(self.place.key, self.request.name)
        return None

    def _parsed(self, text: str) -> tuple[BoolExpr, ...]:
        return guards.parsed(text.splitlines(), self.place.canonical.symbols, self.request.shape_env)

    def _accepts(self, text: str) -> bool:
        try:
            return guards.hold(self._parsed(text), self.request.shape_env)
        except ValueError:  # a text of another version, or over symbols that this trace does not have
            return False

    def _loaded(self, found: CacheHit) -> CompiledFxGraph | None:
        """The graph of an entry, ready to run; None where strict mode would not have it."""
        code = CompiledFxGraph.after_deserialization(found.payload, trusted=True)
        outputs = len(self.request.gm.graph.output_node().args[0])  # type: ignore[arg-type]
        if (len(code.info.inputs), len(code.info.outputs)) != (len(self.request.example_inputs), outputs):
            raise ArtifactError("it has other inputs and outputs than the graph that it is stored for")
        if self.request.config.strict and code.info.metrics.fallbacks:
            return None
        code.post_compile(min_parallel_work=self.request.config.min_parallel_work)
        if not guards.install(self._parsed(found.guards), self.request.shape_env):
            return None
        return code


def _keep(place: _Place, code: OutputCode) -> None:
    """Store what was compiled, if it can be stored."""
    if not isinstance(code, CompiledFxGraph):
        return
    if not code.lasting:
        _log.info("%s is not kept in the cache: workers failed while it was compiled", code.name)
        return
    try:
        payload = code.prepare_for_serialization()
    except UnserializableError as error:
        _log.info("%s is not kept in the cache: %s", code.name, error.what)
        return
    text = "\n".join(guards.printed(code.guards, place.canonical.symbols))
    place.cache.put(place.key, payload, name=code.name, kind=code.info.kind, guards=text)
