"""Entries in a file: what a trusted key signed arrives as it left, and nothing else does."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from braze.cache.bundle import export_entries, import_entries
from braze.cache.keyring import KeyRing
from braze.cache.keys import Key
from braze.cache.remote import RemoteCache
from braze.cache.signed_entry import sign_entry
from braze.cache.store import CacheStore
from braze.errors import ArtifactError, CacheError, KeyringError

KEYS = [
    Key.of({"graph": f"graph {number}\n", "inputs": "float32[4]", "versions.braze": "1"})
    for number in range(3)
]


@pytest.fixture
def ada(tmp_path: Path) -> KeyRing:
    ring = KeyRing(tmp_path / "ada")
    ring.generate("ada")
    return ring


@pytest.fixture
def bob(tmp_path: Path, ada: KeyRing) -> KeyRing:
    """Somebody who trusts ada."""
    ring = KeyRing(tmp_path / "bob")
    ring.trust(ada.keys()[0].text)
    return ring


@pytest.fixture
def full(tmp_path: Path) -> CacheStore:
    store = CacheStore(tmp_path / "full")
    for number, key in enumerate(KEYS):
        assert store.put(key, b"code %d" % number * 50, name=f"graph{number}", kind="graph", guards="s0 < 9")
    assert store.put(KEYS[0], b"more code", name="graph0", kind="graph", guards="s0 >= 9")
    return store


@pytest.fixture
def empty(tmp_path: Path) -> CacheStore:
    return CacheStore(tmp_path / "empty")


@pytest.fixture
def file(tmp_path: Path, full: CacheStore, ada: KeyRing) -> Path:
    path = tmp_path / "entries of ada.zip"
    done = export_entries(path, full, full.entries(), ada)
    assert len(done) == 4 and all(one.done and one.signer.startswith("ada (") for one in done)
    return path


def _contents(store: CacheStore) -> set[tuple[str, str, str, str, int, bytes]]:
    return {
        (entry.key, entry.name, entry.kind, entry.guards, entry.level, entry.payload)
        for info in store.entries()
        for entry in store.get(info.key)
    }


def test_all_entries_arrive_with_their_keys(
    file: Path, full: CacheStore, empty: CacheStore, ada: KeyRing, bob: KeyRing
) -> None:
    done = import_entries(file, empty, bob)
    assert [one.done for one in done] == [True] * 4
    assert _contents(empty) == _contents(full)
    assert {info.origin for info in empty.entries()} == {ada.keys()[0].id}
    for key in KEYS:
        assert empty.key(key.digest) == key


def test_what_is_there_stays_as_it_is(file: Path, full: CacheStore, empty: CacheStore, bob: KeyRing) -> None:
    done = import_entries(file, full, bob)
    assert not any(one.done for one in done)
    assert {one.reason for one in done} == {"it is in the cache already"}
    assert {info.origin for info in full.entries()} == {"local"}
    import_entries(file, empty, bob)
    assert not any(one.done for one in import_entries(file, empty, bob))


def test_strangers_are_refused_entry_by_entry(
    file: Path, empty: CacheStore, ada: KeyRing, tmp_path: Path
) -> None:
    done = import_entries(file, empty, KeyRing(tmp_path / "nobody"))
    assert len(done) == 4
    for one in done:
        assert not one.done and one.reason.startswith("refused: ") and "not trusted" in one.reason
        assert one.signer == ada.keys()[0].id
    assert empty.entries() == ()


def test_a_file_unpacked_is_a_remote_cache(file: Path, bob: KeyRing, tmp_path: Path) -> None:
    with zipfile.ZipFile(file) as archive:
        archive.extractall(tmp_path / "shared")
    remote = RemoteCache(str(tmp_path / "shared"), 10_000, bob)
    found = {(bytes(one.payload), one.header.guards) for one in remote.get(KEYS[0].digest)}
    assert found == {(b"code 0" * 50, "s0 < 9"), (b"more code", "s0 >= 9")}


def _changed(file: Path, change: Callable[[str, bytes], tuple[str, bytes]]) -> Path:
    """A copy of the archive with other members."""
    made = file.with_name("changed.zip")
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(made, "w") as new:
        for name in old.namelist():
            new.writestr(*change(name, old.read(name)))
    return made


def test_an_entry_moved_under_another_key_is_still_the_first_keys(
    file: Path, full: CacheStore, empty: CacheStore, bob: KeyRing
) -> None:
    """The folder's name means nothing: what an entry answers is what was signed."""
    one, other = KEYS[1].digest, KEYS[2].digest

    def swap(name: str, data: bytes) -> tuple[str, bytes]:
        if not name.endswith(".braze"):
            return name, data
        return name.replace(one, "x").replace(other, one).replace("x", other), data

    import_entries(_changed(file, swap), empty, bob)
    assert _contents(empty) == _contents(full)


def test_the_texts_of_another_key_are_refused(file: Path, empty: CacheStore, bob: KeyRing) -> None:
    def forge(name: str, data: bytes) -> tuple[str, bytes]:
        return name, data.replace(b"graph 1", b"graph 9") if name.endswith("key.json") else data

    done = import_entries(_changed(file, forge), empty, bob)
    assert [one.reason for one in done if not one.done] == ["the texts of its key are those of another key"]
    assert len(empty.entries()) == 3


@pytest.mark.parametrize("text", [b"", b"{}", b"[]", b'{"parts": [["a", "b"], ["a", "c"]]}', b"\xff"])
def test_texts_that_are_none_are_refused(file: Path, empty: CacheStore, bob: KeyRing, text: bytes) -> None:
    done = import_entries(_changed(file, lambda n, d: (n, text if n.endswith("key.json") else d)), empty, bob)
    assert not any(one.done for one in done) and empty.entries() == ()


def test_missing_texts_are_refused(file: Path, empty: CacheStore, bob: KeyRing) -> None:
    done = import_entries(_changed(file, lambda n, d: (n.replace("key.json", "README"), d)), empty, bob)
    assert all("is missing" in one.reason for one in done) and empty.entries() == ()


def test_one_bad_entry_does_not_spoil_the_others(
    file: Path, empty: CacheStore, bob: KeyRing, ada: KeyRing
) -> None:
    def cut(name: str, data: bytes) -> tuple[str, bytes]:
        return name, data[:-1] if KEYS[1].digest in name and name.endswith(".braze") else data

    done = import_entries(_changed(file, cut), empty, bob)
    assert sorted(one.done for one in done) == [False, True, True, True]
    assert "cut" in next(one.reason for one in done if not one.done)


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_no_damage_brings_in_other_code(
    tmp_path_factory: pytest.TempPathFactory, damage_case: tuple[bytes, KeyRing, Key], data: st.DataObject
) -> None:
    """Whatever is changed in the file: what arrives was signed, and no error of another type comes."""
    good, ring, key = damage_case
    changed = bytearray(good)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(changed) - 1))
        changed[at : at + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=4))
    folder = tmp_path_factory.mktemp("damage")
    (folder / "x.zip").write_bytes(changed)
    store = CacheStore(folder / "store")
    try:
        import_entries(folder / "x.zip", store, ring)
    except ArtifactError:
        assert store.entries() == ()
    assert all(entry.payload == b"good code" for entry in store.get(key.digest))
    assert {info.key for info in store.entries()} <= {key.digest}
    store.close()


@pytest.fixture(scope="module")
def damage_case(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, KeyRing, Key]:
    folder = tmp_path_factory.mktemp("case")
    ring = KeyRing(folder / "ring")
    ring.generate("ada")
    store = CacheStore(folder / "store")
    store.put(KEYS[0], b"good code", name="graph", kind="graph")
    export_entries(folder / "x.zip", store, store.entries(), ring)
    return (folder / "x.zip").read_bytes(), ring, KEYS[0]


def test_a_bomb_does_not_go_off(
    file: Path, empty: CacheStore, bob: KeyRing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("braze.cache.bundle.MAX_FILE", 10_000)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"ab/{'ab' * 32}/x.braze", bytes(10_000_000))
    file.write_bytes(out.getvalue())
    (one,) = import_entries(file, empty, bob)
    assert not one.done and "more than 10000 bytes" in one.reason


def test_files_that_are_none_are_refused(empty: CacheStore, bob: KeyRing, tmp_path: Path) -> None:
    path = tmp_path / "x"
    with pytest.raises(CacheError, match="cannot be read"):
        import_entries(path, empty, bob)
    path.write_bytes(b"no archive")
    with pytest.raises(ArtifactError, match="is not a file of"):
        import_entries(path, empty, bob)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("README", "hello")
    with pytest.raises(ArtifactError, match="holds no entries"):
        import_entries(path, empty, bob)


def test_an_export_needs_a_key_and_a_place(
    full: CacheStore, ada: KeyRing, bob: KeyRing, tmp_path: Path
) -> None:
    with pytest.raises(KeyringError, match="no key to sign with"):
        export_entries(tmp_path / "x.zip", full, full.entries(), bob)
    with pytest.raises(CacheError, match="cannot be written"):
        export_entries(tmp_path / "no such folder" / "x.zip", full, full.entries(), ada)
    assert not (tmp_path / "x.zip").exists()


def test_an_entry_that_is_gone_is_left_out(full: CacheStore, ada: KeyRing, tmp_path: Path) -> None:
    entries = full.entries()
    full.remove(entries[:1])
    done = export_entries(tmp_path / "x.zip", full, entries, ada)
    assert [one.done for one in done] == [False, True, True, True]
    assert done[0].reason == "it is no longer in the cache"


def test_the_payload_of_one_variant_does_not_pass_for_another(
    ada: KeyRing, empty: CacheStore, tmp_path: Path
) -> None:
    """Guards are signed, too: code for small sizes is not stored as code for large ones."""
    key = KEYS[0]
    signed = sign_entry(b"small", key.digest, ada, level=1, kind="graph", guards="s0 < 9")
    forged = signed.replace(b"s0 < 9", b"s0 > 9")
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{key.digest[:2]}/{key.digest}/{'0' * 32}-{ada.keys()[0].id}.braze", forged)
    (one,) = import_entries(path, empty, ada)
    assert not one.done and one.reason.startswith("refused: ")
