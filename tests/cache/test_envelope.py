"""Sealed entries and detached signatures: what was changed, moved or cut is refused with a typed error."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from braze.cache import envelope
from braze.cache.envelope import Header, open_sealed, peek, seal
from braze.cache.keyring import KeyRing
from braze.cache.signatures import SUFFIX, sign_file, sign_members, verify_file, verify_members
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
def sealed(ring: KeyRing) -> bytes:
    return seal(PAYLOAD, KEY, ring, level=1, kind="graph", name="graph0", guards="s0 >= 2")


def test_what_was_sealed_comes_out(ring: KeyRing, sealed: bytes) -> None:
    opened = open_sealed(sealed, KEY, ring, level=1, kind="graph")
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
        data = seal(payload, KEY, ring, level=level, kind="graph", name=name, guards=guards)
    except UnserializableError:
        with pytest.raises(UnicodeEncodeError):
            (name + guards).encode()
        return
    opened = open_sealed(data, KEY, ring, level=level)
    assert opened.payload == payload and (opened.header.name, opened.header.guards) == (name, guards)


def test_every_single_bit_counts(ring: KeyRing, sealed: bytes) -> None:
    """All bits of everything before the payload, and some of it."""
    before = len(sealed) - len(PAYLOAD)
    for bit in [*range(8 * before), *range(8 * before, 8 * len(sealed), 37)]:
        changed = bytearray(sealed)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(ArtifactError):
            open_sealed(bytes(changed), KEY, ring)


@given(data=st.data())
@settings(max_examples=200, deadline=None)
def test_no_damage_is_accepted(ring: KeyRing, sealed: bytes, data: st.DataObject) -> None:
    changed = bytearray(sealed)
    for _ in range(data.draw(st.integers(1, 4))):
        begin = data.draw(st.integers(0, len(changed)))
        end = data.draw(st.integers(begin, min(begin + 8, len(changed))))
        changed[begin:end] = data.draw(st.binary(max_size=8))
    if changed == sealed:
        return
    with pytest.raises(ArtifactError):
        open_sealed(bytes(changed), KEY, ring)


@given(st.binary(max_size=300))
@settings(max_examples=100, deadline=None)
def test_noise_is_refused(ring: KeyRing, noise: bytes) -> None:
    with pytest.raises(ArtifactError):
        open_sealed(noise, KEY, ring)
    with pytest.raises(ArtifactError):
        peek(envelope.MAGIC + struct.pack("<I", envelope.VERSION) + noise)


def test_every_cut_is_refused(ring: KeyRing, sealed: bytes) -> None:
    for length in range(len(sealed)):
        with pytest.raises(ArtifactError):
            open_sealed(sealed[:length], KEY, ring)
    with pytest.raises(ArtifactError):
        open_sealed(sealed + b"\0", KEY, ring)


def test_a_replay_under_another_key_is_refused(ring: KeyRing, sealed: bytes) -> None:
    with pytest.raises(SignatureError, match=f"(?s)signed by ada.*{KEY}.*{OTHER_KEY}"):
        open_sealed(sealed, OTHER_KEY, ring)


def test_a_replay_as_another_sort_of_entry_is_refused(ring: KeyRing, sealed: bytes) -> None:
    with pytest.raises(SignatureError, match="level 1"):
        open_sealed(sealed, KEY, ring, level=2)
    with pytest.raises(SignatureError, match="'graph'"):
        open_sealed(sealed, KEY, ring, kind="call")


def _rebuilt(sealed: bytes, **changes: object) -> bytes:
    """The sealed entry with another header, well formed, under the old signature."""
    length = struct.unpack_from("<8sII", sealed)[2]
    header = msgspec.msgpack.decode(sealed[16 : 16 + length], type=Header)
    encoded = msgspec.msgpack.encode(msgspec.structs.replace(header, **changes))
    return sealed[:12] + struct.pack("<I", len(encoded)) + encoded + sealed[16 + length :]


@pytest.mark.parametrize(
    "changes",
    [{"key": OTHER_KEY}, {"level": 2}, {"kind": "call"}, {"guards": ""}, {"name": "x"}, {"braze": "9"}],
)
def test_another_header_under_the_same_signature_is_refused(
    ring: KeyRing, sealed: bytes, changes: dict[str, object]
) -> None:
    assert _rebuilt(sealed) == sealed
    with pytest.raises(SignatureError):
        open_sealed(_rebuilt(sealed, **changes), str(changes.get("key", KEY)), ring)


def test_another_payload_with_the_right_checksum_is_refused(ring: KeyRing, sealed: bytes) -> None:
    evil = b"other machine code"
    header = _rebuilt(sealed, size=len(evil), sha256=hashlib.sha256(evil).digest())
    forged = header[: len(header) - len(PAYLOAD)] + evil
    assert peek(forged).size == len(evil), "it is well formed: only the signature tells"
    with pytest.raises(SignatureError):
        open_sealed(forged, KEY, ring)


def test_an_unsigned_entry_is_refused(ring: KeyRing, sealed: bytes) -> None:
    with pytest.raises(SignatureError, match="not signed"):
        open_sealed(_rebuilt(sealed, signer=""), KEY, ring)


def test_the_entry_of_a_stranger_is_refused_until_he_is_trusted(ring: KeyRing, tmp_path: Path) -> None:
    stranger = KeyRing(tmp_path / "stranger")
    key = stranger.generate("eve")
    data = seal(PAYLOAD, KEY, stranger, level=1, kind="graph")
    with pytest.raises(SignatureError, match=key.id):
        open_sealed(data, KEY, ring)
    mine = KeyRing(tmp_path / "mine")
    mine.trust(key.text)
    assert open_sealed(data, KEY, mine).signer.name == "eve"


def test_without_a_key_nothing_is_sealed(tmp_path: Path) -> None:
    with pytest.raises(KeyringError, match="no key to sign with"):
        seal(PAYLOAD, KEY, KeyRing(tmp_path / "empty"), level=1, kind="graph")


def test_a_header_without_bounds_is_not_made(ring: KeyRing) -> None:
    with pytest.raises(UnserializableError, match="header"):
        seal(PAYLOAD, KEY, ring, level=1, kind="graph", guards="x" * (envelope.MAX_HEADER + 1))


def test_peek_reads_without_trust(sealed: bytes) -> None:
    assert peek(_rebuilt(sealed, signer="")).key == KEY


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
