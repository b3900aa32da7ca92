"""The key ring: who is trusted, who signs, and that nothing else counts as trust."""

from __future__ import annotations

import base64
import os
import stat
from pathlib import Path

import pytest

from braze import config
from braze.cache.keyring import KeyRing, Signature, key_id
from braze.errors import ArtifactError, KeyringError, SignatureError

KIND = "test"
MESSAGE = b"some bytes"


@pytest.fixture
def ring(tmp_path: Path) -> KeyRing:
    return KeyRing(tmp_path / "ring")


@pytest.fixture
def other(tmp_path: Path) -> KeyRing:
    return KeyRing(tmp_path / "somebody else")


def test_a_new_ring_is_empty_and_leaves_nothing_on_disk(ring: KeyRing) -> None:
    assert ring.keys() == () and ring.default() is None
    assert not ring.folder.exists()


def test_what_a_generated_key_signs_is_accepted(ring: KeyRing) -> None:
    key = ring.generate("ada@laptop")
    assert key.own and key.name == "ada@laptop" and key.id == key_id(key.public)
    signature = ring.sign(KIND, MESSAGE)
    assert signature.signer == key.id
    assert ring.verify(KIND, MESSAGE, signature) == key
    assert ring.keys() == (key,) == KeyRing(ring.folder).keys()


def test_keys_are_for_their_owner_alone(ring: KeyRing) -> None:
    key = ring.generate("ada")
    private = ring.folder / "own" / f"{key.id}.pem"
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert stat.S_IMODE(ring.folder.stat().st_mode) == 0o700
    assert private.read_bytes().startswith(b"-----BEGIN PRIVATE KEY-----")
    assert sorted(path.name for path in ring.folder.rglob("*") if path.is_file()) == sorted(
        [f"{key.id}.pem", f"{key.id}.json"]
    )


def test_a_public_key_is_one_line_that_others_can_trust(ring: KeyRing, other: KeyRing) -> None:
    key = ring.generate("ada")
    assert key.text.startswith("braze-ed25519 ") and key.text.endswith(" ada") and "\n" not in key.text
    trusted = other.trust(key.text)
    assert trusted.id == key.id and trusted.public == key.public and not trusted.own
    assert other.verify(KIND, MESSAGE, ring.sign(KIND, MESSAGE)).name == "ada"


def test_a_key_may_come_in_a_file_and_get_another_name(ring: KeyRing, other: KeyRing, tmp_path: Path) -> None:
    key = ring.generate("ada")
    file = tmp_path / "ada's key.txt"
    file.write_text(f"{key.text}\n", encoding="utf-8")
    assert other.trust(file, name="ada-of-accounts").name == "ada-of-accounts"
    assert other.trust(str(file)).name == "ada"
    (found,) = other.keys()
    assert found.id == key.id


def test_unsigned_is_refused(ring: KeyRing) -> None:
    ring.generate("ada")
    with pytest.raises(SignatureError, match="not signed"):
        ring.verify(KIND, MESSAGE, None)


def test_a_signer_whom_nobody_trusts_is_refused_by_id(ring: KeyRing, other: KeyRing) -> None:
    ring.generate("ada")
    stranger = other.generate("stranger")
    with pytest.raises(SignatureError, match=f"{stranger.id}.*not trusted"):
        ring.verify(KIND, MESSAGE, other.sign(KIND, MESSAGE))


@pytest.mark.parametrize("at", [0, 31, 32, 63])
def test_a_changed_signature_is_refused(ring: KeyRing, at: int) -> None:
    ring.generate("ada")
    good = ring.sign(KIND, MESSAGE)
    value = bytearray(good.value)
    value[at] ^= 1
    with pytest.raises(SignatureError, match="ada"):
        ring.verify(KIND, MESSAGE, Signature(good.signer, bytes(value)))


@pytest.mark.parametrize("value", [b"", b"short", bytes(64), bytes(65)])
def test_what_is_no_signature_at_all_is_refused(ring: KeyRing, value: bytes) -> None:
    key = ring.generate("ada")
    with pytest.raises(SignatureError):
        ring.verify(KIND, MESSAGE, Signature(key.id, value))


def test_a_signature_of_other_bytes_is_refused(ring: KeyRing) -> None:
    ring.generate("ada")
    with pytest.raises(SignatureError):
        ring.verify(KIND, MESSAGE + b".", ring.sign(KIND, MESSAGE))


def test_a_signature_of_one_kind_is_none_of_another(ring: KeyRing) -> None:
    ring.generate("ada")
    with pytest.raises(SignatureError):
        ring.verify("another", MESSAGE, ring.sign(KIND, MESSAGE))


def test_a_signature_under_another_trusted_id_is_refused(ring: KeyRing) -> None:
    ring.generate("ada")
    second = ring.generate("ada2")
    with pytest.raises(SignatureError, match="ada2"):
        ring.verify(KIND, MESSAGE, Signature(second.id, ring.sign(KIND, MESSAGE, "ada").value))


@pytest.mark.parametrize("identity", ["", "../../etc/passwd", "x" * 1000, "AB" * 10])
def test_an_id_that_is_none_names_no_file(ring: KeyRing, identity: str) -> None:
    ring.generate("ada")
    with pytest.raises(SignatureError, match="not trusted"):
        ring.verify(KIND, MESSAGE, Signature(identity, bytes(64)))


def test_distrust_takes_effect_everywhere_at_once(ring: KeyRing, other: KeyRing) -> None:
    other.generate("ada")
    ring.trust(other.keys()[0].text)
    elsewhere = KeyRing(ring.folder)
    signature = other.sign(KIND, MESSAGE)
    assert elsewhere.verify(KIND, MESSAGE, signature).name == "ada"
    assert ring.distrust("ada").name == "ada"
    with pytest.raises(SignatureError, match="not trusted"):
        elsewhere.verify(KIND, MESSAGE, signature)
    with pytest.raises(KeyringError, match="ada"):
        ring.distrust("ada")


def test_ones_own_key_can_be_retired_and_taken_back(ring: KeyRing) -> None:
    key = ring.generate("ada")
    signature = ring.sign(KIND, MESSAGE)
    ring.distrust(key.id)
    assert ring.default() is None
    with pytest.raises(SignatureError):
        ring.verify(KIND, MESSAGE, signature)
    with pytest.raises(KeyringError, match="no key to sign with"):
        ring.sign(KIND, MESSAGE)
    assert ring.trust(key.text).own
    assert ring.verify(KIND, MESSAGE, ring.sign(KIND, MESSAGE)).name == "ada"


def test_the_youngest_own_key_signs_unless_another_is_named(ring: KeyRing, other: KeyRing) -> None:
    first = ring.generate("first")
    second = ring.generate("second")
    ring.trust(other.generate("somebody").text)
    assert ring.sign(KIND, MESSAGE).signer == second.id
    assert ring.sign(KIND, MESSAGE, "first").signer == ring.sign(KIND, MESSAGE, first.id).signer == first.id
    ring.trust(first.text, name="renamed")
    assert ring.sign(KIND, MESSAGE).signer == second.id, "a new name makes no younger key"


def test_nobody_signs_with_the_key_of_another(ring: KeyRing, other: KeyRing) -> None:
    ring.trust(other.generate("somebody").text)
    assert ring.default() is None
    with pytest.raises(KeyringError, match="no key to sign with"):
        ring.sign(KIND, MESSAGE)
    with pytest.raises(KeyringError, match="private key of somebody"):
        ring.sign(KIND, MESSAGE, "somebody")


def test_a_name_belongs_to_one_key(ring: KeyRing, other: KeyRing) -> None:
    ring.generate("ada")
    impostor = other.generate("ada")
    with pytest.raises(KeyringError, match="belongs to the key"):
        ring.trust(impostor.text)
    with pytest.raises(KeyringError, match="belongs to the key"):
        ring.generate("ada")
    assert ring.trust(impostor.text, name="the-other-ada").id == impostor.id


@pytest.mark.parametrize("name", ["", "two words", "new\nline", "x" * 65, "[red]", "../up", "0123456789" * 2])
def test_bad_names_are_refused(ring: KeyRing, name: str) -> None:
    with pytest.raises(KeyringError, match="not a name"):
        ring.generate(name)
    assert ring.keys() == ()


GOOD = base64.b64encode(bytes(range(32))).decode()


@pytest.mark.parametrize(
    "text",
    [
        "braze-ed25519",
        "braze-ed25519 !!!! ada",
        f"braze-ed25519 {GOOD[:-4]} ada",
        f"braze-ed25519 {GOOD} ada lovelace",
        f"braze-ed25519 {GOOD}{GOOD} ada",
        "a file that is not there",
        f"braze-ed25519\x00{GOOD} ada",
        f"{GOOD}\x00",
    ],
)
def test_texts_that_are_no_keys_are_refused(ring: KeyRing, text: str) -> None:
    with pytest.raises(KeyringError):
        ring.trust(text)
    assert ring.keys() == ()


def test_a_key_without_a_name_needs_one(ring: KeyRing) -> None:
    with pytest.raises(KeyringError, match="has no name"):
        ring.trust(f"braze-ed25519 {GOOD}")
    assert ring.trust(f"braze-ed25519 {GOOD}", name="ada").name == "ada"


@pytest.mark.parametrize("place", ["", "trusted", "trusted/{id}.json"])
def test_a_ring_that_others_can_write_is_not_believed(ring: KeyRing, place: str) -> None:
    key = ring.generate("ada")
    signature = ring.sign(KIND, MESSAGE)
    path = ring.folder / place.format(id=key.id)
    path.chmod(path.stat().st_mode | 0o002)
    with pytest.raises(KeyringError, match="written by others"):
        ring.verify(KIND, MESSAGE, signature)


def test_a_private_key_that_others_can_read_does_not_sign(ring: KeyRing) -> None:
    key = ring.generate("ada")
    (ring.folder / "own" / f"{key.id}.pem").chmod(0o640)
    with pytest.raises(KeyringError, match="read or written by others"):
        ring.sign(KIND, MESSAGE)


def test_a_ring_of_another_user_is_not_believed(ring: KeyRing, monkeypatch: pytest.MonkeyPatch) -> None:
    ring.generate("ada")
    signature = ring.sign(KIND, MESSAGE)
    somebody = ring.folder.stat().st_uid + 1
    monkeypatch.setattr(os, "getuid", lambda: somebody, raising=False)
    with pytest.raises(KeyringError, match="belongs to another user"):
        ring.verify(KIND, MESSAGE, signature)


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"\xff\xfe", b'{"key": "x", "added": "2026-01-01T00:00:00Z"}']
)
def test_a_damaged_record_is_said_to_be_one(ring: KeyRing, content: bytes) -> None:
    key = ring.generate("ada")
    (ring.folder / "trusted" / f"{key.id}.json").write_bytes(content)
    with pytest.raises(KeyringError):
        ring.keys()


def test_a_record_under_the_id_of_another_is_refused(ring: KeyRing, other: KeyRing) -> None:
    ada, eve = ring.generate("ada"), other.generate("eve")
    record = (ring.folder / "trusted" / f"{ada.id}.json").read_text(encoding="utf-8")
    ring.trust(eve.text)
    (ring.folder / "trusted" / f"{eve.id}.json").write_text(record, encoding="utf-8")
    with pytest.raises(KeyringError, match="another key"):
        ring.verify(KIND, MESSAGE, other.sign(KIND, MESSAGE))


def test_a_private_key_under_the_id_of_another_does_not_sign(ring: KeyRing) -> None:
    first, second = ring.generate("first"), ring.generate("second")
    own = ring.folder / "own"
    os.replace(own / f"{first.id}.pem", own / f"{second.id}.pem")
    with pytest.raises(KeyringError, match="another key"):
        ring.sign(KIND, MESSAGE, "second")


def test_a_private_key_that_is_damaged_does_not_sign(ring: KeyRing) -> None:
    key = ring.generate("ada")
    (ring.folder / "own" / f"{key.id}.pem").write_bytes(b"-----BEGIN PRIVATE KEY-----\nnonsense\n")
    with pytest.raises(KeyringError, match="no private key"):
        ring.sign(KIND, MESSAGE)


def test_a_folder_that_cannot_be_made_is_reported(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("in the way", encoding="utf-8")
    with pytest.raises(KeyringError, match="cannot be used"):
        KeyRing(file / "ring").generate("ada")


def test_the_option_names_the_folder(tmp_path: Path) -> None:
    with config.patch(keyring_dir=str(tmp_path / "chosen")):
        assert KeyRing().folder == tmp_path / "chosen"
    assert KeyRing().folder.name == "braze"


def test_signature_errors_can_be_handled_as_bad_artefacts() -> None:
    assert issubclass(KeyringError, SignatureError) and issubclass(SignatureError, ArtifactError)
