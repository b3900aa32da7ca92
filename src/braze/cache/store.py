"""The cache on disk: bytes under keys, bounded in size, for many processes and threads at once.

No method of `CacheStore` raises because of what is on disk or what became of it: a look finds nothing, a put
does nothing, and the reason is reported once (see `braze.cache.database`). What `get` returns is what some
`put` stored under that key, byte for byte, or it is not returned.

No lock is held between calls: two processes that miss the same key both compile, and the later put replaces
the earlier one's entry with the same guards.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
import zlib
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from braze.cache import queries
from braze.cache.database import Database
from braze.cache.keys import Key, explain
from braze.cache.paths import cache_folder
from braze.cache.records import (
    CacheEntry,
    CacheMiss,
    CacheStatistics,
    Collected,
    EntryInfo,
    checksum,
    pack,
    pack_text,
    unpack,
)
from braze.config import Config
from braze.runtime.ending import at_end
from braze.words import age

if TYPE_CHECKING:  # loading it takes 4 ms
    from sqlite3 import Connection

__all__ = ["CacheStore", "open_store"]

_log = logging.getLogger("braze")

MISSES_KEPT: Final = 64
VARIANTS_KEPT: Final = 32
"""Entries that one key may have, under different guards; the least recently used goes first."""
LARGEST: Final = 900_000_000
"""Bytes of the largest payload: SQLite's own limit for one value is 10^9."""
STAMP_SECONDS: Final = 600.0
"""Age of an entry's time of use from which on a hit writes a new one at once."""
_ROOM: Final = 0.9
_TOUCH_WAIT_MS: Final = 50
_PENDING: Final = 256
_VACUUM_PAGES: Final = 2000


class CacheStore:
    """The cache in ``folder``, which is made when it is first used. At most ``limit_bytes`` are kept.

    One object serves all threads of a process, and stays usable in its forked children. Hits are counted in
    memory and written with the next put, by `close`, or when the process ends.
    """

    def __init__(self, folder: str | os.PathLike[str], limit_bytes: int = 2_000_000_000) -> None:
        self.folder = Path(folder).absolute()
        self.limit_bytes = limit_bytes
        self._database = Database(self.folder)
        self._pending_lock = threading.Lock()
        self._pending = _Pending()
        _STORES.add(self)

    @property
    def problem(self) -> str | None:
        """What went wrong at the last use, in words; None if nothing did."""
        return self._database.problem

    # -- looking ------------------------------------------------------------------------------------------
    def get(self, digest: str, accepts: Callable[[str], bool] | None = None) -> tuple[CacheEntry, ...]:
        """The entries under a key's digest, the most recently used first; those only whose guards
        ``accepts`` says yes to, so that the bytes of others are not read. Raises what ``accepts`` raises,
        and nothing else.

        An entry that is damaged, or was moved here from another key, is deleted and logged.
        """
        found, damaged = [], []
        for row, body in self._read(digest, accepts):
            payload = _verified(row, body)
            if payload is None:
                damaged.append(row.info)
            else:
                found.append(CacheEntry(**msgspec.structs.asdict(row.info), payload=payload))
        if damaged:
            with self._pending_lock:
                self._pending.counters["damaged"] += len(damaged)
            for info in damaged:
                _log.warning("an entry of the cache is damaged and was dropped: %s (%s)", info.key, info.name)
            self.remove(damaged)
        return tuple(found)

    def touch(self, entry: EntryInfo) -> None:
        """Say that an entry served somebody. Written at once only if its last use was a while ago."""
        now = time.time()
        with self._pending_lock:
            pending = self._pending
            pending.uses[entry.id] = (pending.uses.get(entry.id, (0, now))[0] + 1, now)
            pending.counters["hits"] += 1
            due = now - pending.stamped.get(entry.id, entry.used) > STAMP_SECONDS
            if due:
                pending.stamped[entry.id] = now
            due = due or len(pending.uses) >= _PENDING
        if due:
            self._flush(_TOUCH_WAIT_MS)

    def nearest(self, key: Key) -> tuple[EntryInfo, Key] | None:
        """The entry whose key shares most parts with this one, and that key; the graph counts most,
        then the inputs. Where no entry has this graph, the one with most lines in common; None where that is
        less than half of them."""
        return self._database.run(lambda c: queries.nearest(c, key), None)

    def entries(self) -> tuple[EntryInfo, ...]:
        """All entries, the most recently used first."""
        return self._database.run(lambda c: tuple(row.info for row in queries.every(c)), ())

    def key(self, digest: str) -> Key | None:
        """The key with this digest, with all its texts, if it is known here."""
        return self._database.run(lambda c: queries.key_with(c, digest), None)

    def misses(self) -> tuple[CacheMiss, ...]:
        """The last keys that were looked for and not found, the latest first; at most 64."""
        return self._database.run(queries.misses, ())

    def statistics(self) -> CacheStatistics:
        """Figures of the whole cache, this process's hits included."""
        self._flush(_TOUCH_WAIT_MS)
        return self._database.run(
            lambda c: queries.statistics(c, self._database.sizes(), self.limit_bytes),
            CacheStatistics(limit_bytes=self.limit_bytes),
        )

    # -- keeping ------------------------------------------------------------------------------------------
    def put(
        self,
        key: Key,
        payload: bytes,
        *,
        name: str,
        kind: str,
        level: int = 1,
        guards: str = "",
        origin: str = "local",
    ) -> bool:
        """Store an artefact; one under the same key, level and guards is replaced. Whether it is stored.

        Throws out what was used least recently if the cache has become larger than its limit.
        """
        if len(payload) > min(self.limit_bytes * _ROOM, LARGEST) or not _storable(
            name, kind, guards, origin, *(part for part, _ in key.parts)
        ):
            _log.info("not kept in the cache: %r, with %d bytes", name, len(payload))
            return False
        codec, body = pack(payload)
        summed = checksum((key.digest, level, name, kind, guards, origin, len(payload), codec), body)
        texts = self._new_texts(key)
        now = time.time()

        def action(connection: Connection) -> bool:
            owner = queries.ensure_key(connection, key, texts)
            times, sizes = (now, now), (len(payload), len(body))
            row = (owner, name, kind, level, guards, origin, *times, 0, *sizes, codec, summed)
            queries.replace(connection, row, body, VARIANTS_KEPT)
            queries.count(connection, {"puts": 1})
            return True

        stored = self._database.run(action, False, write=True)
        if stored:
            self._flush(_TOUCH_WAIT_MS)
            self._bound()
        return stored

    def record_miss(
        self, key: Key, nearest: tuple[EntryInfo, Key] | None, *, name: str = "", level: int = 1
    ) -> str:
        """Remember that nothing was found for ``key``, for ``braze cache why``. In one line, which part
        differed from the nearest entry."""
        if nearest is None:
            text = "no entry has a graph like this one"
        else:
            old = age(time.time() - nearest[0].created)
            what = explain(nearest[1], key)
            text = f"nearest is {nearest[0].key[:12]} ({nearest[0].name}, {old} old): {what}"
        if not _storable(name, *(part for part, _ in key.parts)):
            return text
        texts = self._new_texts(key)

        def action(connection: Connection) -> None:
            known = None if nearest is None else queries.find_key(connection, nearest[1].digest)
            owner = queries.ensure_key(connection, key, texts)
            queries.add_miss(connection, (time.time(), name, level, owner, known), MISSES_KEPT)
            queries.count(connection, {"misses": 1})

        self._database.run(action, None, write=True)
        return text

    # -- throwing out -------------------------------------------------------------------------------------
    def remove(self, entries: Iterable[EntryInfo]) -> int:
        """Delete these entries; how many there were."""
        ids = [entry.id for entry in entries]
        return self._database.run(lambda c: queries.delete(c, ids), 0, write=True)

    def clear(self) -> Collected:
        """Delete everything, counts and misses included, and give the space back."""
        with self._pending_lock:
            self._pending = _Pending()
        done = self._database.run(queries.clear, Collected(), write=True)
        self._shrink()
        return done

    def collect(self, limit_bytes: int | None = None) -> Collected:
        """Throw out what was used least recently until at most ``limit_bytes`` (default: the cache's own
        limit) are in use, and what no entry refers to; give the space back to the file system."""
        limit = self.limit_bytes if limit_bytes is None else limit_bytes
        self._flush(_TOUCH_WAIT_MS)
        done = self._database.run(lambda c: queries.collect(c, limit), Collected(), write=True)
        self._shrink()
        self._database.sweep()
        return done

    def close(self) -> None:
        """Write what is pending and close the file. The store can be used again."""
        self._flush(_TOUCH_WAIT_MS)
        self._database.close()

    def after_fork(self) -> None:
        """In a forked child: forget what the parent has to tell, and a lock that its threads may hold."""
        self._pending_lock = threading.Lock()
        self._pending = _Pending()

    # -- inside -------------------------------------------------------------------------------------------
    def _read(self, digest: str, accepts: Callable[[str], bool] | None) -> list[tuple[queries.Row, bytes]]:
        pairs: list[tuple[queries.Row, bytes]] = []
        for _ in range(3):
            rows: list[queries.Row] = self._database.run(lambda c: queries.under(c, digest), [])
            wanted = {row.info.id: row for row in rows if accepts is None or accepts(row.info.guards)}
            if not wanted:
                return []
            bodies: dict[int, bytes] = self._database.run(partial(queries.bodies, entries=tuple(wanted)), {})
            pairs = [(wanted[entry], body) for entry, body in bodies.items()]
            if len(pairs) == len(wanted):
                break  # else somebody replaced one of them between the two looks
        return pairs

    def _new_texts(self, key: Key) -> dict[bytes, bytes]:
        """The texts of a key that are not in the database yet, by their digests, as they are stored."""
        known = self._database.run(lambda c: queries.known_texts(c, key), None)
        if known is None:
            return {}
        digests = key.part_digests
        return {digests[name]: pack_text(text) for name, text in key.parts if digests[name] not in known}

    def _flush(self, wait_ms: int) -> None:
        """Write the uses and counts of this process. What cannot be written now is forgotten: they are
        hints."""
        with self._pending_lock:
            pending = self._pending
            uses, counters = pending.uses, pending.counters
            pending.uses, pending.counters = {}, Counter()
        if uses or counters:

            def action(connection: Connection) -> None:
                queries.add_uses(connection, uses)
                queries.count(connection, counters)

            self._database.run(action, None, write=True, wait_ms=wait_ms)

    def _bound(self) -> None:
        """Keep the file within its limit, with some room, so that not every put has to."""
        used, free, pages = self._database.run(queries.space, (0, 0, 0), transaction=False)
        if used > self.limit_bytes:
            room = int(self.limit_bytes * _ROOM)
            self._database.run(lambda c: queries.collect(c, room), Collected(), write=True)
        elif free > max(pages // 4, _VACUUM_PAGES):
            self._database.run(_vacuum_some, None, write=True, transaction=False)

    def _shrink(self) -> None:
        for _ in range(1 + self.limit_bytes // 1_000_000):  # each step is a short write of its own
            before = self._database.run(queries.space, (0, 0, 0), transaction=False)[1]
            if before == 0:
                break
            self._database.run(_vacuum_some, None, write=True, transaction=False)
            if self._database.run(queries.space, (0, 0, 0), transaction=False)[1] >= before:
                break
        self._database.run(_truncate_log, None, write=True, transaction=False)


class _Pending:
    """What this process has to tell the database: uses and counts."""

    def __init__(self) -> None:
        self.uses: dict[int, tuple[int, float]] = {}
        self.counters: Counter[str] = Counter()
        self.stamped: dict[int, float] = {}


def _verified(row: queries.Row, body: bytes) -> bytes | None:
    """The payload, if all that the entry says is what was stored; else None."""
    info = row.info
    with suppress(ValueError, zlib.error, UnicodeError):
        said = (info.key, info.level, info.name, info.kind, info.guards, info.origin, info.nbytes, row.codec)
        if checksum(said, body) == row.checksum:
            return unpack(row.codec, body, info.nbytes)
    return None


def _storable(*texts: str) -> bool:
    """Whether texts can be stored as they are: SQLite takes no lone surrogates."""
    try:
        for text in texts:
            text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _vacuum_some(connection: Connection) -> None:
    # A step of the statement frees one page; only a script is stepped through to its end.
    connection.executescript(f"PRAGMA incremental_vacuum({_VACUUM_PAGES})")


def _truncate_log(connection: Connection) -> None:
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


_STORES: weakref.WeakSet[CacheStore] = weakref.WeakSet()
_shared: dict[Path, CacheStore] = {}
_shared_lock = threading.Lock()


def open_store(config: Config) -> CacheStore | None:
    """The store that these options name, or None if ``config.cache`` is false, or kernels are verified. All
    calls in a process that name the same folder get the same object, with the limit of the latest call."""
    if not config.cache or config.verify:
        return None
    folder = cache_folder(config)
    limit = config.cache_size_mb * 1_000_000
    with _shared_lock:
        store = _shared.get(folder)
        if store is None:
            store = _shared[folder] = CacheStore(folder, limit)
        store.limit_bytes = limit
    return store


def _at_end() -> None:
    for store in list(_STORES):
        store.close()


def _after_fork() -> None:
    global _shared_lock
    _shared_lock = threading.Lock()
    for store in list(_STORES):
        store.after_fork()


at_end(_at_end, last=True)
if hasattr(os, "register_at_fork"):  # there is no fork on Windows
    os.register_at_fork(after_in_child=_after_fork)
