"""The cache as compilations use it: the store of this machine, with the remote cache behind it.

Nothing here raises because of what either of them holds, or of what became of them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from braze.cache import mega_cache, remote
from braze.cache.keyring import KeyRing
from braze.cache.keys import Key
from braze.cache.paths import keyring_folder
from braze.cache.records import CacheEntry
from braze.cache.remote import RemoteCache
from braze.cache.store import CacheStore, open_store
from braze.config import Config
from braze.errors import BrazeError

__all__ = ["CacheHit", "CacheLevel", "open_level"]

LOCAL = "local"
"""The origin of what was made here, by this user."""

_log = logging.getLogger("braze")


@dataclass(frozen=True)
class CacheHit:
    """An entry that may serve: its bytes were made by this user, or signed by a key that this user trusts.
    ``digest`` is that of its cache key; ``origin`` is ``local`` or the id of the signer."""

    digest: str
    payload: bytes
    guards: str
    origin: str
    entry: CacheEntry | None = None


class CacheLevel:
    """One level of the cache; ``level`` is a part of every key."""

    def __init__(
        self, store: CacheStore, remote_cache: RemoteCache | None, level: int, keyring: KeyRing
    ) -> None:
        self._store = store
        self._remote = remote_cache
        self._keyring = keyring
        self.level = level

    def key(self, parts: tuple[tuple[str, str], ...]) -> Key:
        """A key of this level."""
        return Key((*parts, ("level", str(self.level))))

    def lookup(self, key: Key, accepts: Callable[[str], bool]) -> Iterator[CacheHit]:
        """The entries of a key whose guards ``accepts`` says yes to: this machine's, most recently used
        first, and then, if the caller still asks, those of the remote cache, which come to stay."""
        for entry in self._store.get(key.digest, accepts):
            if not self._is_trusted(entry.origin):
                _log.warning("an entry is not used: it came from %s, whom you do not trust", entry.origin)
                continue
            yield CacheHit(key.digest, entry.payload, entry.guards, entry.origin, entry)
        if self._remote is None:
            return
        for opened in self._remote.get(key.digest, level=self.level):
            if accepts(opened.header.guards):
                opened.store(self._store, key)
                yield CacheHit(key.digest, bytes(opened.payload), opened.header.guards, opened.signer.id)

    def _is_trusted(self, origin: str) -> bool:
        """Whether code of that origin may run: somebody may have been distrusted since it was stored."""
        try:
            return origin == LOCAL or self._keyring.trusts(origin)
        except BrazeError:  # a ring that cannot be believed vouches for no one
            return False

    def record_hit(self, found: CacheHit) -> None:
        """An entry served somebody."""
        mega_cache.record(self._store, found.digest, self.level, found.guards)
        if found.entry is not None:
            self._store.touch(found.entry)

    def drop(self, found: CacheHit) -> None:
        """An entry proved to be of no use."""
        if found.entry is not None:
            self._store.remove([found.entry])

    def record_miss(self, key: Key, name: str) -> None:
        """Nothing was found: remember it, and log what differs from the nearest entry."""
        text = self._store.record_miss(key, self._store.nearest(key), name=name, level=self.level)
        _log.info("%s is not in the cache (level %d): %s", name, self.level, text)

    def put(self, key: Key, payload: bytes, *, name: str, kind: str, guards: str) -> None:
        """Keep an artefact that was made here."""
        stored = self._store.put(key, payload, name=name, kind=kind, level=self.level, guards=guards)
        pending = None if stored else mega_cache.PendingArtifact(key, payload, name, kind)
        mega_cache.record(self._store, key.digest, self.level, guards, pending)
        if self._remote is not None:
            self._remote.put(key.digest, payload, level=self.level, kind=kind, name=name, guards=guards)


def open_level(config: Config, level: int) -> CacheLevel | None:
    """The cache that the options name; None where there shall be no cache, or where compiling shall leave
    files for people behind, which only a compiler can write."""
    if config.debug_dir is not None or config.fx_compile_mode == "debug-file":
        return None
    store = open_store(config)
    if store is None:
        return None
    return CacheLevel(store, remote.configured(config), level, KeyRing(keyring_folder(config)))
