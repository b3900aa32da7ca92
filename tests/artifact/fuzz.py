"""Damaged artefacts: what disks, networks and people do to files, from a seed.

`damaged` breaks the bytes of a container as they are; `forged` breaks what a container says and then writes
every checksum anew, as somebody would who knows the format.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from hashlib import sha256

HEADER, ENTRY = 64, 128


def damaged(data: bytes, count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """``count`` pairs of a description and bytes that differ from ``data``."""
    rng = random.Random(seed)
    for _ in range(count):
        what = rng.choice(_DAMAGES)
        broken = what(data, rng)
        if broken == data:
            broken = _flip(data, rng)
        yield what.__name__.strip("_"), broken


def _flip(data: bytes, rng: random.Random) -> bytes:
    """One bit."""
    at, bit = rng.randrange(len(data)), 1 << rng.randrange(8)
    return data[:at] + bytes([data[at] ^ bit]) + data[at + 1 :]


def _flip_in_head(data: bytes, rng: random.Random) -> bytes:
    """One bit of the header or the table."""
    (count,) = struct.unpack_from("<I", data, 12)
    head = HEADER + ENTRY * count
    return _flip(data[:head], rng) + data[head:]


def _many_flips(data: bytes, rng: random.Random) -> bytes:
    for _ in range(rng.randrange(2, 60)):
        data = _flip(data, rng)
    return data


def _truncated(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data))]


def _longer(data: bytes, rng: random.Random) -> bytes:
    return data + rng.randbytes(rng.randrange(1, 200))


def _zeroed(data: bytes, rng: random.Random) -> bytes:
    """A run of zeros, as a file system leaves behind after a crash."""
    at = rng.randrange(len(data))
    n = min(len(data) - at, rng.choice([1, 16, 512, 4096]))
    return data[:at] + bytes(n) + data[at + n :]


def _noise(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data))
    n = min(len(data) - at, rng.choice([1, 8, 64, 512]))
    return data[:at] + rng.randbytes(n) + data[at + n :]


def _cut_out(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data))
    return data[:at] + data[at + rng.randrange(1, 300) :]


def _doubled(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data))
    return data[:at] + data[at : at + rng.randrange(1, 300)] + data[at:]


def _swapped(data: bytes, rng: random.Random) -> bytes:
    """Two stretches change places."""
    n = rng.choice([1, 8, 64, 128])
    if len(data) < 2 * n:
        return _flip(data, rng)
    a = rng.randrange(len(data) - 2 * n + 1)
    b = rng.randrange(a + n, len(data) - n + 1)
    return data[:a] + data[b : b + n] + data[a + n : b] + data[a : a + n] + data[b + n :]


_DAMAGES = (
    _flip,
    _flip,
    _flip_in_head,
    _many_flips,
    _truncated,
    _longer,
    _zeroed,
    _noise,
    _cut_out,
    _doubled,
    _swapped,
)


def sealed(data: bytes) -> bytes:
    """The same header and table with a header checksum that is right."""
    (count,) = struct.unpack_from("<I", data, 12)
    end = HEADER + ENTRY * min(count, (len(data) - HEADER) // ENTRY)
    checksum = sha256(data[:32] + data[HEADER:end]).digest()
    return data[:32] + checksum + data[HEADER:]


def patched(data: bytes, offset: int, format: str, *values: object) -> bytes:
    """Numbers written over a header or table that is then sealed again."""
    raw = struct.pack(format, *values)
    return sealed(data[:offset] + raw + data[offset + len(raw) :])
