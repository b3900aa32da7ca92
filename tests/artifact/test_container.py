from __future__ import annotations

import itertools
import struct
import zlib
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from braze.artifact.container import ALIGNMENT, MAGIC, digest, pack, unpack
from braze.errors import ArtifactError
from tests.artifact.fuzz import ENTRY, HEADER, damaged, patched, sealed

NAMES = st.from_regex(r"[a-z][a-z0-9_.-]{0,20}(/[a-z0-9_]{1,8})?", fullmatch=True)
SECTIONS = {"code/x86-64-v3": b"\x7fELF" + bytes(range(200)), "ir": b"define void @f() " * 50, "plan": b"p"}
SMALL = pack(SECTIONS, compress={"ir"})


def read(data: bytes) -> dict[str, bytes]:
    return {name: bytes(section) for name, section in unpack(data).items()}


def is_refused(data: bytes) -> bool:
    try:
        unpack(data)
    except ArtifactError:
        return True
    return False


@given(st.dictionaries(NAMES, st.binary(max_size=300), max_size=6), st.booleans())
def test_round_trip(sections: dict[str, bytes], compressed: bool) -> None:
    data = pack(sections, compress=sections if compressed else ())
    assert read(data) == sections
    backwards = dict(reversed(list(sections.items())))
    assert pack(backwards, compress=sections if compressed else ()) == data


def test_the_form_is_the_documented_one() -> None:
    data = pack({"b": b"second", "a": b"first" * 20}, compress={"a"})
    assert data[:8] == b"\x93BRAZE\r\n" == MAGIC
    assert struct.unpack_from("<HHIQ", data, 8) == (1, 0, 2, len(data))
    table = data[64 : 64 + 2 * 128]
    assert data[32:64] == sha256(data[:32] + table).digest() == digest(data)
    for row, name, length in ((0, b"a", 100), (1, b"b", 6)):
        entry = table[row * 128 : (row + 1) * 128]
        offset, stored, size, encoding = struct.unpack_from("<QQQH", entry, 56)
        assert entry[:56].rstrip(b"\0") == name
        assert (size, encoding, offset % ALIGNMENT) == (length, 1 - row, 0)
        assert entry[96:] == sha256(data[offset : offset + stored]).digest()


def test_sections_that_are_not_compressed_are_views() -> None:
    data = pack({"a": b"12345678"})
    view = unpack(data)["a"]
    assert view.obj is data and view.readonly


def test_what_grows_when_compressed_is_stored_as_it_is() -> None:
    assert pack({"a": b"xyz"}, compress={"a"}) == pack({"a": b"xyz"})


def test_any_buffer_is_read() -> None:
    assert unpack(bytearray(SMALL)).keys() == unpack(memoryview(SMALL)).keys() == SECTIONS.keys()


@pytest.mark.parametrize(
    "name", ["", "A", "a b", "a//b", "/a", "a/", "../a", "a\0", "ä", "a" * 57, "1a", "a\n"]
)
def test_names_are_of_a_closed_character_set(name: str) -> None:
    with pytest.raises(ArtifactError, match="not the name of a section"):
        pack({name: b""})
    if "\0" not in name:
        forged = patched(pack({"a": b""}), HEADER, "56s", name.encode("latin-1")[:56])
        if len(name) <= 56:
            with pytest.raises(ArtifactError, match="not the name of a section"):
                unpack(forged)


def test_too_many_sections() -> None:
    with pytest.raises(ArtifactError, match="more than 4096"):
        pack({f"s{k}": b"" for k in range(4097)})


def test_every_truncation_is_refused() -> None:
    for length in range(len(SMALL)):
        with pytest.raises(ArtifactError):
            unpack(SMALL[:length])


def test_every_flipped_bit_is_refused() -> None:
    data = bytearray(pack({"a": b"12345", "b": b"x" * 70}, compress={"b"}))
    for at, bit in itertools.product(range(len(data)), range(8)):
        data[at] ^= 1 << bit
        with pytest.raises(ArtifactError):
            unpack(data)
        data[at] ^= 1 << bit
    unpack(data)


def test_random_damage_is_refused() -> None:
    for what, data in damaged(SMALL, 2000, seed=1):
        assert is_refused(data), what


@given(st.binary(max_size=400))
def test_rubbish_is_refused(data: bytes) -> None:
    for candidate in (data, MAGIC + data, SMALL[:HEADER] + data):
        with pytest.raises(ArtifactError):
            unpack(candidate)


ONE = pack({"a": b"12345678", "b": b"x" * 100, "c": b""}, compress={"b"})
A, B, C = HEADER, HEADER + ENTRY, HEADER + 2 * ENTRY
HUGE = (1 << 64) - 1


@pytest.mark.parametrize(
    ("forged", "says"),
    [
        (patched(ONE, 8, "<H", 2), "format 2"),
        (patched(ONE, 10, "<H", 1), "reserved"),
        (patched(ONE, 24, "<Q", 1), "reserved"),
        (patched(ONE, 12, "<I", 2), "checksum is another|follow the last|cannot be"),
        (patched(ONE, 12, "<I", 0xFFFFFFFF), "more than 4096"),
        (patched(ONE, 12, "<I", 4000), "cannot hold"),
        (patched(ONE, 16, "<Q", HUGE), "are there"),
        (patched(ONE, A + 56, "<Q", HUGE), "cannot be"),
        (patched(ONE, A + 56, "<Q", 0), "cannot be"),
        (patched(ONE, A + 56, "<Q", 512), "cannot be"),
        (patched(ONE, B + 56, "<Q", struct.unpack_from("<Q", ONE, A + 56)[0]), "cannot be"),
        (patched(ONE, A + 64, "<QQ", HUGE, HUGE), "cannot be"),
        (patched(ONE, A + 64, "<QQ", 7, 7), "padding|checksum"),
        (patched(ONE, A + 64, "<Q", 7), "stored of"),
        (patched(ONE, A + 80, "<H", 2), "no encoding 2"),
        (patched(ONE, A + 80, "<H", 1), "cannot be"),
        (patched(ONE, A + 82, "<H", 1), "reserved"),
        (patched(ONE, A + 96, "<Q", 0), "its checksum"),
        (patched(ONE, B, "56s", b"a"), "twice"),
        (patched(ONE, B, "56s", b"z"), "not in order"),
        (patched(ONE, A, "56s", b"a\0b"), "not the name"),
        (patched(ONE, B + 72, "<Q", 99), "not 99 bytes"),
        (patched(ONE, B + 72, "<Q", 101), "not 101 bytes"),
        (patched(ONE, B + 72, "<Q", 1 << 40), "compressed"),
        (patched(ONE, B + 80, "<H", 0), "stored of"),
    ],
)
def test_forged_tables_are_refused(forged: bytes, says: str) -> None:
    with pytest.raises(ArtifactError, match=says):
        unpack(forged)


def compressed(stream: bytes, length: int) -> bytes:
    """A file whose only section is this zlib stream, said to be of this length."""
    data = bytearray(pack({"a": bytes(stream)}))
    struct.pack_into("<QH", data, HEADER + 72, length, 1)
    return sealed(bytes(data))


@pytest.mark.parametrize(
    ("stream", "length"),
    [
        (zlib.compress(bytes(1 << 20)), 2000),
        (zlib.compress(bytes(2000))[:-1], 2000),
        (zlib.compress(bytes(2000))[:-4] + b"abcd", 2000),
        (zlib.compress(bytes(2000)) + b"more", 2000),
        (zlib.compress(bytes(2000)), 2001),
        (b"no stream", 100),
        (zlib.compress(bytes(1 << 29)), 1 << 29),
    ],
    ids=["longer", "cut", "adler", "trailing", "shorter", "rubbish", "bomb"],
)
def test_compressed_sections_are_what_the_table_says(stream: bytes, length: int) -> None:
    with pytest.raises(ArtifactError, match="compress"):
        unpack(compressed(stream, length))


def test_a_compressed_section_takes_no_more_memory_than_it_says() -> None:
    import tracemalloc

    bomb = compressed(zlib.compress(bytes(1 << 26)), 100_000)
    tracemalloc.start()
    try:
        with pytest.raises(ArtifactError, match="not 100000 bytes"):
            unpack(bomb)
        assert tracemalloc.get_traced_memory()[1] < 1 << 21
    finally:
        tracemalloc.stop()


@given(st.data())
def test_forged_entries_never_get_through_unnoticed(data: st.DataObject) -> None:
    """Any other value in any field of a sealed table is refused, or changes nothing that was said."""
    row = data.draw(st.sampled_from([A, B, C]))
    offset, format = data.draw(st.sampled_from([(0, "56s"), (56, "<Q"), (64, "<Q"), (72, "<Q"), (80, "<H")]))
    if format == "56s":
        value: object = data.draw(st.binary(max_size=56))
    else:
        size = struct.calcsize(format)
        edges = st.sampled_from([0, 1, 63, 64, len(ONE), (1 << 8 * size) - 1, 1 << (8 * size - 1)])
        value = data.draw(st.one_of(edges.filter(lambda v: v < 1 << 8 * size), st.integers(0, 4096)))
    forged = patched(ONE, row + offset, format, value)
    try:
        found = read(forged)
    except ArtifactError:
        return
    if format != "56s":
        assert forged == ONE
    assert sorted(found.values()) == sorted(read(ONE).values())
