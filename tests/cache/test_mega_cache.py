"""Entries that `torch.compiler.save_cache_artifacts` carries: signed when saved, checked when loaded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from torch import compiler

from braze import config
from braze._torch import cache_artifacts
from braze.cache import mega_cache, signed_entry
from braze.cache.keyring import KeyRing
from braze.cache.keys import Key
from braze.cache.store import CacheStore, open_store
from tests.cache.stores import key_of, payload_of

Save = Callable[[], bytes]
KEY = key_of(1)
PAYLOAD = payload_of(KEY)


@pytest.fixture
def ring(tmp_path: Path) -> Iterator[KeyRing]:
    """The key ring that the options name; it is empty."""
    with config.patch(keyring_dir=str(tmp_path / "ring"), cache=True, cache_dir=str(tmp_path / "target")):
        yield KeyRing()


@pytest.fixture
def store(tmp_path: Path) -> CacheStore:
    made = CacheStore(tmp_path / "source")
    assert made.put(KEY, PAYLOAD, name="g", kind="inference", guards="s0 < 9")
    return made


@pytest.fixture
def save(store: CacheStore, monkeypatch: pytest.MonkeyPatch) -> Save:
    """The content under which the entry is saved now."""
    return lambda: _saved(store, monkeypatch)


def _saved(
    store: CacheStore,
    monkeypatch: pytest.MonkeyPatch,
    guards: str = "s0 < 9",
    pending: mega_cache.PendingArtifact | None = None,
) -> bytes:
    made: list[Callable[[], bytes]] = []
    monkeypatch.setattr(mega_cache, "_said", set())
    monkeypatch.setattr(cache_artifacts, "record", lambda key, content: made.append(content))
    mega_cache.record(store, KEY.digest, 1, guards, pending)
    return made[0]()


def target() -> CacheStore:
    store = open_store(config.current())
    assert store is not None
    return store


def test_what_is_saved_is_restored_as_it_was(ring: KeyRing, save: Save) -> None:
    own = ring.generate("me")
    mega_cache.load(save())
    (entry,) = target().get(KEY.digest)
    assert (entry.payload, entry.guards, entry.level, entry.name) == (PAYLOAD, "s0 < 9", 1, "g")
    assert entry.origin == own.id
    key = target().key(KEY.digest)
    assert key is not None and key.parts == KEY.parts


def test_what_came_from_oneself_can_be_carried_on(ring: KeyRing, save: Save, store: CacheStore) -> None:
    own = ring.generate("me")
    store.put(KEY, PAYLOAD, name="g", kind="inference", guards="s0 < 9", origin=own.id)
    mega_cache.load(save())
    assert len(target().entries()) == 1


def test_what_is_no_longer_there_is_not_carried(
    ring: KeyRing, save: Save, store: CacheStore, caplog: pytest.LogCaptureFixture
) -> None:
    ring.generate("me")
    store.clear()
    assert save() == b""
    assert "no longer in the cache" in caplog.text


def test_without_a_key_nothing_is_carried(
    ring: KeyRing, save: Save, caplog: pytest.LogCaptureFixture
) -> None:
    assert save() == b""
    assert "braze cache keygen" in caplog.text
    mega_cache.load(b"")
    assert not target().entries()


def test_an_untrusted_signer_is_refused(
    ring: KeyRing, save: Save, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ring.generate("me")
    content = save()
    with config.patch(keyring_dir=str(tmp_path / "somebody else's")):
        mega_cache.load(content)
        assert not target().entries()
        assert "not trusted" in caplog.text
        KeyRing().trust(ring.signer().text)
        mega_cache.load(content)
    assert len(target().entries()) == 1


def test_an_entry_without_a_signature_is_refused(
    ring: KeyRing, save: Save, caplog: pytest.LogCaptureFixture
) -> None:
    own = ring.generate("me")
    content = save()
    assert content.count(own.id.encode()) == 1
    mega_cache.load(content.replace(own.id.encode(), b"0" * len(own.id)))
    mega_cache.load(_with_bytes_turned(content, PAYLOAD[100:140]))
    assert not target().entries()
    assert "not trusted" in caplog.text and "damaged" in caplog.text


def test_the_texts_have_to_be_those_of_the_key(
    ring: KeyRing, save: Save, caplog: pytest.LogCaptureFixture
) -> None:
    ring.generate("me")
    content = save()
    assert content.count(b"opt=1") == 1
    mega_cache.load(content.replace(b"opt=1", b"opt=2"))
    assert not target().entries()
    assert "stored under the key" in caplog.text


@pytest.mark.parametrize("content", [b"\0", b"\x81\xa3key\x90", b"braze" * 100])
def test_rubbish_is_refused(ring: KeyRing, content: bytes, caplog: pytest.LogCaptureFixture) -> None:
    mega_cache.load(content)
    assert not target().entries() and "damaged" in caplog.text


def test_what_is_there_stays(ring: KeyRing, save: Save) -> None:
    ring.generate("me")
    content = save()
    target().put(KEY, b"made here", name="g", kind="inference", guards="s0 < 9")
    mega_cache.load(content)
    (entry,) = target().get(KEY.digest)
    assert entry.payload == b"made here"


def test_nobody_vouches_for_what_others_made(
    ring: KeyRing, save: Save, store: CacheStore, caplog: pytest.LogCaptureFixture
) -> None:
    ring.generate("me")
    store.put(KEY, PAYLOAD, name="g", kind="inference", guards="s0 < 9", origin="12" * 10)
    assert save() == b""
    assert "1212" in caplog.text and "--foreign" in caplog.text


def test_what_the_store_did_not_take_is_carried(
    ring: KeyRing, store: CacheStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    ring.generate("me")
    store.clear()
    content = _saved(store, monkeypatch, "", mega_cache.PendingArtifact(KEY, b"code", "g", "inference"))
    mega_cache.load(content)
    (entry,) = target().get(KEY.digest)
    assert entry.payload == b"code"


def test_a_cache_that_is_off_takes_nothing(
    ring: KeyRing, save: Save, caplog: pytest.LogCaptureFixture
) -> None:
    ring.generate("me")
    content = save()
    with config.patch(cache=False):
        mega_cache.load(content)
    assert "switched off" in caplog.text and not target().entries()


def test_nothing_that_goes_wrong_spoils_the_save_of_others(
    ring: KeyRing,
    save: Save,
    store: CacheStore,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    ring.generate("me")

    def fail(*_: object) -> Key:
        raise OSError("the disk is gone")

    monkeypatch.setattr(store, "key", fail)
    assert save() == b""
    assert "the disk is gone" in caplog.text


def test_nothing_is_sealed_before_somebody_saves(
    ring: KeyRing, store: CacheStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    ring.generate("me")
    signed: list[bytes] = []

    def counted(*given: Any, **named: Any) -> bytes:
        signed.append(signed_entry.sign_entry(*given, **named))
        return signed[-1]

    monkeypatch.setattr("braze.cache.mega_cache.sign_entry", counted)
    mega_cache.record(store, KEY.digest, 1, "s0 < 9")
    mega_cache.record(store, KEY.digest, 1, "s0 < 9")
    assert not signed
    saved = compiler.save_cache_artifacts()
    assert saved is not None
    kept = saved[1].artifacts["braze"]  # among them what this process recorded before
    assert len(signed) == len(kept)
    assert len([name for name in kept if name.startswith(KEY.digest)]) == 1


def _with_bytes_turned(content: bytes, part: bytes) -> bytes:
    assert content.count(part) == 1
    return content.replace(part, bytes(255 - byte for byte in part))
