"""Whatever happens to its folder and its file, the store raises nothing and returns nothing wrong."""

from __future__ import annotations

import logging
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from braze.cache import database
from braze.cache.paths import is_shared_by_machines, prepare_folder
from braze.cache.records import Collected
from braze.cache.store import CacheStore
from braze.errors import BrazeWarning, CacheError
from tests.cache.stores import file_of, has, is_of, key_of, payload_of, put, raw
from tests.source_tree import ROOT

DAMAGES = 100


@pytest.fixture
def store(tmp_path: Path) -> Iterator[CacheStore]:
    store = CacheStore(tmp_path / "cache")
    yield store
    store.close()


def use(store: CacheStore) -> None:
    """Call every method; what they find does not matter."""
    key = key_of(1)
    for entry in store.get(key.digest):
        store.touch(entry)
    store.record_miss(key, store.nearest(key), name="g")
    put(store, 1)
    store.get(key.digest)
    store.key(key.digest)
    store.misses()
    store.statistics()
    store.remove(store.entries()[:1])
    store.collect()
    store.close()


def as_nobody(work: Callable[[], None]) -> None:
    """Do it in a child process that cannot write where its user may not; root may write everywhere."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            if os.getuid() == 0:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
            work()
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0


# -- folders that cannot be used --------------------------------------------------------------------------
@pytest.mark.parametrize("where", ["/proc/braze-cache", "/dev/null/cache", "{tmp}/file/cache", "{tmp}/file"])
def test_a_folder_that_cannot_be_made_is_reported_once(
    where: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("not a folder")
    store = CacheStore(where.format(tmp=tmp_path))
    with warnings.catch_warnings(record=True) as told, caplog.at_level(logging.INFO, "braze"):
        warnings.simplefilter("always")
        for _ in range(3):
            use(store)
        assert store.get(key_of(1).digest) == () and not put(store, 1)
        assert store.collect() == Collected() and store.entries() == ()
    assert [warning.category for warning in told] == [BrazeWarning]
    assert "BRAZE_CACHE_DIR" in str(told[0].message) and str(store.folder) in str(told[0].message)
    assert len(caplog.records) == 1
    assert store.problem is not None


def test_a_folder_that_others_can_write_to_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "open"
    folder.mkdir()
    for mode in (0o770, 0o702, 0o777):
        folder.chmod(mode)
        with pytest.raises(CacheError, match="can be written by others"):
            prepare_folder(folder)
        with pytest.warns(BrazeWarning, match="what is in a cache is run"):
            assert not put(CacheStore(folder), 1)
    assert list(folder.iterdir()) == []
    folder.chmod(0o755)
    assert put(CacheStore(folder), 1)


def test_a_folder_or_a_link_of_somebody_else_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, link = tmp_path / "folder", tmp_path / "link"
    folder.mkdir(mode=0o700)
    link.symlink_to(folder)
    prepare_folder(link)
    me = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: me + 1)
    with pytest.raises(CacheError, match="belongs to another user"):
        prepare_folder(folder)
    monkeypatch.setattr(os, "getuid", lambda: me)
    theirs = os.stat_result((0o120777, 1, 1, 1, me + 1, 0, 0, 0, 0, 0))
    monkeypatch.setattr(Path, "lstat", lambda path: theirs if path == link else path.stat())
    with pytest.raises(CacheError, match="is a link of another user"):
        prepare_folder(link)


def test_a_folder_that_somebody_else_can_replace_is_refused(tmp_path: Path) -> None:
    parent = tmp_path / "parent"
    parent.mkdir()
    parent.chmod(0o777)
    folder = parent / "folder"
    with pytest.raises(CacheError, match=r"on the way to .* can be written by others"):
        prepare_folder(folder)
    link = tmp_path / "link"
    link.symlink_to(folder)
    with pytest.raises(CacheError, match="on the way to"):
        prepare_folder(link)
    parent.chmod(0o1777)  # as /tmp: nobody can move what is not theirs
    prepare_folder(folder)
    prepare_folder(link)


def test_a_folder_in_a_folder_of_somebody_else_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = Path.stat

    def stat(path: Path, **how: bool) -> os.stat_result:
        found = ask(path, **how)
        return os.stat_result((*found[:4], 1234, *found[5:10])) if path == tmp_path else found

    monkeypatch.setattr(Path, "stat", stat)
    with pytest.raises(CacheError, match=r"on the way to .* belongs to another user"):
        prepare_folder(tmp_path / "folder")


def test_a_file_of_somebody_else_is_not_opened(store: CacheStore, monkeypatch: pytest.MonkeyPatch) -> None:
    put(store, 1)
    file_of(store).chmod(0o666)
    with pytest.warns(BrazeWarning, match="can be written by others"):
        assert not has(CacheStore(store.folder), 1)


@pytest.mark.parametrize("name", ["with blanks", "Größe é 漢字", "a?b#c%20d&mode=ro", "quote'\"", "\udcff"])
def test_any_path_will_do(tmp_path: Path, name: str) -> None:
    store = CacheStore(tmp_path / name / "cache")
    assert put(store, 1) and has(store, 1), store.problem
    store.close()
    assert has(CacheStore(tmp_path / name / "cache"), 1)


# -- folders that cannot be written to --------------------------------------------------------------------
@pytest.fixture
def open_to_all() -> Iterator[Path]:
    """A folder whose path every user may walk, unlike that of `tmp_path`."""
    folder = Path(tempfile.mkdtemp(prefix="braze-test-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def test_a_read_only_folder_is_no_cache(open_to_all: Path) -> None:
    folder = open_to_all / "cache"
    folder.mkdir(mode=0o500)
    if os.getuid() == 0:
        os.chown(folder, 65534, 65534)

    def work() -> None:
        store = CacheStore(folder)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            use(store)
            assert not put(store, 1) and store.entries() == ()
        assert len(told) == 1 and "Permission denied" in str(told[0].message)

    as_nobody(work)


def test_a_read_only_cache_is_read(open_to_all: Path) -> None:
    folder = open_to_all / "cache"
    first = CacheStore(folder)
    for number in range(5):
        put(first, number)
    first.close()
    for path in (folder, *folder.rglob("*")):
        if os.getuid() == 0:
            os.chown(path, 65534, 65534)
        path.chmod(0o500 if path.is_dir() else 0o400)

    def work() -> None:
        store = CacheStore(folder)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            use(store)
            assert not put(store, 7)
            assert all(has(store, number) for number in range(5)) and len(store.entries()) == 5
            assert store.statistics().entries == 5 and store.problem is None

    as_nobody(work)


FILL = """
import resource, sys, warnings
from tests.cache.stores import has, key_of, put
from braze.cache.store import CacheStore

if sys.argv[2] == "quota":
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000))
warnings.simplefilter("always")
store = CacheStore(sys.argv[1])
stored = {number for number in range(400) if put(store, number)}
assert 10 < len(stored) < 390, len(stored)
found = {number for number in range(400) if has(store, number)}
assert found == stored, (len(found), len(stored))
store.record_miss(key_of(900), store.nearest(key_of(900)))
store.close()
assert len(CacheStore(sys.argv[1]).entries()) == len(stored)
"""


def fill(*command: str, kind: str, folder: str) -> str:
    done = subprocess.run(
        [*command, sys.executable, "-c", FILL, folder, kind],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_a_full_quota_stops_nothing(tmp_path: Path) -> None:
    told = fill(kind="quota", folder=str(tmp_path / "cache"))
    assert told.count("BrazeWarning") == 1 and "are not kept" in told


def test_a_full_disk_stops_nothing(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    # A disk of 800 kB, for one command, where the system lets this user have one; else a quota once more.
    mount = f'mount -t tmpfs -o size=800k,mode=700 none "{disk}" && exec "$@"'
    own = ["unshare", *([] if os.getuid() == 0 else ["--map-root-user"]), "--mount", "sh", "-c", mount, "sh"]
    try:
        can = subprocess.run([*own, "true"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        can = False
    told = fill(*(own if can else []), kind="disk" if can else "quota", folder=str(disk / "cache"))
    assert told.count("BrazeWarning") == 1
    assert "disk is full" in told if can else "are not kept" in told


# -- files that vanish or change --------------------------------------------------------------------------
@pytest.mark.parametrize("lost", ["cache", "cache/store-1", "cache/store-1/graphs.sqlite"])
def test_what_is_deleted_while_in_use_begins_anew(tmp_path: Path, lost: str) -> None:
    store = CacheStore(tmp_path / "cache")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(3):
            assert put(store, 1) and has(store, 1)
            path = tmp_path / lost
            shutil.rmtree(path) if path.is_dir() else path.unlink()
            assert not has(store, 1)
            assert put(store, 2) and has(store, 2)
            assert has(CacheStore(tmp_path / "cache"), 2)  # it lies where others look for it


def test_what_is_replaced_while_in_use_is_seen(tmp_path: Path) -> None:
    store, other = CacheStore(tmp_path / "a"), CacheStore(tmp_path / "b")
    put(store, 1)
    put(other, 2)
    other.close()
    (tmp_path / "a").rename(tmp_path / "c")
    (tmp_path / "b").rename(tmp_path / "a")
    assert not has(store, 1) and has(store, 2)
    assert has(CacheStore(tmp_path / "c"), 1)


def no_database(file: Path) -> None:
    file.write_bytes(b"this is no database, it is a text\n" * 200)


def empty(file: Path) -> None:
    file.write_bytes(b"")


def cut_short(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def of_another_format(file: Path) -> None:
    with sqlite3.connect(file) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()


def without_a_table(file: Path) -> None:
    with sqlite3.connect(file) as connection:
        connection.execute("DROP TABLE payloads")
    connection.close()


def with_wrong_types(file: Path) -> None:
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE entries SET nbytes = 'many', used = 'never'")
    connection.close()


@pytest.mark.parametrize(
    "damage", [no_database, empty, cut_short, of_another_format, without_a_table, with_wrong_types]
)
@pytest.mark.parametrize("while_open", [False, True])
def test_a_damaged_file_begins_anew(
    store: CacheStore, damage: Callable[[Path], None], while_open: bool, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(20):
        put(store, number)
    store.close()
    if while_open:
        assert has(store, 1)
    with warnings.catch_warnings(), caplog.at_level(logging.WARNING, "braze"):
        warnings.simplefilter("error")
        damage(file_of(store))
        for number in range(20):
            has(store, number)
        use(store)
        assert put(store, 50) and has(store, 50) and store.problem is None
    assert any("damaged and begins anew" in record.message for record in caplog.records)
    assert [path.name for path in store.folder.iterdir()] == ["store-1"]  # nothing of the old one is left


def test_damage_at_random_places(tmp_path: Path) -> None:
    whole = CacheStore(tmp_path / "whole")
    for number in range(12):
        put(whole, number)
        whole.record_miss(key_of(number, config="opt=2"), whole.nearest(key_of(number)))
    whole.close()
    with raw(whole) as log:  # half of it in the log, too: an open connection keeps it there
        log.execute("PRAGMA wal_autocheckpoint=0")
        log.execute("UPDATE entries SET hits = hits + 1")
        copies = [tmp_path / f"copy{trial}" for trial in range(DAMAGES)]
        for copy in copies:
            shutil.copytree(whole.folder, copy)
    log.close()
    chance = random.Random(20)
    lost = 0
    logging.getLogger("braze").setLevel(logging.CRITICAL)
    try:
        for copy in copies:
            (file,) = copy.glob("*/graphs.sqlite")
            victim = chance.choice([file, file, file, file.with_name("graphs.sqlite-wal")])
            damage_bytes(victim, chance)
            store = CacheStore(copy)
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                lost += sum(not has(store, number) for number in range(12))
                for miss in store.misses():
                    assert miss.key == key_of(int(miss.key.text("inputs")[4:-1]), config="opt=2")
                for entry in store.entries():
                    store.touch(entry)
                use(store)
                tries = [put(store, 50) and has(store, 50) for _ in range(3)]
                assert tries[-1], store.problem
            store.close()
            shutil.rmtree(copy)
    finally:
        logging.getLogger("braze").setLevel(logging.NOTSET)
    assert 0 < lost < 12 * DAMAGES  # the damage was real, and did not always cost everything


def damage_bytes(file: Path, chance: random.Random) -> None:
    data = bytearray(file.read_bytes())
    for _ in range(chance.choice([1, 1, 8, 64])):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    if chance.random() < 0.2:
        at = chance.randrange(len(data))
        data[at : at + 4096] = bytes(len(data[at : at + 4096]))
    if chance.random() < 0.1:
        del data[chance.randrange(len(data)) :]
    file.write_bytes(data)


# -- entries that are not what they say -------------------------------------------------------------------
@pytest.mark.parametrize(
    "change",
    [
        "UPDATE entries SET key = (SELECT id FROM keys WHERE id != key)",
        "UPDATE entries SET guards = 's0 > 0'",
        "UPDATE entries SET origin = 'somebody'",
        "UPDATE entries SET level = 2",
        "UPDATE entries SET codec = 1 - codec",
        "UPDATE entries SET codec = 9",
        "UPDATE entries SET nbytes = nbytes + 1",
        "UPDATE payloads SET body = substr(body, 2)",
        "UPDATE payloads SET body = x'00'",
    ],
)
def test_an_entry_that_was_changed_is_dropped(
    store: CacheStore, change: str, caplog: pytest.LogCaptureFixture
) -> None:
    put(store, 1, guards="s0 > 2")
    store.record_miss(key_of(2), None)
    with raw(store) as other:
        other.execute(change)
        with caplog.at_level(logging.WARNING, "braze"):
            assert not has(store, 1) and not has(store, 2)
        assert other.execute("SELECT COUNT(*) FROM entries").fetchone() == (0,)
        assert other.execute("SELECT COUNT(*) FROM payloads").fetchone() == (0,)
    other.close()
    assert "is damaged and was dropped" in caplog.text
    assert store.statistics().damaged == 1
    assert put(store, 1) and has(store, 1)


def test_a_part_that_was_changed_is_not_shown(store: CacheStore) -> None:
    put(store, 1)
    store.record_miss(key_of(2), None)
    with raw(store) as other:
        other.execute("UPDATE texts SET body = x'0102'")
    other.close()
    assert has(store, 1)
    assert store.key(key_of(1).digest) is None and store.misses() == ()
    assert store.nearest(key_of(1)) is None


# -- others at work ---------------------------------------------------------------------------------------
def test_a_lock_that_is_held_too_long_is_waited_for_no_longer(store: CacheStore) -> None:
    put(store, 1)
    with raw(store) as other, warnings.catch_warnings():
        warnings.simplefilter("error")
        other.execute("BEGIN IMMEDIATE")
        assert has(store, 1)  # those who read do not wait
        assert not put(store, 2)
        (entry,) = store.get(key_of(1).digest)
        store.touch(entry)
        assert store.statistics().entries == 1
        other.execute("ROLLBACK")
    other.close()
    assert put(store, 2) and has(store, 2) and store.problem is None


def test_a_forked_child_uses_a_connection_of_its_own(store: CacheStore) -> None:
    put(store, 1)
    stop = threading.Event()

    def keep_busy() -> None:  # the lock is held at most moments
        while not stop.is_set():
            has(store, 1)

    thread = threading.Thread(target=keep_busy)
    thread.start()
    try:
        for child in range(5):
            number = os.fork()
            if number == 0:
                done = has(store, 1) and put(store, 10 + child) and has(store, 10 + child)
                os._exit(0 if done else 1)
            assert os.waitpid(number, 0)[1] == 0
            assert put(store, 20 + child)
    finally:
        stop.set()
        thread.join()
    assert len(store.entries()) == 11 and store.problem is None


def test_a_child_that_python_does_not_know_of_uses_no_cache(
    store: CacheStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, 1)
    me = os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: me + 1)
    assert not has(store, 1) and not put(store, 2)
    store.close()
    monkeypatch.undo()
    assert has(store, 1) and not has(store, 2)


# -- file systems that machines share ---------------------------------------------------------------------
@pytest.mark.parametrize(
    ("kind", "shared"),
    [("nfs4", True), ("fuse.sshfs", True), ("ext4", False), ("fuse.fuse-overlayfs", False)],
)
def test_shared_file_systems_are_known_by_their_names(tmp_path: Path, kind: str, shared: bool) -> None:
    device = tmp_path.stat().st_dev
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "21 1 0:999 / /sys rw,nosuid shared:7 - nfs4 sysfs rw\n"
        f"36 35 {os.major(device)}:{os.minor(device)} / /mnt\\040x rw master:1 - {kind} server:/x rw\n"
    )
    assert is_shared_by_machines(tmp_path, str(mounts)) == shared
    assert not is_shared_by_machines(tmp_path, str(tmp_path / "there is no such list"))


def test_on_a_shared_file_system_the_journal_is_rolled_back(
    store: CacheStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "is_shared_by_machines", lambda folder: True)
    assert put(store, 1) and has(store, 1) and has(CacheStore(store.folder), 1)
    with raw(store) as other:
        assert other.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    other.close()


# -- left behind ------------------------------------------------------------------------------------------
def test_what_killed_processes_left_is_swept_away(store: CacheStore) -> None:
    put(store, 1)
    for name in ("new-0123", "damaged-4567", "new-recent"):
        (store.folder / name).mkdir()
        (store.folder / name / "graphs.sqlite").write_bytes(b"half")
        if not name.endswith("recent"):
            os.utime(store.folder / name, (1, 1))
    store.collect()
    assert sorted(path.name for path in store.folder.iterdir()) == ["new-recent", "store-1"]
    assert has(store, 1)


def test_payloads_know_their_key() -> None:
    payload = payload_of(key_of(1))
    assert is_of(key_of(1), payload) and not is_of(key_of(2), payload) and not is_of(key_of(1), payload[:-1])
