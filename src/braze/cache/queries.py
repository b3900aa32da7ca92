"""The statements on the cache's tables (see `braze.cache.database`). Each function works inside its caller's
transaction.

What cannot have been written by Braze raises `Damage`; SQLite's own errors pass.
"""

from __future__ import annotations

import time
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from braze.cache.database import Damage
from braze.cache.keys import GRAPH, INPUTS, Key
from braze.cache.records import CacheMiss, CacheStatistics, Collected, EntryInfo, pack_text, unpack_text

if TYPE_CHECKING:  # loading it takes 4 ms
    from sqlite3 import Connection

__all__ = [
    "Row",
    "add_miss",
    "add_uses",
    "bodies",
    "clear",
    "collect",
    "count",
    "delete",
    "ensure_key",
    "every",
    "find_key",
    "key_with",
    "known_texts",
    "misses",
    "nearest",
    "replace",
    "space",
    "statistics",
    "under",
]

_INFO: Final = (
    "e.id, k.digest, e.name, e.kind, e.level, e.guards, e.origin, e.created, e.used, e.hits, e.nbytes, "
    "e.stored, e.codec, e.checksum FROM entries e JOIN keys k ON k.id = e.key"
)
_TYPES: Final = (int, str, str, str, int, str, str, float, float, int, int, int, int, bytes)
_END_OF_TIME: Final = 1e11

_WEIGHTS: Final = {GRAPH: 100, INPUTS: 10}
_CANDIDATES: Final = 64
_ALIKE_SECONDS: Final = 0.05
_ALIKE_ENOUGH: Final = 0.5
_NO_DIGITS: Final = str.maketrans("", "", "0123456789")


class Row(msgspec.Struct, frozen=True):
    """An entry as it stands in its table; its payload is in another."""

    info: EntryInfo
    codec: int
    checksum: bytes


def _row(values: Sequence[Any]) -> Row:
    if not all(isinstance(value, kind) for value, kind in zip(values, _TYPES)):
        raise Damage("an entry has a value of another type than its column")
    *info, codec, checksum = values
    row = Row(EntryInfo(*info), codec, checksum)
    if not (0 <= row.info.created < _END_OF_TIME and 0 <= row.info.used < _END_OF_TIME):
        raise Damage("an entry has no valid time")
    return row


def _number(value: object) -> int:
    if not isinstance(value, int):
        raise Damage(f"{value!r} stands where a number should")
    return value


# -- entries ----------------------------------------------------------------------------------------------
def under(connection: Connection, digest: str) -> list[Row]:
    """The entries under a key, the most recently used first."""
    found = connection.execute(
        f"SELECT {_INFO} WHERE k.digest = ? ORDER BY e.used DESC, e.id DESC", (digest,)
    )
    return [_row(values) for values in found]


def every(connection: Connection) -> list[Row]:
    """All entries, the most recently used first."""
    return [_row(values) for values in connection.execute(f"SELECT {_INFO} ORDER BY e.used DESC, e.id DESC")]


def bodies(connection: Connection, entries: Iterable[int]) -> dict[int, bytes]:
    """The stored bytes of those of the entries that are still there, in their order."""
    found: dict[int, bytes] = {}
    for entry in entries:
        row = connection.execute("SELECT body FROM payloads WHERE entry = ?", (entry,)).fetchone()
        if row is not None:
            if not isinstance(row[0], bytes):
                raise Damage("a payload is not of bytes")
            found[entry] = row[0]
    return found


def replace(connection: Connection, row: tuple[Any, ...], stored: bytes, variants: int) -> None:
    """Add an entry in the place of one with the same key, level and guards. ``row`` has the values of the
    table's columns after the first. At most ``variants`` entries stay under the key."""
    key, _, _, level, guards, *_ = row
    connection.execute("DELETE FROM entries WHERE key = ? AND level = ? AND guards = ?", (key, level, guards))
    marks = ", ".join("?" * len(row))
    added = connection.execute(f"INSERT INTO entries VALUES (NULL, {marks})", row)
    connection.execute("INSERT INTO payloads VALUES (?, ?)", (added.lastrowid, stored))
    connection.execute(
        "DELETE FROM entries WHERE key = ? AND id NOT IN"
        " (SELECT id FROM entries WHERE key = ? ORDER BY used DESC, id DESC LIMIT ?)",
        (key, key, variants),
    )


def add_uses(connection: Connection, uses: Mapping[int, tuple[int, float]]) -> None:
    """Add hits, and set the time of the last use, by entry."""
    connection.executemany(
        "UPDATE entries SET hits = hits + ?, used = MAX(used, ?) WHERE id = ?",
        [(hits, used, entry) for entry, (hits, used) in uses.items()],
    )


def count(connection: Connection, changes: Mapping[str, int]) -> None:
    """Add to counters."""
    connection.executemany(
        "INSERT INTO counters VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = value + excluded.value",
        list(changes.items()),
    )


def delete(connection: Connection, entries: Iterable[int]) -> int:
    """Delete entries and what only they refer to; how many there were."""
    deleted = connection.executemany("DELETE FROM entries WHERE id = ?", [(entry,) for entry in entries])
    _tidy(connection)
    return max(deleted.rowcount, 0)


def _tidy(connection: Connection) -> None:
    """Delete keys that neither an entry nor a miss refers to, and texts of no key."""
    connection.execute(
        "DELETE FROM keys WHERE id NOT IN (SELECT key FROM entries) AND id NOT IN (SELECT key FROM misses)"
        " AND id NOT IN (SELECT nearest FROM misses WHERE nearest IS NOT NULL)"
    )
    connection.execute("DELETE FROM texts WHERE id NOT IN (SELECT text FROM parts)")


# -- sizes ------------------------------------------------------------------------------------------------
def space(connection: Connection) -> tuple[int, int, int]:
    """Bytes of the file that are in use, its free pages, and all its pages."""
    pages, free, size = (
        _number(connection.execute(f"PRAGMA {pragma}").fetchone()[0])
        for pragma in ("page_count", "freelist_count", "page_size")
    )
    return (pages - free) * size, free, pages


def collect(connection: Connection, limit: int) -> Collected:
    """Delete what was used least recently until at most ``limit`` bytes are in use, or nothing is left."""
    before = used = space(connection)[0]
    _tidy(connection)
    used, gone = space(connection)[0], 0
    while used > limit:
        doomed, freed = [], 0
        for entry, stored in connection.execute("SELECT id, stored FROM entries ORDER BY used, id"):
            if freed >= used - limit:
                break
            doomed.append(_number(entry))
            freed += _number(stored)
        if not doomed:
            break
        gone += delete(connection, doomed)
        used = space(connection)[0]
    count(connection, {"evicted": gone})
    return Collected(gone, before - used)


def clear(connection: Connection) -> Collected:
    """Delete everything."""
    before = space(connection)[0]
    (entries,) = connection.execute("SELECT COUNT(*) FROM entries").fetchone()
    for table in ("misses", "payloads", "entries", "parts", "keys", "texts", "counters"):
        connection.execute(f"DELETE FROM {table}")
    return Collected(_number(entries), before - space(connection)[0])


def statistics(connection: Connection, file_bytes: int, limit_bytes: int) -> CacheStatistics:
    """Figures of the whole cache; those of its files are given."""
    entries, nbytes, stored = connection.execute(
        "SELECT COUNT(*), COALESCE(SUM(nbytes), 0), COALESCE(SUM(stored), 0) FROM entries"
    ).fetchone()
    (keys,) = connection.execute("SELECT COUNT(DISTINCT key) FROM entries").fetchone()
    counters = dict(connection.execute("SELECT name, value FROM counters"))
    return CacheStatistics(
        entries=_number(entries),
        keys=_number(keys),
        nbytes=_number(nbytes),
        stored=_number(stored),
        file_bytes=file_bytes,
        limit_bytes=limit_bytes,
        levels=dict(connection.execute("SELECT level, COUNT(*) FROM entries GROUP BY level ORDER BY level")),
        origins=dict(
            connection.execute("SELECT origin, COUNT(*) FROM entries GROUP BY origin ORDER BY origin")
        ),
        **{name: _number(counters.get(name, 0)) for name in ("hits", "misses", "puts", "evicted", "damaged")},
    )


# -- keys -------------------------------------------------------------------------------------------------
def find_key(connection: Connection, digest: str) -> int | None:
    """The number of the key with this digest."""
    found = connection.execute("SELECT id FROM keys WHERE digest = ?", (digest,)).fetchone()
    return None if found is None else _number(found[0])


def known_texts(connection: Connection, key: Key) -> set[bytes]:
    """Which of the digests of a key's parts are those of stored texts."""
    return {
        digest
        for digest in key.part_digests.values()
        if connection.execute("SELECT 1 FROM texts WHERE digest = ?", (digest,)).fetchone()
    }


def ensure_key(connection: Connection, key: Key, texts: Mapping[bytes, bytes]) -> int:
    """The number of a key, which is added if it is not there; ``texts`` are packed texts by their digests."""
    known = find_key(connection, key.digest)
    if known is not None:
        return known
    added = connection.execute("INSERT INTO keys VALUES (NULL, ?)", (key.digest,)).lastrowid
    for position, (name, text) in enumerate(key.parts):
        digest = key.part_digests[name]
        found = connection.execute("SELECT id FROM texts WHERE digest = ?", (digest,)).fetchone()
        if found is None:  # a text that was known a moment ago may have been deleted since
            packed = texts.get(digest) or pack_text(text)
            number = connection.execute("INSERT INTO texts VALUES (NULL, ?, ?)", (digest, packed)).lastrowid
        else:
            number = found[0]
        connection.execute("INSERT INTO parts VALUES (?, ?, ?, ?)", (added, position, name, number))
    return _number(added)


def key_with(connection: Connection, digest: str) -> Key | None:
    """The key with this digest, or None if it is not there or its texts are damaged."""
    number = find_key(connection, digest)
    return None if number is None else _key(connection, number)


def _key(connection: Connection, number: int) -> Key | None:
    """The key with this number, if its parts are those that its digest was made of."""
    stated = connection.execute("SELECT digest FROM keys WHERE id = ?", (number,)).fetchone()
    parts = connection.execute(
        "SELECT p.name, t.body FROM parts p JOIN texts t ON t.id = p.text WHERE p.key = ?"
        " ORDER BY p.position",
        (number,),
    ).fetchall()
    try:
        key = Key(tuple((str(name), unpack_text(packed)) for name, packed in parts))
    except (TypeError, ValueError, zlib.error):
        return None
    return key if stated == (key.digest,) else None


# -- misses -----------------------------------------------------------------------------------------------
def add_miss(connection: Connection, row: tuple[float, str, int, int, int | None], kept: int) -> None:
    """Add a miss (time, name, level, key, nearest key) and forget all but the last ``kept``."""
    connection.execute("INSERT INTO misses VALUES (NULL, ?, ?, ?, ?, ?)", row)
    connection.execute(
        "DELETE FROM misses WHERE id NOT IN (SELECT id FROM misses ORDER BY id DESC LIMIT ?)", (kept,)
    )


def misses(connection: Connection) -> tuple[CacheMiss, ...]:
    """The last misses, the latest first; those whose key is damaged are left out."""
    found = []
    rows = connection.execute(
        "SELECT time, name, level, key, nearest FROM misses ORDER BY id DESC"
    ).fetchall()
    for when, name, level, number, nearest_number in rows:
        key = _key(connection, number)
        if key is not None and isinstance(when, float) and 0 <= when < _END_OF_TIME:
            near = None if nearest_number is None else _key(connection, nearest_number)
            found.append(CacheMiss(when, str(name), _number(level), key, near))
    return tuple(found)


def nearest(connection: Connection, key: Key) -> tuple[EntryInfo, Key] | None:
    """The entry whose key shares most with this one (see `CacheStore.nearest`)."""
    wanted = key.part_digests
    numbers = _with_entries_sharing(connection, GRAPH, wanted.get(GRAPH))
    same_graph = bool(numbers)
    if not same_graph:
        recent = connection.execute("SELECT key FROM entries ORDER BY used DESC LIMIT ?", (_CANDIDATES,))
        numbers = _with_entries_sharing(connection, INPUTS, wanted.get(INPUTS)) + [n for (n,) in recent]
    scored = []
    for number in dict.fromkeys(numbers):
        parts = connection.execute(
            "SELECT p.name, t.digest FROM parts p JOIN texts t ON t.id = p.text WHERE p.key = ?", (number,)
        )
        shared = sum(_WEIGHTS.get(name, 1) for name, digest in parts if wanted.get(name) == digest)
        scored.append((shared, number))
    scored.sort(key=lambda pair: -pair[0])  # stable: of equals, the newest stays first
    best = _key(connection, scored[0][1]) if same_graph else _alike(connection, key, scored)
    if best is None:
        return None
    entries = under(connection, best.digest)
    return (entries[0].info, best) if entries else None


def _with_entries_sharing(connection: Connection, name: str, digest: bytes | None) -> list[int]:
    """The keys, the newest first, that have entries and this text as their part of that name."""
    found = connection.execute(
        "SELECT p.key FROM parts p JOIN texts t ON t.id = p.text WHERE t.digest = ? AND p.name = ?"
        " AND EXISTS (SELECT 1 FROM entries e WHERE e.key = p.key) ORDER BY p.key DESC LIMIT ?",
        (digest, name, _CANDIDATES),
    )
    return [number for (number,) in found]


def _alike(connection: Connection, key: Key, scored: list[tuple[int, int]]) -> Key | None:
    """The key whose graph has the largest share of its lines in common with this one's, numbers left aside,
    since a line more changes the numbers of all that follow."""
    text = key.text(GRAPH)
    if text is None:
        return None
    lines, whole = _without_numbers(text), Counter(text.splitlines())
    best, most = None, (_ALIKE_ENOUGH, 0.0)
    until = time.monotonic() + _ALIKE_SECONDS
    for _, number in scored:
        other = _key(connection, number)
        theirs = None if other is None else other.text(GRAPH)
        if theirs is not None:
            their_lines = _without_numbers(theirs)
            common = sum((lines & their_lines).values())
            same = sum((whole & Counter(theirs.splitlines())).values())
            longer = max(lines.total(), their_lines.total(), 1)
            share = (common / longer, same / longer)  # of graphs of one shape, the one with the same numbers
            if share >= most and (best is None or share > most):
                best, most = other, share
        if time.monotonic() > until:
            break
    return best


def _without_numbers(text: str) -> Counter[str]:
    return Counter(text.translate(_NO_DIGITS).splitlines())
