"""The binary file of an artefact: named sections of bytes, each with its checksum.

A header of 64 bytes, a table of 128 bytes for each section, then the sections, each at a multiple of 64
bytes; all numbers little endian::

    header    0  magic          8 bytes   93 42 52 41 5a 45 0d 0a  ("\\x93BRAZE\\r\\n")
              8  version        u16       1
             10  flags          u16       0
             12  sections       u32       how many
             16  length         u64       of the whole file
             24  reserved       8 bytes   0
             32  checksum       32 bytes  SHA-256 of header bytes 0 to 31 and the table
    entry     0  name           56 bytes  ASCII, filled up with zeros
             56  offset         u64       of the stored bytes, from the beginning of the file
             64  stored length  u64
             72  length         u64       of the section itself
             80  encoding       u16       0: as it is, 1: zlib
             82  reserved       14 bytes  0
             96  checksum       32 bytes  SHA-256 of the stored bytes

One set of sections has one form: entries are sorted by name, sections follow each other in that order with
as little padding as alignment takes, padding is zero, and nothing follows the last. So every bit of a file is
held by a checksum or by a rule, and the header's checksum stands for the whole content.
`docs/artifact-format.md` says the same at more length.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from braze.errors import ArtifactError

__all__ = ["ALIGNMENT", "MAGIC", "VERSION", "digest", "pack", "unpack"]

MAGIC: Final = b"\x93BRAZE\r\n"
VERSION: Final = 1
ALIGNMENT: Final = 64
"""What the offset of every section is a multiple of, in bytes."""

MAX_SECTIONS: Final = 4096
MAX_INFLATED: Final = 1 << 28
"""Bytes that one compressed section, and MAX_INFLATED_TOTAL all of a file, may have."""
MAX_INFLATED_TOTAL: Final = 1 << 30
MAX_RATIO: Final = 1032
"""The most that deflate can make of a byte (RFC 1951: a 258-byte match in two bits)."""

_HEADER: Final = struct.Struct("<8sHHIQ8s32s")
_ENTRY: Final = struct.Struct("<56sQQQH14s32s")
_CHECKED: Final = 32
"""Bytes of the header before its checksum."""
_RAW: Final = 0
_ZLIB: Final = 1
_NAME: Final = re.compile(r"[a-z][a-z0-9_.-]*(/[a-z0-9_][a-z0-9_.-]*)*", re.ASCII)


@dataclass(frozen=True)
class _Entry:
    name: str
    offset: int
    stored: int
    length: int
    encoding: int
    checksum: bytes


def _aligned(offset: int) -> int:
    return -(-offset // ALIGNMENT) * ALIGNMENT


def _is_name(name: str) -> bool:
    return 0 < len(name) <= 56 and _NAME.fullmatch(name) is not None


def pack(sections: Mapping[str, bytes], *, compress: Collection[str] = ()) -> bytes:
    """The file that holds ``sections``; the order of the mapping does not matter.

    Args:
        sections: contents by name: at most 56 of ``a-z 0-9 _ . - /``, each part beginning with a letter,
            digit or ``_``, the first with a letter.
        compress: names of sections that are compressed, where that makes them smaller.

    Equal sections give equal bytes (compressed ones where zlib is the same). Raises `ArtifactError` for a
    name that is none, or too many or too large sections.
    """
    if len(sections) > MAX_SECTIONS:
        raise ArtifactError(f"{len(sections)} sections are more than {MAX_SECTIONS}")
    table: list[bytes] = []
    parts: list[bytes] = []
    end = _HEADER.size + _ENTRY.size * len(sections)
    inflated = 0
    for name in sorted(sections):
        if not _is_name(name):
            raise ArtifactError(f"{name!r} is not the name of a section")
        content = data = sections[name]
        encoding = _RAW
        if name in compress and len(content) <= MAX_INFLATED:
            packed = zlib.compress(content, 6)
            if len(packed) < len(content) and inflated + len(content) <= MAX_INFLATED_TOTAL:
                data, encoding = packed, _ZLIB
                inflated += len(content)
        offset = _aligned(end)
        checksum = sha256(data).digest()
        entry = (name.encode(), offset, len(data), len(content), encoding, bytes(14), checksum)
        table.append(_ENTRY.pack(*entry))
        parts += [bytes(offset - end), data]
        end = offset + len(data)
    entries = b"".join(table)
    header = _HEADER.pack(MAGIC, VERSION, 0, len(sections), end, bytes(8), bytes(32))[:_CHECKED]
    return b"".join([header, sha256(header + entries).digest(), entries, *parts])


def unpack(data: bytes | bytearray | memoryview) -> dict[str, memoryview]:
    """The sections of a file, by name: views of ``data`` where they are not compressed.

    Everything is checked before anything is returned: magic and version, every number of the table, padding,
    every checksum, and that compressed sections have the length that the table says. Raises `ArtifactError`.
    """
    view = memoryview(data).cast("B").toreadonly()
    found: dict[str, memoryview] = {}
    entries = _table(view)
    for entry in entries:  # all checksums before the first byte reaches zlib
        stored = view[entry.offset : entry.offset + entry.stored]
        if sha256(stored).digest() != entry.checksum:
            raise _bad("its checksum is another", entry.name)
        found[entry.name] = stored
    for entry in entries:
        if entry.encoding == _ZLIB:
            found[entry.name] = _inflate(entry, found[entry.name])
    return found


def digest(data: bytes | bytearray | memoryview) -> bytes:
    """32 bytes that stand for the whole content of a file that `unpack` accepts: its header's checksum, which
    covers the checksum of every section. Raises `ArtifactError` where there is no intact header and table.
    """
    view = memoryview(data).cast("B")
    _table(view)
    return bytes(view[_CHECKED : _HEADER.size])


def _bad(what: str, section: str | None = None) -> ArtifactError:
    where = "header" if section is None else f"section {section!r}"
    return ArtifactError(f"the artefact is damaged: {what}", where=where)


def _table(view: memoryview) -> list[_Entry]:
    """The header and the table, and that the sections tile the file."""
    if len(view) < _HEADER.size:
        raise _bad(f"{len(view)} bytes are not a header")
    magic, version, flags, count, length, reserved, checksum = _HEADER.unpack_from(view)
    if magic != MAGIC:
        raise ArtifactError("these bytes are not an artefact of Braze: they begin otherwise")
    if version != VERSION:
        raise ArtifactError(
            f"the artefact has format {version}, and this Braze reads format {VERSION}",
            hint="compile it again, or use the Braze that made it",
        )
    if flags or any(reserved):
        raise _bad("reserved bytes are set")
    if count > MAX_SECTIONS:
        raise _bad(f"{count} sections are more than {MAX_SECTIONS}")
    if length != len(view):
        raise _bad(f"{len(view)} bytes of {length} are there")
    end = _HEADER.size + _ENTRY.size * count
    if end > len(view):
        raise _bad(f"{len(view)} bytes cannot hold {count} sections")
    summed = sha256(view[:_CHECKED])
    summed.update(view[_HEADER.size : end])
    if summed.digest() != checksum:
        raise _bad("the header's checksum is another")
    entries: list[_Entry] = []
    inflated = 0
    for position in range(count):
        entry = _entry(view, _HEADER.size + _ENTRY.size * position)
        if entries and entry.name <= entries[-1].name:
            raise _bad("sections are not in order, or there twice", entry.name)
        begin = _aligned(end)
        if entry.offset != begin or entry.offset + entry.stored > length:
            raise _bad(f"it cannot be {entry.stored} bytes at {entry.offset}", entry.name)
        if any(view[end:begin]):
            raise _bad("the padding before it is not zero", entry.name)
        if entry.encoding == _ZLIB:
            inflated += entry.length
        end = begin + entry.stored
        entries.append(entry)
    if end != length:
        raise _bad(f"{length - end} bytes follow the last section")
    if inflated > MAX_INFLATED_TOTAL:
        raise _bad(f"its sections would take {inflated} bytes")
    return entries


def _entry(view: memoryview, at: int) -> _Entry:
    """One row of the table."""
    padded, offset, stored, length, encoding, reserved, checksum = _ENTRY.unpack_from(view, at)
    raw: bytes = padded.rstrip(b"\0")
    name = raw.decode("ascii", "replace")
    if not _is_name(name):
        raise _bad(f"{raw!r} is not the name of a section")
    if any(reserved):
        raise _bad("reserved bytes are set", name)
    if encoding not in (_RAW, _ZLIB):
        raise _bad(f"there is no encoding {encoding}", name)
    if encoding == _RAW and stored != length:
        raise _bad(f"{stored} bytes are stored of {length}", name)
    if encoding == _ZLIB and not stored < length <= min(MAX_INFLATED, MAX_RATIO * stored):
        raise _bad(f"{stored} bytes cannot be {length} compressed ones", name)
    return _Entry(name, offset, stored, length, encoding, checksum)


def _inflate(entry: _Entry, stored: memoryview) -> memoryview:
    """A compressed section; memory for what the table says, and no more."""
    stream = zlib.decompressobj()
    try:
        content = stream.decompress(stored, entry.length + 1)
        if not stream.eof:  # all bytes can be out before the stream's own end has been read
            content += stream.decompress(stream.unconsumed_tail, 1)
    except zlib.error as error:
        raise _bad(f"it cannot be decompressed: {error}", entry.name) from error
    if len(content) != entry.length or not stream.eof or stream.unused_data:
        raise _bad(f"it is not {entry.length} bytes when decompressed", entry.name)
    return memoryview(content)
