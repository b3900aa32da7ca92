"""The zip file of a package: members that are stored as they are, each at a multiple of 64 bytes, so that the
file can be mapped and a member used where it lies.

Any tool that reads zip files reads these (APPNOTE.TXT 6.3, by PKWARE; zip64 records only where 32 bits do not
suffice). What is read here is only what is written here: one sequence of names, sizes and checksums has one
form, byte for byte, so that no bit of the file's structure can be another, and names that climb out of a
folder, members that overlap, and sizes that are not there cannot be told.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import BinaryIO, Final, TypeAlias

from braze.errors import ArtifactError

__all__ = ["ALIGNMENT", "Buffer", "Member", "check_name", "read_archive", "write_archive"]

Buffer: TypeAlias = "bytes | bytearray | memoryview"

ALIGNMENT: Final = 64
"""What the offset of every member is a multiple of, in bytes."""
MAX_MEMBERS: Final = 4096

_LOCAL: Final = struct.Struct("<4s5H3I2H")
_CENTRAL: Final = struct.Struct("<4s6H3I5H2I")
_END: Final = struct.Struct("<4s4H2IH")
_END64: Final = struct.Struct("<4sQ2H2I4Q")
_LOCATOR: Final = struct.Struct("<4sIQI")
_DATE: Final = 0x21  # 1 January 1980: what is packed twice is the same
_MODE: Final = 0o100644 << 16
_FULL: Final = 0xFFFFFFFF
_PADDING: Final = 0x4246  # the extra field that PyTorch pads with
_NAME: Final = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_.@+=-]*(/[A-Za-z0-9_.][A-Za-z0-9_.@+=-]*)*", re.ASCII)


@dataclass(frozen=True)
class Member:
    """One file in the archive: its name, size and CRC-32, and where its first byte lies."""

    name: str
    size: int
    crc: int
    offset: int = 0


def check_name(name: str) -> None:
    """Raise `ArtifactError` unless this is a relative path of plain ASCII that stays where it is put."""
    if len(name) > 512 or not _NAME.fullmatch(name) or any(set(part) == {"."} for part in name.split("/")):
        raise ArtifactError(f"{name[:80]!r} is not a name for a file of a package")


def write_archive(file: BinaryIO, members: Mapping[str, Sequence[Buffer]]) -> list[Member]:
    """Write an archive; each member is the concatenation of its buffers. Returns the members, placed.

    Raises `ArtifactError` for a bad name, and `OSError`.
    """
    unplaced = []
    for name, parts in members.items():
        check_name(name)
        crc = 0
        for part in parts:
            crc = zlib.crc32(part, crc)
        unplaced.append(Member(name, sum(memoryview(p).nbytes for p in parts), crc))
    placed = []
    for (header, member), parts in zip(_locals(unplaced), members.values(), strict=True):
        file.write(header)
        for part in parts:
            file.write(part)
        placed.append(member)
    file.write(_tail(placed))
    return placed


def read_archive(data: memoryview) -> dict[str, Member]:
    """The members of an archive that `write_archive` wrote, in order. Their contents are not looked at.

    Raises `ArtifactError` for anything else, other zip files among them.
    """
    try:
        claimed = list(_central(data))
    except struct.error as error:
        raise _damaged(f"it is cut short ({error})") from error
    end = 0
    placed: list[Member] = []
    names: set[str] = set()
    for header, member in _locals(claimed):
        check_name(member.name)
        if member.name in names:
            raise _damaged(f"{member.name!r} is there twice")
        names.add(member.name)
        if member.offset + member.size > len(data) or bytes(data[end : end + len(header)]) != header:
            raise _damaged(f"{member.name!r} is not where it should be")
        end = member.offset + member.size
        placed.append(member)
    if bytes(data[end:]) != _tail(placed):
        raise _damaged("its directory is not the one of its members")
    return {member.name: member for member in placed}


def _damaged(what: str) -> ArtifactError:
    return ArtifactError(f"this is not a package, or a damaged one: {what}")


# -- the one form -----------------------------------------------------------------------------------------
def _locals(members: Sequence[Member]) -> Iterator[tuple[bytes, Member]]:
    """The header before each member, and the member where it then lies."""
    at = 0
    for member in members:
        name = member.name.encode()
        big = member.size >= _FULL
        extra = struct.pack("<HHQQ", 1, 16, member.size, member.size) if big else b""
        begin = at + _LOCAL.size + len(name) + len(extra) + 4
        padding = -begin % ALIGNMENT
        extra += struct.pack("<HH", _PADDING, padding) + bytes(padding)
        size = _FULL if big else member.size
        fixed = (b"PK\3\4", 45 if big else 20, 0, 0, 0, _DATE, member.crc, size, size, len(name), len(extra))
        at = begin + padding + member.size
        yield (
            _LOCAL.pack(*fixed) + name + extra,
            Member(member.name, member.size, member.crc, begin + padding),
        )


def _tail(members: Sequence[Member]) -> bytes:
    """The directory of placed members, and the end of the file."""
    parts: list[bytes] = []
    begin = members[-1].offset + members[-1].size if members else 0
    at = 0
    for member in members:
        name = member.name.encode()
        start, at = at, member.offset + member.size
        big, far = member.size >= _FULL, start >= _FULL
        wide = struct.pack("<QQ", member.size, member.size) if big else b""
        wide += struct.pack("<Q", start) if far else b""
        extra = struct.pack("<HH", 1, len(wide)) + wide if wide else b""
        version = 45 if big or far else 20
        size = _FULL if big else member.size
        sizes = (member.crc, size, size, len(name), len(extra), 0, 0, 0)
        offset = _FULL if far else start
        parts.append(
            _CENTRAL.pack(b"PK\1\2", 0x300 | version, version, 0, 0, 0, _DATE, *sizes, _MODE, offset)
        )
        parts += [name, extra]
    length = sum(map(len, parts))
    count = len(members)
    if begin >= _FULL:
        wide_end = (b"PK\6\6", _END64.size - 12, 0x32D, 45, 0, 0, count, count, length, begin)
        parts += [_END64.pack(*wide_end), _LOCATOR.pack(b"PK\6\7", 0, begin + length, 1)]
    parts.append(_END.pack(b"PK\5\6", 0, 0, count, count, length, min(begin, _FULL), 0))
    return b"".join(parts)


def _central(data: memoryview) -> Iterator[Member]:
    """What the directory claims. Only names, sizes and checksums are taken from it: the rest follows."""
    end = len(data) - _END.size
    if end < 0 or bytes(data[end : end + 4]) != b"PK\5\6":
        raise _damaged("it does not end as a zip file without a comment does")
    _, _, _, count, _, length, begin, _ = _END.unpack_from(data, end)
    if begin == _FULL:
        *_, length, begin = _END64.unpack_from(data, max(0, end - _LOCATOR.size - _END64.size))
    if count > MAX_MEMBERS or begin + length > len(data):
        raise _damaged(f"a directory of {count} files at byte {begin} cannot be in {len(data)} bytes")
    for _ in range(count):
        fields = _CENTRAL.unpack_from(data, begin)
        crc, size, name_length, extra_length = fields[7], fields[9], fields[10], fields[11]
        begin += _CENTRAL.size
        name = bytes(data[begin : begin + name_length])
        if size == _FULL:
            (size,) = struct.unpack_from("<Q", data, begin + name_length + 4)
        if size > len(data):
            raise _damaged(f"a file of {size} bytes cannot be in {len(data)}")
        yield Member(name.decode("ascii", "replace"), size, crc)
        begin += name_length + extra_length
