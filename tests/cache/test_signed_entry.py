"""Signed entries and detached signatures: what was changed, moved or cut is refused with a typed error."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from braze.cache import signed_entry
from braze.cache.keyring import KeyRing
from braze.cache.signatures import SUFFIX, sign_file, sign_members, verify_file, verify_members
from braze.cache.signed_entry import EntryHeader, read_header, sign_entry, verify_entry
from braze.errors import ArtifactError, KeyringError, SignatureError, UnserializableError

KEY = "ab" * 32
OTHER_KEY = "cd" * 32
PAYLOAD = b"machine code, " * 20


@pytest.fixture(scope="module")
def ring(tmp_path_factory: pytest.TempPathFactory) -> KeyRing:
    made = KeyRing(tmp_path_factory.mktemp("ring") / "keys")
    made.generate("ada")
    return made


@pytest.fixture(scope="module")
def signed(ring: KeyRing) -> bytes:
    return sign_entry(PAYLOAD, KEY, ring, level=1, kind="graph", name="graph0", guards="s0 >= 2")


def test_what_was_sealed_comes_out(ring: KeyRing, signed: bytes) -> None:
    opened = verify_entry(signed, KEY, ring, level=1, kind="graph")
    assert opened.payload == PAYLOAD and opened.payload.readonly
    assert opened.signer.name == "ada"
    assert (opened.header.key, opened.header.level, opened.header.kind) == (KEY, 1, "graph")
    assert (opened.header.name, opened.header.guards) == ("graph0", "s0 >= 2")
    assert opened.header.signer == opened.signer.id and opened.header.size == len(PAYLOAD)


@given(
    payload=st.binary(max_size=200),
    name=st.text(max_size=20),
    guards=st.text(max_size=40),
    level=st.integers(1, 2),
)
@settings(max_examples=30, deadline=None)
def test_every_content_survives(ring: KeyRing, payload: bytes, name: str, guards: str, level: int) -> None:
    try:
        data = sign_entry(payload, KEY, ring, level=level, kind="graph", name=name, guards=guards)
    except UnserializableError:
        with pytest.raises(UnicodeEncodeError):
            (name + guards).encode()
        return
    opened = verify_entry(data, KEY, ring, level=level)
    assert opened.payload == payload and (opened.header.name, opened.header.guards) == (name, guards)


def test_every_single_bit_counts(ring: KeyRing, signed: bytes) -> None:
    """All bits of everything before the payload, and some of it."""
    before = len(signed) - len(PAYLOAD)
    for bit in [*range(8 * before), *range(8 * before, 8 * len(signed), 37)]:
        changed = bytearray(signed)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(ArtifactError):
            verify_entry(bytes(changed), KEY, ring)


@given(data=st.data())
@settings(max_examples=200, deadline=None)
def test_no_damage_is_accepted(ring: KeyRing, signed: bytes, data: st.DataObject) -> None:
    changed = bytearray(signed)
    for _ in range(data.draw(st.integers(1, 4))):
        begin = data.draw(st.integers(0, len(changed)))
        end = data.draw(st.integers(begin, min(begin + 8, len(changed))))
        changed[begin:end] = data.draw(st.binary(max_size=8))
    if changed == signed:
        return
    with pytest.raises(ArtifactError):
        verify_entry(bytes(changed), KEY, ring)


@given(st.binary(max_size=300))
@settings(max_examples=100, deadline=None)
def test_noise_is_refused(ring: KeyRing, noise: bytes) -> None:
    with pytest.raises(ArtifactError):
        verify_entry(noise, KEY, ring)
    with pytest.raises(ArtifactError):
        read_header(signed_entry.MAGIC + struct.pack("<I", signed_entry.VERSION) + noise)


def test_every_cut_is_refused(ring: KeyRing, signed: bytes) -> None:
    for length in range(len(signed)):
        with pytest.raises(ArtifactError):
            verify_entry(signed[:length], KEY, ring)
    with pytest.raises(ArtifactError):
        verify_entry(signed + b"\0", KEY, ring)


def test_a_replay_under_another_key_is_refused(ring: KeyRing, signed: bytes) -> None:
    with pytest.raises(SignatureError, match=f"(?s)signed by ada.*{KEY}.*{OTHER_KEY}"):
        verify_entry(signed, OTHER_KEY, ring)


def test_a_replay_as_another_sort_of_entry_is_refused(ring: KeyRing, signed: bytes) -> None:
    with pytest.raises(SignatureError, match="level 1"):
        verify_entry(signed, KEY, ring, level=2)
    with pytest.raises(SignatureError, match="'graph'"):
        verify_entry(signed, KEY, ring, kind="call")


def _rebuilt(signed: bytes, **changes: object) -> bytes:
    """The signed entry with another header, well formed, under the old signature."""
    length = struct.unpack_from("<8sII", signed)[2]
    header = msgspec.msgpack.decode(signed[16 : 16 + length], type=EntryHeader)
    encoded = msgspec.msgpack.encode(msgspec.structs.replace(header, **changes))
    return signed[:12] + struct.pack("<I", len(encoded)) + encoded + signed[16 + length :]


@pytest.mark.parametrize(
    "changes",
    [{"key": OTHER_KEY}, {"level": 2}, {"kind": "call"}, {"guards": ""}, {"name": "x"}, {"braze": "9"}],
)
def test_another_header_under_the_same_signature_is_refused(
    ring: KeyRing, signed: bytes, changes: dict[str, object]
) -> None:
    assert _rebuilt(signed) == signed
    with pytest.raises(SignatureError):
        verify_entry(_rebuilt(signed, **changes), str(changes.get("key", KEY)), ring)


def test_another_payload_with_the_right_checksum_is_refused(ring: KeyRing, signed: bytes) -> None:
    evil = b"other machine code"
    header = _rebuilt(signed, size=len(evil), sha256=hashlib.sha256(evil).digest())
    forged = header[: len(header) - len(PAYLOAD)] + evil
    assert read_header(forged).size == len(evil), "it is well formed: only the signature tells"
    with pytest.raises(SignatureError):
        verify_entry(forged, KEY, ring)


def test_an_unsigned_entry_is_refused(ring: KeyRing, signed: bytes) -> None:
    with pytest.raises(SignatureError, match="not signed"):
        verify_entry(_rebuilt(signed, signer=""), KEY, ring)


def test_the_entry_of_a_stranger_is_refused_until_he_is_trusted(ring: KeyRing, tmp_path: Path) -> None:
    stranger = KeyRing(tmp_path / "stranger")
    key = stranger.generate("eve")
    data = sign_entry(PAYLOAD, KEY, stranger, level=1, kind="graph")
    with pytest.raises(SignatureError, match=key.id):
        verify_entry(data, KEY, ring)
    mine = KeyRing(tmp_path / "mine")
    mine.trust(key.text)
    assert verify_entry(data, KEY, mine).signer.name == "eve"


def test_without_a_key_nothing_is_sealed(tmp_path: Path) -> None:
    with pytest.raises(KeyringError, match="no key to sign with"):
        sign_entry(PAYLOAD, KEY, KeyRing(tmp_path / "empty"), level=1, kind="graph")


def test_a_header_without_bounds_is_not_made(ring: KeyRing) -> None:
    with pytest.raises(UnserializableError, match="header"):
        sign_entry(PAYLOAD, KEY, ring, level=1, kind="graph", guards="x" * (signed_entry.MAX_HEADER + 1))


def test_the_header_is_read_without_trust(signed: bytes) -> None:
    assert read_header(_rebuilt(signed, signer="")).key == KEY


MEMBERS = {"model/data.bin": hashlib.sha256(b"1").digest(), "model/version": hashlib.sha256(b"2").digest()}


def _other_members() -> Iterator[dict[str, bytes]]:
    first, second = MEMBERS
    yield {}
    yield {first: MEMBERS[first]}
    yield {**MEMBERS, "more": bytes(32)}
    yield {first: MEMBERS[second], second: MEMBERS[first]}
    yield {first: MEMBERS[first], "model/versioN": MEMBERS[second]}


def test_members_signed_are_members_verified_in_any_order(ring: KeyRing) -> None:
    document = sign_members("package", MEMBERS, ring)
    assert verify_members("package", dict(reversed(MEMBERS.items())), document, ring).name == "ada"


@pytest.mark.parametrize("members", [*_other_members()])
def test_other_members_are_refused(ring: KeyRing, members: dict[str, bytes]) -> None:
    with pytest.raises(SignatureError):
        verify_members("package", members, sign_members("package", MEMBERS, ring), ring)


def test_a_signature_of_one_thing_is_none_of_another(ring: KeyRing) -> None:
    document = sign_members("file", MEMBERS, ring)
    with pytest.raises(SignatureError, match="'file'"):
        verify_members("package", MEMBERS, document, ring)
    with pytest.raises(SignatureError):
        verify_members("package", MEMBERS, document.replace(b'"file"', b'"package"'), ring)


def test_every_bit_of_a_document_counts_or_changes_nothing(ring: KeyRing) -> None:
    """Blanks, and how base64 and JSON spell a value, may differ; what they say may not."""
    document = sign_members("package", MEMBERS, ring)
    told = msgspec.json.decode(document)
    for bit in range(8 * len(document)):
        changed = bytearray(document)
        changed[bit // 8] ^= 1 << bit % 8
        try:
            assert verify_members("package", MEMBERS, bytes(changed), ring).name == "ada"
        except ArtifactError:
            continue
        assert {**msgspec.json.decode(bytes(changed)), "signature": ""} == {**told, "signature": ""}


@pytest.mark.parametrize("document", [b"", b"{}", b"\xff", b"[1]", b"x" * (1 << 17)])
def test_documents_that_are_none_are_refused(ring: KeyRing, document: bytes) -> None:
    with pytest.raises(ArtifactError):
        verify_members("package", MEMBERS, document, ring)


def test_a_missing_document_means_unsigned(ring: KeyRing) -> None:
    with pytest.raises(SignatureError, match="not signed"):
        verify_members("package", MEMBERS, None, ring)


def test_a_file_is_signed_beside_itself(ring: KeyRing, tmp_path: Path) -> None:
    file = tmp_path / "artefact.braze"
    file.write_bytes(PAYLOAD)
    with pytest.raises(SignatureError, match="not signed"):
        verify_file(file, ring)
    beside = sign_file(file, ring)
    assert beside == tmp_path / f"artefact.braze{SUFFIX}"
    assert verify_file(file, ring).name == "ada"
    file.write_bytes(PAYLOAD + b"!")
    with pytest.raises(SignatureError):
        verify_file(file, ring)
