"""Messages between the pool and its compile workers: frames on a pair of pipes, checked as they arrive.

A frame is a header, a short head (text) and a body (bytes), all little endian::

    4 bytes   "BzW1"
    uint8     kind, one of `Kind`; three bytes of zeros
    uint64    number of the job
    uint64    length of the head, at most `MAX_HEAD`
    uint64    length of the body
    uint32    CRC-32 of head and body
    uint32    CRC-32 of the header up to here

What breaks any of this raises `FrameError`: nothing after it on that pipe can be trusted.
"""

from __future__ import annotations

import enum
import struct
import zlib
from dataclasses import dataclass

__all__ = ["MAX_BODY", "MAX_HEAD", "Frame", "FrameError", "FrameReader", "Kind", "pack"]

MAX_HEAD = 1 << 20
MAX_BODY = 1 << 31

_MAGIC = b"BzW1"
_FIELDS = struct.Struct("<4sB3xQQQI")
_CRC = struct.Struct("<I")
_HEADER_SIZE = _FIELDS.size + _CRC.size


class FrameError(ValueError):
    """The bytes on a pipe are no frame."""


class Kind(enum.IntEnum):
    """What a frame is. To a worker: SETUP, JOB. From a worker: HELLO, then for each job ANSWER, or RAISED, or
    REFUSED where it knows no job of that name."""

    SETUP = 1
    JOB = 2
    HELLO = 3
    ANSWER = 4
    RAISED = 5
    REFUSED = 6


@dataclass(frozen=True)
class Frame:
    """One message. ``head``: a job's name, or an error's words; ``body``: the job's bytes."""

    kind: Kind
    number: int
    head: str
    body: bytes


def pack(kind: Kind, number: int = 0, head: str = "", body: bytes = b"") -> bytes:
    """The bytes of one frame; a head that is too long is cut."""
    text = head.encode()[:MAX_HEAD]
    fields = _FIELDS.pack(_MAGIC, kind, number, len(text), len(body), zlib.crc32(body, zlib.crc32(text)))
    return b"".join([fields, _CRC.pack(zlib.crc32(fields)), text, body])


class FrameReader:
    """Takes bytes as they arrive and gives back whole frames. A body may have ``max_body`` bytes."""

    def __init__(self, max_body: int = MAX_BODY) -> None:
        self._max_body = max_body
        self._data = bytearray()

    def feed(self, data: bytes) -> list[Frame]:
        """Add ``data``; the frames that are complete now, in order. Raises `FrameError`."""
        self._data += data
        frames = []
        while (frame := self._next()) is not None:
            frames.append(frame)
        return frames

    def _next(self) -> Frame | None:
        if len(self._data) < _HEADER_SIZE:
            if not self._data.startswith(_MAGIC[: len(self._data)]):
                raise FrameError(f"{bytes(self._data)!r} begins no frame")
            return None
        magic, kind, number, head_size, body_size, crc = _FIELDS.unpack_from(self._data)
        (header_crc,) = _CRC.unpack_from(self._data, _FIELDS.size)
        if magic != _MAGIC or zlib.crc32(bytes(self._data[: _FIELDS.size])) != header_crc:
            raise FrameError(f"{bytes(self._data[:16])!r}... begins no frame")
        if head_size > MAX_HEAD or body_size > self._max_body:
            raise FrameError(f"a frame of {head_size + body_size} bytes is larger than agreed")
        end = _HEADER_SIZE + head_size + body_size
        if len(self._data) < end:
            return None
        with memoryview(self._data) as view:
            head = bytes(view[_HEADER_SIZE : _HEADER_SIZE + head_size])
            body = bytes(view[_HEADER_SIZE + head_size : end])
        if zlib.crc32(body, zlib.crc32(head)) != crc:
            raise FrameError(f"a frame of {head_size + body_size} bytes has another checksum than it states")
        del self._data[:end]
        try:
            return Frame(Kind(kind), number, head.decode(), body)
        except ValueError as error:
            raise FrameError(f"no frame: {error}") from error
