"""The cache's second level on disk: entries of `braze.frontend.level2` as bytes.

An entry is a container of three sections: ``entry`` (the call around the compiled halves and its guards),
``forward`` and, where gradients are asked for, ``backward``, each of these an artefact."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import msgspec

from braze.artifact import codec, container, environment
from braze.artifact.call_spec import CallSpec
from braze.artifact.compiled_graph import CompiledFxGraph
from braze.artifact.output_code import OutputCode
from braze.cache.keys import Key
from braze.cache.level import CacheLevel, open_level
from braze.compile.report import ledger, warn_of
from braze.config import Config
from braze.errors import ArtifactError, FallbackError, UnserializableError
from braze.frontend.dynamo_key import DynamoKey
from braze.frontend.level2 import Entry

__all__ = ["StoredEntries", "open_entries"]

LEVEL = 2
_NAME = "dynamo graph"

_log = logging.getLogger("braze")


class _Call(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The section ``entry``."""

    spec: CallSpec
    guards: tuple[str, ...]


class StoredEntries:
    """Where `level2` keeps its entries: the cache of this user, under the options of one compilation."""

    def __init__(self, cache: CacheLevel, config: Config) -> None:
        self._cache = cache
        self._config = config

    def _key(self, key: DynamoKey) -> Key:
        return self._cache.key((*key.parts, *environment.key_parts()))

    def find(self, key: DynamoKey) -> Iterator[Entry]:
        """What is stored under a key, the most recently used first; a miss is remembered."""
        stored = self._key(key)
        any_found = False
        for found in self._cache.lookup(stored, lambda guards: True):
            try:
                entry = _read(found.payload)
            except ArtifactError as error:
                _log.warning("an entry of the cache is dropped: %s", error.what)
                self._cache.drop(found)
                continue
            any_found = True
            self._cache.record_hit(found)
            yield entry
        if not any_found:
            self._cache.record_miss(stored, _NAME)

    def add(self, key: DynamoKey, entry: Entry) -> None:
        """Store an entry; one with the same guards is replaced."""
        try:
            payload = _written(entry)
        except UnserializableError as error:
            _log.info("the graph is cached only after it was traced: %s", error.what)
            return
        kind = "inference" if entry.backward is None else "training"
        self._cache.put(self._key(key), payload, name=_NAME, kind=kind, guards="\n".join(entry.guards))

    def load(self, data: bytes) -> OutputCode:
        """A compiled graph, ready to run. Raises ``BrazeError`` where the bytes cannot be used, or hold what
        strict mode does not allow."""
        code = CompiledFxGraph.after_deserialization(data, trusted=True)
        fallbacks = code.info.metrics.fallbacks
        if self._config.strict and fallbacks:
            raise FallbackError(f"{code.name} has operators that run as eager PyTorch: {fallbacks[0]}")
        code.post_compile(min_parallel_work=self._config.min_parallel_work)
        warn_of(fallbacks)
        ledger.record_loaded(code.info)
        return code


def open_entries(config: Config) -> StoredEntries | None:
    """The entries that the options allow; None where the cache is not to be used."""
    cache = open_level(config, LEVEL)
    return None if cache is None else StoredEntries(cache, config)


def _written(entry: Entry) -> bytes:
    call, _ = codec.encode(_Call(entry.spec, entry.guards))
    sections = {"entry": call, "forward": entry.forward}
    if entry.backward is not None:
        sections["backward"] = entry.backward
    return container.pack(sections)


def _read(payload: bytes) -> Entry:
    sections = container.unpack(payload)
    if not {"entry", "forward"} <= sections.keys() <= {"entry", "forward", "backward"}:
        raise ArtifactError(f"its sections are {', '.join(sorted(sections))}")
    call = codec.decode(sections["entry"], _Call, {})
    backward = sections.get("backward")
    return Entry(
        call.spec, call.guards, bytes(sections["forward"]), None if backward is None else bytes(backward)
    )
