"""Signatures inside archives: every member counts, and none may be there twice."""

from __future__ import annotations

import warnings
import zipfile
from pathlib import Path

import pytest

from braze.cache.keyring import KeyRing
from braze.cache.signatures import is_signature, sign_archive, verify_archive
from braze.errors import ArtifactError, KeyringError, SignatureError

MEMBERS = {
    "model/version": b"1",
    "model/data/weights.safetensors": bytes(5000),
    "model/data/code.braze": b"code",
}


@pytest.fixture
def ring(tmp_path: Path) -> KeyRing:
    made = KeyRing(tmp_path / "ring")
    made.generate("ada")
    return made


@pytest.fixture
def package(tmp_path: Path) -> Path:
    path = tmp_path / "model.pt2"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in MEMBERS.items():
            archive.writestr(name, data)
    return path


def _add(package: Path, name: str, data: bytes) -> None:
    with warnings.catch_warnings(), zipfile.ZipFile(package, "a") as archive:
        warnings.simplefilter("ignore")  # zipfile warns of the second member of a name
        archive.writestr(name, data)


def _rewrite(package: Path, changes: dict[str, bytes | None]) -> None:
    with zipfile.ZipFile(package) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(package, "w") as archive:
        for name, data in {**members, **changes}.items():
            if data is not None:
                archive.writestr(name, data)


def test_a_signature_travels_in_the_archive(package: Path, ring: KeyRing, tmp_path: Path) -> None:
    with pytest.raises(SignatureError, match="not signed"):
        verify_archive(package, ring)
    key = sign_archive(package, ring)
    assert verify_archive(package, ring) == key
    with zipfile.ZipFile(package) as archive:
        assert archive.testzip() is None
        added = set(archive.namelist()) - set(MEMBERS)
        assert added == {f"model/extra/braze-signature-{key.id}.json"} and all(map(is_signature, added))
        assert {name: archive.read(name) for name in MEMBERS} == MEMBERS
    with pytest.raises(SignatureError, match=key.id):
        verify_archive(package, KeyRing(tmp_path / "somebody else"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.pt2", "ring"]


def test_signing_twice_changes_nothing(package: Path, ring: KeyRing) -> None:
    sign_archive(package, ring)
    once = package.read_bytes()
    sign_archive(package, ring)
    assert package.read_bytes() == once


def test_several_people_may_sign(package: Path, ring: KeyRing, tmp_path: Path) -> None:
    bob = KeyRing(tmp_path / "bob")
    bob.generate("bob")
    sign_archive(package, ring)
    sign_archive(package, bob)
    assert verify_archive(package, ring).name == "ada"
    assert verify_archive(package, bob).name == "bob"


@pytest.mark.parametrize(
    "changes",
    [
        {"model/data/code.braze": b"evil"},
        {"model/data/code.braze": None},
        {"model/data/more.braze": b"evil"},
        {"model/version": b"2"},
        {"model/extra/braze-signature-x.json": b"no name of a signature"},
    ],
)
def test_what_was_changed_is_refused(package: Path, ring: KeyRing, changes: dict[str, bytes | None]) -> None:
    sign_archive(package, ring)
    _rewrite(package, changes)
    with pytest.raises(SignatureError, match="not one of ada"):
        verify_archive(package, ring)
    with pytest.raises(ArtifactError, match="changed after ada"):
        sign_archive(package, ring)


def test_two_members_of_one_name_are_refused(package: Path, ring: KeyRing) -> None:
    sign_archive(package, ring)
    _add(package, "model/data/code.braze", b"evil")
    with pytest.raises(ArtifactError, match="two members"):
        verify_archive(package, ring)


def test_two_signatures_of_one_name_are_refused(package: Path, ring: KeyRing) -> None:
    key = sign_archive(package, ring)
    _add(package, f"model/extra/braze-signature-{key.id}.json", b"{}")
    with pytest.raises(ArtifactError, match="two members"):
        verify_archive(package, ring)


def test_a_bad_signature_beside_a_good_one_does_no_harm(package: Path, ring: KeyRing) -> None:
    sign_archive(package, ring)
    _add(package, f"extra/braze-signature-{'0' * 20}.json", b"nonsense")
    assert verify_archive(package, ring).name == "ada"


@pytest.mark.parametrize("document", [b"", b"nonsense", b"x" * (1 << 17)])
def test_a_bad_signature_alone_is_refused(package: Path, ring: KeyRing, document: bytes) -> None:
    _add(package, f"model/extra/braze-signature-{ring.keys()[0].id}.json", document)
    with pytest.raises(SignatureError):
        verify_archive(package, ring)


def test_archives_without_a_folder_have_a_place_for_it(tmp_path: Path, ring: KeyRing) -> None:
    path = tmp_path / "flat.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a", b"1")
        archive.writestr("b/c", b"2")
    key = sign_archive(path, ring)
    with zipfile.ZipFile(path) as archive:
        assert f"extra/braze-signature-{key.id}.json" in archive.namelist()


def test_every_cut_is_refused(package: Path, ring: KeyRing) -> None:
    sign_archive(package, ring)
    data = package.read_bytes()
    for length in range(0, len(data), 97):
        package.write_bytes(data[:length])
        with pytest.raises(ArtifactError):
            verify_archive(package, ring)
        with pytest.raises(ArtifactError):
            sign_archive(package, ring)


def test_every_changed_bit_is_refused_or_changes_nothing(package: Path, ring: KeyRing) -> None:
    """Times and other remarks of the zip format are not signed; names and contents are."""
    sign_archive(package, ring)
    data = package.read_bytes()
    accepted = 0
    for bit in range(0, 8 * len(data), 41):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        package.write_bytes(changed)
        try:
            verify_archive(package, ring)
        except ArtifactError:
            continue
        accepted += 1
        with zipfile.ZipFile(package) as archive:
            assert {
                name: archive.read(name) for name in archive.namelist() if not is_signature(name)
            } == MEMBERS
    assert accepted < 200


def test_without_a_key_nothing_changes(package: Path, tmp_path: Path) -> None:
    before = package.read_bytes()
    with pytest.raises(KeyringError, match="no key to sign with"):
        sign_archive(package, KeyRing(tmp_path / "empty"))
    assert package.read_bytes() == before
