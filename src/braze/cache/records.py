"""What the cache holds, as records: entries with their checksums, misses, and figures."""

from __future__ import annotations

import hashlib
import zlib
from typing import Final

import msgspec

from braze.cache.keys import Key

__all__ = [
    "CacheEntry",
    "CacheMiss",
    "CacheStatistics",
    "Collected",
    "EntryInfo",
    "checksum",
    "pack",
    "pack_text",
    "unpack",
    "unpack_text",
]

_LEVEL: Final = 1  # zlib's fastest: object code shrinks to half at 100 MB/s, and opens at 400
_WORTH: Final = 0.9
RAW: Final = 0
ZLIB: Final = 1


class EntryInfo(msgspec.Struct, frozen=True):
    """One stored artefact, without its bytes.

    ``key`` is the digest of its `Key`; under one key there are several entries with different ``guards``.
    ``level`` is 1 for a graph of ATen operators, 2 for a graph as Dynamo hands it over. ``origin`` is
    ``local`` or the id of the key that signed it. ``created`` and ``used`` are seconds since 1970,
    ``nbytes`` is the size of the payload and ``stored`` what it takes in the file.
    """

    id: int
    key: str
    name: str
    kind: str
    level: int
    guards: str
    origin: str
    created: float
    used: float
    hits: int
    nbytes: int
    stored: int


class CacheEntry(EntryInfo, frozen=True):
    """An artefact with its bytes, which are those that were put under this key with these guards."""

    payload: bytes


class CacheMiss(msgspec.Struct, frozen=True):
    """A key that was looked for and not found, at ``time`` (seconds since 1970), and what was nearest."""

    time: float
    name: str
    level: int
    key: Key
    nearest: Key | None


class CacheStatistics(msgspec.Struct, frozen=True):
    """Figures of a cache: sizes in bytes, counts over its whole life."""

    entries: int = 0
    keys: int = 0
    nbytes: int = 0
    stored: int = 0
    file_bytes: int = 0
    limit_bytes: int = 0
    hits: int = 0
    misses: int = 0
    puts: int = 0
    evicted: int = 0
    damaged: int = 0
    levels: dict[int, int] = {}
    origins: dict[str, int] = {}


class Collected(msgspec.Struct, frozen=True):
    """What was thrown out: how many entries, and by how many bytes the file in use shrank."""

    entries: int = 0
    nbytes: int = 0


def checksum(fields: tuple[str | int, ...], body: bytes) -> bytes:
    """SHA-256 over what an entry says, the key that it says it for among it, each field with its length, so
    that neither a changed byte nor an entry moved under another key or other guards goes unseen."""
    whole = hashlib.sha256(b"braze entry 1\n")
    for value in fields:
        field = str(value).encode()
        whole.update(len(field).to_bytes(8, "little"))
        whole.update(field)
    whole.update(body)
    return whole.digest()


def pack(payload: bytes) -> tuple[int, bytes]:
    """The payload as it is stored, and how: `ZLIB`, or `RAW` where compression gains next to nothing."""
    packed = zlib.compress(payload, _LEVEL)
    return (ZLIB, packed) if len(packed) < _WORTH * len(payload) else (RAW, payload)


def unpack(codec: int, body: bytes, nbytes: int) -> bytes:
    """The reverse of `pack`. Raises `ValueError` or `zlib.error` unless it gives exactly ``nbytes`` bytes."""
    if codec == RAW:
        payload = body
    elif codec == ZLIB:
        payload = zlib.decompressobj().decompress(body, nbytes + 1)
    else:
        raise ValueError(f"an entry is packed in an unknown way ({codec})")
    if len(payload) != nbytes:
        raise ValueError(f"an entry has {len(payload)} bytes where it says {nbytes}")
    return payload


def pack_text(text: str) -> bytes:
    """A part's text as it is stored."""
    return zlib.compress(text.encode("utf-8", "surrogatepass"), _LEVEL)


def unpack_text(body: bytes) -> str:
    """The reverse of `pack_text`. Raises `ValueError` or `zlib.error`."""
    return zlib.decompress(body).decode("utf-8", "surrogatepass")
