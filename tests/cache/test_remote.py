"""A cache that machines share: only signed answers come out, and no storage can hold anybody up."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from braze import config
from braze.cache import remote as module
from braze.cache.job_queue import JobQueue
from braze.cache.keyring import KeyRing
from braze.cache.remote import Breaker, RemoteCache, configured, entry_name, signer_of
from braze.cache.signed_entry import sign_entry

KEY = "ab" * 32
OTHER_KEY = "cd" * 32
CODE = b"machine code"
SOON = 10.0
"""Seconds in which everything that works is done, on however busy a machine."""


class Moody(MemoryFileSystem):  # type: ignore[misc]
    """A storage in memory that hangs, fails or tires when told to."""

    protocol = "braze-moody"
    store: dict[str, Any] = {}  # noqa: RUF012 - as its base class has it
    pseudo_dirs = [""]  # noqa: RUF012
    release = threading.Event()
    mood = "well"
    calls = 0
    patience = 0

    def _suffer(self) -> None:
        type(self).calls += 1
        if self.mood == "hanging":
            self.release.wait(60)
        if self.mood == "failing":
            raise OSError("the network is down")
        if self.mood == "odd":
            raise KeyError("a driver's own bug")
        if self.mood == "tiring" and self.calls > self.patience:
            self.release.wait(60)

    def ls(self, path: str, detail: bool = True, **options: Any) -> Any:
        self._suffer()
        return super().ls(path, detail=detail, **options)

    def cat_file(self, path: str, start: Any = None, end: Any = None, **options: Any) -> Any:
        self._suffer()
        return super().cat_file(path, start, end, **options)

    def pipe_file(self, path: str, value: bytes, **options: Any) -> None:
        self._suffer()
        super().pipe_file(path, value, **options)


fsspec.register_implementation("braze-moody", Moody, clobber=True)


@pytest.fixture
def moody() -> Iterator[type[Moody]]:
    Moody.store, Moody.pseudo_dirs, Moody.release = {}, [""], threading.Event()
    Moody.mood, Moody.calls = "well", 0
    yield Moody
    Moody.mood = "well"
    Moody.release.set()


@pytest.fixture
def ring(tmp_path: Path) -> KeyRing:
    made = KeyRing(tmp_path / "ring")
    made.generate("ada")
    return made


@pytest.fixture
def bob(tmp_path: Path, ring: KeyRing) -> KeyRing:
    """Somebody who trusts ada and has a key that ada does not know."""
    made = KeyRing(tmp_path / "bob")
    made.generate("bob")
    made.trust(ring.keys()[0].text)
    return made


@pytest.fixture(params=["file", "memory", "path", "braze-moody"])
def url(request: pytest.FixtureRequest, tmp_path: Path, moody: type[Moody]) -> str:
    folder = tmp_path / "shared by çà et là"
    return {
        "file": f"file://{folder}",
        "path": str(folder),
        "memory": f"memory://{uuid.uuid4().hex}",
        "braze-moody": "braze-moody://shared",
    }[str(request.param)]


def _put(remote: RemoteCache, payload: bytes = CODE, key: str = KEY, guards: str = "") -> None:
    assert remote.put(key, payload, level=1, kind="graph", name="graph0", guards=guards)
    assert remote.flush(SOON)


def _files(url: str) -> list[str]:
    system, root = fsspec.core.url_to_fs(url)
    system.invalidate_cache()
    return sorted(str(path)[len(root) :].lstrip("/") for path in system.find(root))


def test_what_one_machine_puts_another_gets(url: str, ring: KeyRing, bob: KeyRing) -> None:
    writer, reader = RemoteCache(url, 10_000, ring), RemoteCache(url, 10_000, bob)
    assert reader.get(KEY) == [], "nothing is there yet, and that is no failure"
    _put(writer, guards="s0 >= 2")
    (opened,) = reader.get(KEY, level=1, kind="graph")
    assert opened.payload == CODE and opened.signer.name == "ada"
    assert (opened.header.guards, opened.header.name) == ("s0 >= 2", "graph0")
    assert reader.get(OTHER_KEY) == []
    assert writer.counts.written == 1 and reader.counts.failures == 0
    assert (reader.counts.looks, reader.counts.hits) == (3, 1)


def test_files_are_named_for_what_is_in_them(url: str, ring: KeyRing) -> None:
    remote = RemoteCache(url, 10_000, ring)
    _put(remote)
    (name,) = _files(url)
    signer = ring.keys()[0].id
    assert name == entry_name(KEY, "", CODE, signer) and name.startswith(f"ab/{KEY}/")
    assert signer_of(name) == signer


def test_answers_under_different_guards_stand_side_by_side(url: str, ring: KeyRing) -> None:
    remote = RemoteCache(url, 10_000, ring)
    _put(remote, guards="s0 < 9")
    _put(remote, guards="s0 >= 9")
    _put(remote, b"other code", guards="s0 >= 9")
    found = {(bytes(one.payload), one.header.guards) for one in remote.get(KEY)}
    assert found == {(CODE, "s0 < 9"), (CODE, "s0 >= 9"), (b"other code", "s0 >= 9")}


def test_the_same_thing_is_written_once(url: str, ring: KeyRing) -> None:
    remote = RemoteCache(url, 10_000, ring)
    _put(remote)
    _put(remote)
    assert remote.counts.written == 1 and len(_files(url)) == 1


def test_a_file_that_was_cut_is_refused_and_written_anew(url: str, ring: KeyRing) -> None:
    remote = RemoteCache(url, 10_000, ring)
    _put(remote)
    system, root = fsspec.core.url_to_fs(url)
    path = f"{root}/{_files(url)[0]}"
    system.pipe_file(path, system.cat_file(path)[:-3])
    assert remote.get(KEY) == [] and remote.counts.refused == 1
    _put(remote)
    assert [bytes(one.payload) for one in remote.get(KEY)] == [CODE]


def test_only_so_many_answers_are_read(
    ring: KeyRing, moody: type[Moody], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_VARIANTS", 3)
    remote = RemoteCache("braze-moody://shared", 10_000, ring)
    for number in range(5):
        _put(remote, guards=f"s0 == {number}")
    moody.calls = 0
    assert len(remote.get(KEY)) == 3
    assert moody.calls == 1 + 3


def _plant(url: str, name: str, data: bytes) -> None:
    system, root = fsspec.core.url_to_fs(url)
    system.makedirs(f"{root}/{name}".rsplit("/", 1)[0], exist_ok=True)
    system.pipe_file(f"{root}/{name}", data)


def test_strangers_are_not_even_read(
    ring: KeyRing, bob: KeyRing, moody: type[Moody], caplog: pytest.LogCaptureFixture
) -> None:
    url = "braze-moody://shared"
    _put(RemoteCache(url, 10_000, bob))
    _put(RemoteCache(url, 10_000, bob), b"more of his")
    moody.calls = 0
    remote = RemoteCache(url, 10_000, ring)
    with caplog.at_level(logging.INFO, "braze"):
        assert remote.get(KEY) == [] and remote.get(KEY) == []
    assert moody.calls == 2, "two looks into the folder, and no file"
    (line,) = caplog.records
    stranger = bob.find("bob").id
    assert line.levelno == logging.WARNING and stranger in line.getMessage(), "said once, with the key"
    assert remote.counts.refused == 4
    ring.trust(bob.find("bob").text)
    assert len(remote.get(KEY)) == 2, "trust takes effect at once"
    ring.distrust("bob")
    assert remote.get(KEY) == []


def _refusal(url: str, name: str, data: bytes, ring: KeyRing, caplog: pytest.LogCaptureFixture) -> str:
    """What is logged when a planted file is met."""
    _plant(url, name, data)
    remote = RemoteCache(url, 10_000, ring)
    caplog.clear()
    with caplog.at_level(logging.INFO, "braze"):
        assert remote.get(KEY) == []
    (line,) = caplog.records
    assert line.levelno == logging.WARNING and remote.counts.refused == 1 and remote.counts.failures == 0
    return line.getMessage()


def test_forgeries_are_refused_and_logged(
    url: str, ring: KeyRing, bob: KeyRing, caplog: pytest.LogCaptureFixture
) -> None:
    ada = ring.keys()[0].id
    name = entry_name(KEY, "", CODE, ada)
    by_bob = sign_entry(CODE, KEY, bob, level=1, kind="graph", signer="bob")
    assert bob.find("bob").id in _refusal(url, name, by_bob, ring, caplog)
    replayed = sign_entry(CODE, OTHER_KEY, ring, level=1, kind="graph")
    told = _refusal(url, name, replayed, ring, caplog)
    assert OTHER_KEY in told and ada in told and "stored under" in told
    assert ada in _refusal(url, name, CODE, ring, caplog)
    good = sign_entry(CODE, KEY, ring, level=1, kind="graph")
    assert "checksum" in _refusal(url, name, good[:-1] + b"!", ring, caplog)


def test_an_unsigned_file_is_refused_by_its_name(
    url: str, ring: KeyRing, caplog: pytest.LogCaptureFixture
) -> None:
    assert "not signed" in _refusal(url, f"ab/{KEY}/{'0' * 32}.braze", CODE, ring, caplog)


def test_a_giant_is_not_read(
    moody: type[Moody], ring: KeyRing, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_FILE", 1000)
    monkeypatch.setattr(module, "MAX_ENTRY", 1000)
    name = entry_name(KEY, "", CODE, ring.keys()[0].id)
    assert "too many" in _refusal("braze-moody://shared", name, bytes(1001), ring, caplog)
    assert not RemoteCache("braze-moody://shared", 10_000, ring).put(KEY, bytes(1001), level=1, kind="graph")


def test_other_files_are_none_of_our_business(url: str, ring: KeyRing) -> None:
    remote = RemoteCache(url, 10_000, ring)
    _put(remote)
    _plant(url, f"ab/{KEY}/README", b"hello")
    _plant(url, f"ab/{KEY}/.x.braze.12.part", b"half of it")
    assert len(remote.get(KEY)) == 1 and remote.counts.refused == 0


def test_a_ring_that_is_not_believed_lets_nothing_in(
    url: str, ring: KeyRing, caplog: pytest.LogCaptureFixture
) -> None:
    remote = RemoteCache(url, 10_000, ring)
    _put(remote)
    ring.folder.chmod(0o777)
    with caplog.at_level(logging.WARNING, "braze"):
        assert remote.get(KEY) == []
    assert "written by others" in caplog.text and remote.counts.failures == 0


def test_without_a_key_nothing_is_written_and_it_is_said_once(
    url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    remote = RemoteCache(url, 10_000, KeyRing(tmp_path / "none"))
    with caplog.at_level(logging.INFO, "braze"):
        _put(remote)
        _put(remote, b"more")
    (line,) = caplog.records
    assert "braze cache keygen" in line.getMessage() and line.levelno == logging.INFO
    assert remote.counts.written == 0 and _files(url) == []


def test_a_storage_that_hangs_costs_one_deadline(
    moody: type[Moody], ring: KeyRing, caplog: pytest.LogCaptureFixture
) -> None:
    remote = RemoteCache("braze-moody://shared", 100, ring)
    moody.mood = "hanging"
    begin = time.perf_counter()
    with caplog.at_level(logging.INFO, "braze"):
        for _ in range(50):
            assert remote.get(KEY) == []
    assert 0.09 < time.perf_counter() - begin < 2, "one deadline of 0.1 s, not fifty"
    assert moody.calls == 1 and remote.counts.failures == 1
    (line,) = caplog.records
    assert line.levelno == logging.WARNING and "did not answer within 0.1 s" in line.getMessage()


@pytest.mark.parametrize(("mood", "text"), [("failing", "the network is down"), ("odd", "KeyError")])
def test_a_storage_that_fails_is_left_alone_for_a_while(
    moody: type[Moody], ring: KeyRing, caplog: pytest.LogCaptureFixture, mood: str, text: str
) -> None:
    now = [0.0]
    remote = RemoteCache("braze-moody://shared", 10_000, ring, clock=lambda: now[0])
    _put(remote)
    moody.mood, moody.calls = mood, 0
    with caplog.at_level(logging.INFO, "braze"):
        for _ in range(3):
            assert remote.get(KEY) == []
        assert moody.calls == 1
        now[0] += 6
        assert remote.get(KEY) == [] and remote.get(KEY) == []
        assert moody.calls == 2
        (line,) = caplog.records
        assert text in line.getMessage() and "goes on without it" in line.getMessage()
        moody.mood = "well"
        assert remote.get(KEY) == [], "the pause is longer after the second failure"
        now[0] += 6
        assert remote.get(KEY) == []
        now[0] += 6
        assert len(remote.get(KEY)) == 1
    assert "answers again" in caplog.text
    assert len(caplog.records) == 2


def test_what_came_before_the_deadline_counts(moody: type[Moody], ring: KeyRing) -> None:
    fast = RemoteCache("braze-moody://shared", 10_000, ring)
    for number in range(12):
        _put(fast, guards=f"s0 == {number}")
    tired = RemoteCache("braze-moody://shared", 1000, ring)
    moody.mood, moody.calls, moody.patience = "tiring", 0, 1 + 4
    assert len(tired.get(KEY)) == 4
    assert tired.counts.failures == 1


def test_writing_is_never_waited_for(moody: type[Moody], ring: KeyRing) -> None:
    remote = RemoteCache("braze-moody://shared", 100, ring)
    moody.mood = "hanging"
    begin = time.perf_counter()
    accepted = [remote.put(KEY, CODE, level=1, kind="graph", guards=str(number)) for number in range(300)]
    assert time.perf_counter() - begin < 2
    assert accepted[0] and not all(accepted), "the queue has an end"
    assert remote.counts.dropped == accepted.count(False) and not remote.flush(0.01)
    moody.mood = "well"
    moody.release.set()
    assert remote.flush(SOON) and remote.counts.written == accepted.count(True)


def test_a_storage_that_cannot_be_written_can_still_be_read(
    moody: type[Moody], ring: KeyRing, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = RemoteCache("braze-moody://shared", 10_000, ring)
    _put(remote)

    def refuse(self: Moody, path: str, value: bytes, **options: Any) -> None:
        raise PermissionError("read only")

    monkeypatch.setattr(moody, "pipe_file", refuse)
    with caplog.at_level(logging.INFO, "braze"):
        _put(remote, b"more")
        assert not remote.put(KEY, b"still more", level=1, kind="graph")
    (line,) = caplog.records
    assert "cannot be written to" in line.getMessage() and "read only" in line.getMessage()
    assert len(remote.get(KEY)) == 1
    assert not [name for name in _files("braze-moody://shared") if ".part" in name]


@pytest.mark.parametrize("url", ["no-such-protocol://x", "file:///proc/nobody/writes/here", "http://["])
def test_offline_or_nonsense_is_no_error(url: str, ring: KeyRing, caplog: pytest.LogCaptureFixture) -> None:
    remote = RemoteCache(url, 10_000, ring)
    with caplog.at_level(logging.INFO, "braze"):
        for _ in range(3):
            assert remote.get(KEY) == []
            remote.put(KEY, CODE, level=1, kind="graph")
            assert remote.flush(SOON)
    assert remote.counts.failures >= 1
    assert 1 <= len(caplog.records) <= 2, "at most a line for reading and a line for writing"


def test_half_a_file_is_never_seen(ring: KeyRing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer that dies between writing and renaming leaves nothing that a reader takes for an entry."""
    url = str(tmp_path / "shared")
    remote = RemoteCache(url, 10_000, ring)
    system, _ = fsspec.core.url_to_fs(url)

    def die(*_: object, **__: object) -> None:
        raise OSError("no rename")

    monkeypatch.setattr(type(system), "mv", die)
    _put(remote)
    assert remote.counts.written == 0 and remote.counts.failures == 1
    assert _files(url) == []


_LAST_WORDS = """
import sys, time
from concurrent.futures import ThreadPoolExecutor
from fsspec import register_implementation
from fsspec.implementations.local import LocalFileSystem
from braze.cache import job_queue
from braze.cache.keyring import KeyRing
from braze.cache.remote import RemoteCache

url, ring, seconds = sys.argv[1:]

class Late(LocalFileSystem):
    protocol = "late"
    def pipe_file(self, path, value, **options):
        time.sleep(float(seconds))  # until the process is at its end
        with ThreadPoolExecutor(1) as pool:
            pool.submit(super().pipe_file, path, value).result()

register_implementation("late", Late)
job_queue.EXIT_SECONDS = 5.0
RemoteCache("late://" + url, 5000, KeyRing(ring)).put("ab" * 32, b"x", level=1, kind="graph")
"""


def test_the_end_of_the_process_waits_for_what_was_put(ring: KeyRing, tmp_path: Path) -> None:
    url = str(tmp_path / "shared")
    subprocess.run([sys.executable, "-c", _LAST_WORDS, url, str(ring.folder), "0.3"], check=True, timeout=60)
    assert len(_files(url)) == 1


def test_the_end_of_the_process_does_not_wait_for_ever(ring: KeyRing, tmp_path: Path) -> None:
    url = str(tmp_path / "shared")
    program = _LAST_WORDS.replace("EXIT_SECONDS = 5.0", "EXIT_SECONDS = 0.2")
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", program, url, str(ring.folder), "50"], check=True, timeout=60)
    assert time.perf_counter() - begin < 20
    assert _files(url) == []


def test_a_forked_child_has_a_writer_of_its_own(ring: KeyRing, tmp_path: Path) -> None:
    remote = RemoteCache(str(tmp_path / "shared"), 10_000, ring)
    _put(remote)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            good = remote.put(KEY, b"the child's", level=1, kind="graph") and remote.flush(SOON)
            code = 0 if good and len(remote.get(KEY)) == 2 else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert len(remote.get(KEY)) == 2


def test_secrets_of_a_url_are_not_logged(ring: KeyRing, caplog: pytest.LogCaptureFixture) -> None:
    remote = RemoteCache("no-such-protocol://ada:hunter2@host/x?token=hunter2", 10_000, ring)
    with caplog.at_level(logging.DEBUG, "braze"):
        remote.get(KEY)
    assert caplog.records and "hunter2" not in caplog.text and "no-such-protocol://host/x" in caplog.text


def test_a_digest_that_is_none_names_no_file(url: str, ring: KeyRing) -> None:
    remote = RemoteCache(url, 10_000, ring)
    for digest in ("", "../../etc", "ab/cd", "AB" * 32):
        assert remote.get(digest) == [] and not remote.put(digest, CODE, level=1, kind="graph")
        with pytest.raises(ValueError, match="not a digest"):
            entry_name(digest, "", CODE, "0" * 20)


def test_options_name_the_remote_cache(tmp_path: Path) -> None:
    with config.patch(remote_cache=None):
        assert configured() is None
    with config.patch(remote_cache=str(tmp_path), keyring_dir=str(tmp_path / "ring")):
        one, two = configured(), configured()
        assert one is not None and one is two and one.url == str(tmp_path)
        with config.patch(keyring_dir=str(tmp_path / "other")):
            assert configured() is not one


def test_the_pause_doubles_up_to_a_limit_and_ends_with_success() -> None:
    now = [100.0]
    breaker = Breaker(first=1.0, longest=5.0, clock=lambda: now[0])
    assert breaker.allows and not breaker.succeeded()
    assert [breaker.failed() for _ in range(5)] == [1.0, 2.0, 4.0, 5.0, 5.0]
    assert not breaker.allows
    now[0] += 5
    assert breaker.allows and breaker.succeeded() and breaker.allows
    assert breaker.failed() == 1.0


def test_a_background_job_that_fails_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    queue = JobQueue("a test's jobs", jobs=4, size=100)
    done = threading.Event()

    def fail() -> None:
        raise RuntimeError("on purpose")

    with caplog.at_level(logging.WARNING, "braze"):
        assert queue.offer(fail, 1) and queue.offer(done.set, 1) and queue.flush(SOON)
    assert done.is_set() and "on purpose" in caplog.text
    assert not queue.offer(done.set, 101), "more bytes than may be held"
