"""Damaged artefacts: what disks, networks and people do to files, from a seed.

`damaged` breaks the bytes of a container as they are; `forged` breaks what a container says and then writes
every checksum anew, as somebody would who knows the format.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from hashlib import sha256
from typing import Any

import msgspec

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


# -- metadata -----------------------------------------------------------------------------------------------
CANARY = "__import__('tests.artifact.fuzz').artifact.fuzz.burnt.append(1)"
"""Python that leaves a trace where it is run; `burnt` holds the traces."""
burnt: list[int] = []

_EXPRESSIONS = [
    *["", "s0", "-1", "4*s77", "s77//0", "s77 % 0", "s77**9", "min()", "max(1)", "1.5", "True", "()", "x.y"],
    *["9" * 19, "9" * 5000, "(" * 300 + "1" + ")" * 300, "-" * 3000 + "1", "1" + "+1" * 3000, "s77\0", "é"],
    *["s77*" * 200 + "1", "9223372036854775807", "-9223372036854775808", CANARY, f"[{CANARY}]", "lambda: 1"],
    *["s77 >= 0", "not s77", "s77 == 3 and s27 != 4", "1 < 2 < 3", "_known", "arg2_1", "workspace"],
]
_TEXTS = [
    *["", "class", "args", "_code", "max", "None", "arg2_1", "s77", "buf3", "workspace", "a\0b", "é", "ﬁ"],
    *["x" * 20_000, CANARY, f"x = {CANARY}", f"a); {CANARY} #", f"'''{CANARY}'''", "a\n    pass", "%s{0}"],
    *["cuda:99999", "meta", "float32", "python::call0", "aten::mm", "aten::relu_", "load_library::__call__"],
    *["aten::mm.out.x", "os::system", "../../etc", "seg0", "seg1", "free", "run_segment", "inference"],
]
_NUMBERS = [0, 1, -1, 2, 63, 64, 255, 1 << 31, (1 << 63) - 1, -(1 << 63), (1 << 64) - 1]
_OTHERS: list[object] = [None, True, False, 1.5, float("nan"), float("inf"), b"", b"\x80\x04.", [], [[]], {}]


def _hostile(rng: random.Random) -> object:
    """A value that has no business anywhere."""
    kind = rng.randrange(6)
    if kind == 0:
        return rng.choice(_NUMBERS)
    if kind == 1:
        return rng.choice(_TEXTS)
    if kind == 2:
        return rng.choice(_OTHERS)
    if kind == 3:
        nested: object = rng.choice(_TEXTS)
        for _ in range(rng.choice([1, 2, 40, 900])):
            nested = [nested]
        return nested
    text = rng.choice(_EXPRESSIONS if kind == 4 else _TEXTS)
    return msgspec.msgpack.Ext(rng.choice([1, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 127, -1]), text.encode())


def _places(tree: Any) -> list[tuple[Any, Any]]:
    """Every container of a tree with every key of it. A tree may contain itself by now."""
    found: list[tuple[Any, Any]] = []
    seen: set[int] = set()
    waiting = [tree]
    while waiting:
        value = waiting.pop()
        if id(value) in seen or not isinstance(value, (dict, list)):
            continue
        seen.add(id(value))
        for key in value if isinstance(value, dict) else range(len(value)):
            found.append((value, key))
            waiting.append(value[key])
    return found


def forged(metadata: bytes, count: int, seed: int) -> Iterator[bytes]:
    """``count`` times metadata that are msgpack, and not what they were: values replaced by hostile ones, or
    by those of another place, keys and elements lost, doubled and renamed."""
    rng = random.Random(seed)
    for _ in range(count):
        tree = msgspec.msgpack.decode(metadata)
        for _ in range(rng.choice([1, 1, 1, 2, 4])):
            places = _places(tree)
            home, key = rng.choice(places)
            action = rng.randrange(8)
            if action == 0:
                del home[key]
            elif action == 1 and isinstance(home, list):
                home.insert(key, home[key])
            elif action == 2 and isinstance(home, dict):
                home[rng.choice(_TEXTS)] = home.pop(key)
            elif action == 3:
                other, place = rng.choice(places)
                home[key], other[place] = other[place], home[key]
            else:
                home[key] = _hostile(rng)
        try:
            yield msgspec.msgpack.encode(tree)
        except (RecursionError, ValueError):  # a value was put inside itself
            continue
