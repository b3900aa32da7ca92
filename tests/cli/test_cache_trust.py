"""`braze cache keygen|trust|distrust|keys|sign|export|import`: two people who share what they compiled."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from braze import config
from braze.cache.keyring import KeyRing
from braze.cache.keys import Key
from braze.cache.store import CacheStore
from braze.cli.main import main

KEY = Key.of({"graph": "graph():\n  return x\n", "inputs": "float32[4]", "versions.braze": "1"})


@dataclass
class Person:
    """Somebody with a key ring and a cache of his own."""

    folder: Path

    def types(self, *words: str, typed: str | None = None) -> Result:
        with config.patch(cache_dir=str(self.folder / "cache"), keyring_dir=str(self.folder / "keys")):
            return CliRunner().invoke(main, ["cache", *words], input=typed)

    def does(self, *words: str) -> str:
        result = self.types(*words)
        assert result.exit_code == 0, result.output
        return result.output

    def fails(self, *words: str) -> str:
        result = self.types(*words)
        assert result.exit_code != 0 and (
            result.exception is None or isinstance(result.exception, SystemExit)
        )
        return result.output

    @property
    def ring(self) -> KeyRing:
        return KeyRing(self.folder / "keys")

    @property
    def store(self) -> CacheStore:
        return CacheStore(self.folder / "cache")


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def ada(tmp_path: Path) -> Person:
    return Person(tmp_path / "ada's things")


@pytest.fixture
def bob(tmp_path: Path) -> Person:
    return Person(tmp_path / "bob")


@pytest.fixture
def file(ada: Person, tmp_path: Path) -> Iterator[Path]:
    """What ada exported: one entry."""
    ada.does("keygen", "ada")
    store = ada.store
    store.put(KEY, b"machine code", name="graph0_inference", kind="graph", guards="s0 >= 2")
    path = tmp_path / "for bob.zip"
    yield path
    store.close()


def _pasted(output: str) -> list[str]:
    """The words of the line that keygen prints for others to paste, after `braze cache`."""
    (line,) = [line for line in output.splitlines() if line.strip().startswith("braze cache trust")]
    return line.split()[2:]


def test_a_key_is_made_pasted_and_trusted(ada: Person, bob: Person) -> None:
    words = _pasted(ada.does("keygen", "ada"))
    assert words[:2] == ["trust", "braze-ed25519"] and len(words) == 4
    (key,) = ada.ring.keys()
    output = bob.does(*words)
    assert "ada" in output and key.id in output and "with all your rights" in output
    (known,) = bob.ring.keys()
    assert known.id == key.id and not known.own


def test_a_key_needs_no_name(ada: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("getpass.getuser", lambda: "ada lovelace")
    monkeypatch.setattr("platform.node", lambda: "engine_1.example.org")
    ada.does("keygen")
    assert ada.ring.keys()[0].name == "ada-lovelace@engine-1"


def test_a_key_can_be_quoted_piped_or_in_a_file(ada: Person, bob: Person, tmp_path: Path) -> None:
    ada.does("keygen", "ada")
    text = ada.does("keys", "--text")
    assert text == ada.ring.keys()[0].text + "\n"
    file = tmp_path / "a key.txt"
    file.write_text(text, encoding="utf-8")
    for words, typed in (
        (["trust", text.strip()], None),
        (["trust", "-"], text),
        (["trust", str(file)], None),
    ):
        assert bob.types(*words, typed=typed).exit_code == 0
        assert bob.ring.distrust("ada").id == ada.ring.keys()[0].id
    assert bob.types("trust", "-", "--name", "ada2", typed=text).exit_code == 0
    assert bob.ring.keys()[0].name == "ada2"


def test_nonsense_is_refused_in_words(ada: Person) -> None:
    assert "is not a public key" in ada.fails("trust", "braze-ed25519", "hello", "ada")
    assert "cannot be used" in ada.fails("trust", "no-such-file")
    assert "no trusted key" in ada.fails("distrust", "nobody")
    assert "is not a name" in ada.fails("keygen", "two words")
    assert ada.ring.keys() == ()


def test_keys_are_listed(ada: Person, bob: Person) -> None:
    assert "no key is trusted yet" in ada.does("keys") and json.loads(ada.does("keys", "--json")) == []
    ada.does("keygen", "first")
    ada.does("keygen", "second")
    ada.does(*_pasted(bob.does("keygen", "bob")))
    rows = {line.split()[0]: line for line in ada.does("keys").splitlines() if line.strip()}
    assert "somebody's" in rows["bob"] and bob.ring.keys()[0].id in rows["bob"]
    assert "yours, signs" in rows["second"]
    assert "yours" in rows["first"] and "signs" not in rows["first"]
    plain = {key["name"]: key for key in json.loads(ada.does("keys", "--json"))}
    assert (plain["bob"]["own"], plain["second"]["default"], plain["first"]["default"]) == (
        False,
        True,
        False,
    )


def test_an_entry_goes_from_one_to_the_other(ada: Person, bob: Person, file: Path) -> None:
    output = ada.does("export", str(file), "--all")
    assert "✓ signed" in output and "graph0_inference" in output and "1 entry in" in output
    output = bob.fails("import", str(file))
    assert "refused" in output and ada.ring.keys()[0].id in output and "braze cache trust" in output
    assert bob.store.entries() == ()
    bob.does("trust", ada.ring.keys()[0].text)
    assert "✓ taken" in bob.does("import", str(file))
    (entry,) = bob.store.get(KEY.digest)
    assert entry.payload == b"machine code" and entry.guards == "s0 >= 2"
    assert entry.origin == ada.ring.keys()[0].id
    assert bob.store.key(KEY.digest) == KEY
    assert "it is in the cache already" in bob.does("import", str(file))


def test_distrust_takes_along_what_was_signed(ada: Person, bob: Person, file: Path) -> None:
    ada.does("export", str(file), KEY.digest[:8])
    bob.does("trust", ada.ring.keys()[0].text)
    bob.does("import", str(file))
    mine = Key.of({"graph": "mine"})
    bob.store.put(mine, b"mine", name="mine", kind="graph")
    assert "deleted 1 entry" in bob.does("distrust", "ada")
    assert [entry.name for entry in bob.store.entries()] == ["mine"]


def test_distrusting_ones_own_key_says_where_it_is(ada: Person) -> None:
    ada.does("keygen", "ada")
    assert str(ada.folder / "keys" / "own") in ada.does("distrust", "ada")
    assert ada.ring.default() is None


def test_nobody_vouches_for_others_by_accident(ada: Person, bob: Person, file: Path, tmp_path: Path) -> None:
    ada.does("export", str(file), "--all")
    bob.does("trust", ada.ring.keys()[0].text)
    bob.does("import", str(file))
    bob.does("keygen", "bob")
    again = tmp_path / "again.zip"
    assert "--foreign" in bob.fails("export", str(again), "--all")
    assert not again.exists()
    bob.store.put(Key.of({"graph": "mine"}), b"mine", name="mine", kind="graph")
    assert "1 entry of others left out" in bob.does("export", str(again), "--all")
    bob.does("export", str(again), "--all", "--foreign")
    with zipfile.ZipFile(again) as archive:
        entries = [name for name in archive.namelist() if name.endswith(".braze")]
    assert len(entries) == 2 and all(bob.ring.find("bob").id in name for name in entries)


def test_an_export_says_what_it_lacks(ada: Person, bob: Person, file: Path) -> None:
    assert "say which entries" in ada.fails("export", str(file))
    assert "say which entries" in ada.fails("export", str(file), "--all", "ab")
    assert "no key begins with" in ada.fails("export", str(file), "zz")
    assert "nothing to export" in bob.fails("export", str(file), "--all")
    ada.ring.distrust("ada")
    assert "braze cache keygen" in ada.fails("export", str(file), "--all")
    assert not file.exists()


def test_an_import_of_something_else_is_refused_in_words(ada: Person, tmp_path: Path) -> None:
    other = tmp_path / "photo.png"
    assert "cannot be read" in ada.fails("import", str(other))
    other.write_bytes(b"\x89PNG")
    assert "is not a file of" in ada.fails("import", str(other))


def test_packages_are_signed_inside_and_files_outside(ada: Person, bob: Person, tmp_path: Path) -> None:
    ada.does("keygen", "ada")
    package, plain = tmp_path / "model.pt2", tmp_path / "notes [1].txt"
    with zipfile.ZipFile(package, "w") as archive:
        archive.writestr("model/version", "1")
    plain.write_text("notes", encoding="utf-8")
    both = [str(package), str(plain)]
    assert ada.fails("sign", "--check", *both).count("✗") == 2
    output = ada.does("sign", *both)
    assert "signed inside by ada" in output and "signed in a file beside it by ada" in output
    assert ada.does("sign", "--check", *both).count("signed by ada") == 2
    assert bob.fails("sign", "--check", *both).count("is not trusted") == 2
    plain.write_text("other notes", encoding="utf-8")
    output = ada.fails("sign", "--check", *both)
    assert output.count("✓") == 1 and output.count("✗") == 1
    assert "cannot be used" in ada.fails("sign", str(tmp_path / "nothing.txt"))
    assert "no key to sign with" in bob.fails("sign", *both)


def test_the_named_key_signs(ada: Person, tmp_path: Path) -> None:
    ada.does("keygen", "first")
    ada.does("keygen", "second")
    file = tmp_path / "x"
    file.write_bytes(b"x")
    assert "by first" in ada.does("sign", "--key", "first", str(file))
    assert "signed by first" in ada.does("sign", "--check", str(file))


def test_help_says_what_trust_means(ada: Person) -> None:
    text = " ".join(ada.does("trust", "--help").split())
    assert "whatever it signs, this machine will run as you" in text
    listed = ada.does("--help")
    assert all(name in listed for name in "keygen trust distrust keys sign export import".split())
