"""The store as it is meant to be used: entries, guards, uses, nearest keys, misses, limits."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from braze import config
from braze.cache import store as module
from braze.cache.keys import Key
from braze.cache.records import RAW, ZLIB, pack, unpack
from braze.cache.store import CacheStore, open_store
from tests.cache.stores import file_of, files_below, has, is_of, key_of, payload_of, put, raw


@pytest.fixture
def store(tmp_path: Path) -> Iterator[CacheStore]:
    store = CacheStore(tmp_path / "cache")
    yield store
    store.close()


def test_what_was_put_is_found(store: CacheStore) -> None:
    key = key_of(1)
    assert store.get(key.digest) == ()
    assert store.put(key, b"abc", name="graph0", kind="forward", level=2, guards="s0 > 2", origin="1f2e")
    (entry,) = store.get(key.digest)
    assert entry.payload == b"abc" and entry.key == key.digest
    assert (entry.name, entry.kind, entry.level, entry.guards) == ("graph0", "forward", 2, "s0 > 2")
    assert (entry.origin, entry.nbytes, entry.hits) == ("1f2e", 3, 0)
    assert abs(entry.created - time.time()) < 60 and entry.used == entry.created
    assert store.get(key_of(2).digest) == ()
    assert store.key(key.digest) == key and store.key(key_of(2).digest) is None


texts = st.text(max_size=6) | st.text(st.sampled_from("a\0\n'\ud800"), max_size=3)


@settings(max_examples=25)
@given(payload=st.binary(max_size=300), guards=texts, name=texts)
def test_bytes_come_back_as_they_were(tmp_path_factory: pytest.TempPathFactory, **entry: str | bytes) -> None:
    store = CacheStore(tmp_path_factory.mktemp("cache"))
    key = Key.of({"graph": str(entry["name"])})
    payload, guards, name = entry["payload"], str(entry["guards"]), str(entry["name"])
    assert isinstance(payload, bytes)
    stored = store.put(key, payload, name=name, kind="", guards=guards)
    assert [found.payload for found in store.get(key.digest)] == ([payload] if stored else [])
    assert stored == (not any("\ud800" <= letter <= "\udfff" for letter in name + guards))
    store.close()


def test_a_key_has_one_entry_for_each_guard(store: CacheStore) -> None:
    key = key_of(1)
    for guards in ("s0 > 2", "s0 <= 2", "s0 > 2"):
        store.put(key, guards.encode() + bytes(90), name="g", kind="", guards=guards)
    assert sorted(entry.payload.rstrip(b"\0") for entry in store.get(key.digest)) == [b"s0 <= 2", b"s0 > 2"]
    (entry,) = store.get(key.digest, lambda guards: guards == "s0 > 2")
    assert entry.guards == "s0 > 2"
    assert store.get(key.digest, lambda guards: False) == ()


def test_a_key_has_a_bounded_number_of_entries(store: CacheStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "VARIANTS_KEPT", 3)
    for number in range(6):
        store.put(key_of(1), b"x", name="g", kind="", guards=f"s0 == {number}")
    assert {entry.guards for entry in store.get(key_of(1).digest)} == {"s0 == 3", "s0 == 4", "s0 == 5"}


def test_an_entry_survives_the_process(tmp_path: Path) -> None:
    first = CacheStore(tmp_path / "cache")
    put(first, 1)
    first.close()
    assert files_below(tmp_path / "cache") == ["store-1", "store-1/graphs.sqlite"]
    assert has(CacheStore(tmp_path / "cache"), 1)


def test_two_that_compiled_the_same_leave_one_entry(tmp_path: Path) -> None:
    one, two = CacheStore(tmp_path), CacheStore(tmp_path)
    key = key_of(1)
    assert one.put(key, b"by one", name="g", kind="") and two.put(key, b"by two", name="g", kind="")
    assert [entry.payload for entry in one.get(key.digest)] == [b"by two"]


def test_folder_and_files_are_of_this_user_alone(store: CacheStore) -> None:
    put(store, 1)
    for path in (store.folder, file_of(store).parent, *file_of(store).parent.iterdir()):
        assert path.stat().st_mode & 0o077 == 0, path


def test_packing_never_makes_it_larger() -> None:
    noise, zeros = os.urandom(1000), bytes(1000)
    assert pack(noise) == (RAW, noise)
    codec, body = pack(zeros)
    assert codec == ZLIB and len(body) < 50 and unpack(codec, body, 1000) == zeros
    for nbytes in (999, 1001):
        with pytest.raises(ValueError, match="where it says"):
            unpack(codec, body, nbytes)
    with pytest.raises(ValueError, match="unknown way"):
        unpack(7, body, 1000)


# -- uses -------------------------------------------------------------------------------------------------
def test_a_hit_on_what_was_used_lately_writes_nothing(store: CacheStore) -> None:
    put(store, 1)
    (entry,) = store.get(key_of(1).digest)
    with raw(store) as other:
        before = other.execute("PRAGMA data_version").fetchone()
        for _ in range(20):
            store.touch(entry)
            assert has(store, 1)
        assert other.execute("PRAGMA data_version").fetchone() == before
        store.close()
        assert other.execute("SELECT hits FROM entries").fetchone() == (20,)
    other.close()


def test_a_hit_on_what_was_not_used_for_long_is_written_once(store: CacheStore) -> None:
    put(store, 1)
    with raw(store) as other:
        other.execute("UPDATE entries SET used = created - 86400")
    (entry,) = store.get(key_of(1).digest)
    store.touch(entry)
    used, hits = other.execute("SELECT used, hits FROM entries").fetchone()
    assert hits == 1 and used > entry.used + 86000
    store.touch(entry)
    assert other.execute("SELECT hits FROM entries").fetchone() == (1,)
    other.close()


def test_statistics_count_what_happened(store: CacheStore) -> None:
    for number in range(3):
        put(store, number)
    store.put(key_of(1), b"x", name="g", kind="", level=2, guards="s0 > 1", origin="k1")
    store.touch(store.get(key_of(1).digest)[0])
    store.record_miss(key_of(9), None)
    found = store.statistics()
    assert (found.entries, found.keys, found.puts, found.hits, found.misses) == (4, 3, 4, 1, 1)
    assert found.levels == {1: 3, 2: 1} and found.origins == {"k1": 1, "local": 3}
    assert found.nbytes == 3 * len(payload_of(key_of(1))) + 1
    assert found.nbytes / 3 < found.stored < found.nbytes < found.file_bytes
    store.clear()
    assert (store.statistics().entries, store.statistics().hits) == (0, 0)


# -- keys -------------------------------------------------------------------------------------------------
def test_nearest_shares_the_graph_if_one_does(store: CacheStore) -> None:
    for number in range(30):
        put(store, number)
    other_inputs = key_of(3, inputs="f64[3]")
    store.put(other_inputs, b"x", name="g", kind="")
    found = store.nearest(key_of(3, config="opt=2"))
    assert found is not None and found[1] == key_of(3)
    assert store.record_miss(key_of(3, config="opt=2"), found) == (
        f"nearest is {key_of(3).digest[:12]} (graph3, 0 s old): part config differed: opt=1 -> opt=2"
    )
    found = store.nearest(key_of(3, inputs="f64[3]", config="opt=2"))
    assert found is not None and found[1] == other_inputs


def test_nearest_finds_a_graph_that_was_changed_a_little(store: CacheStore) -> None:
    for number in range(10):
        put(store, number)
    graph = key_of(4).text("graph")
    assert graph is not None
    changed = key_of(4, graph=graph + "\n%20 = aten.relu(%19)")
    found = store.nearest(changed)
    assert found is not None and found[1] == key_of(4)
    assert "part graph differed: line 21: the end -> %20 = aten.relu(%19)" in store.record_miss(
        changed, found
    )


def test_a_graph_like_no_other_has_no_nearest(store: CacheStore) -> None:
    assert store.nearest(key_of(1)) is None
    put(store, 1)
    new = Key.of({"graph": "return aten.sort(x)", "inputs": "f32[1]", "config": "opt=1"})
    assert store.nearest(new) is None
    assert store.record_miss(new, None) == "no entry has a graph like this one"
    assert store.nearest(Key.of({"config": "opt=1"})) is None


def test_misses_are_remembered_with_their_keys_and_bounded(
    store: CacheStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MISSES_KEPT", 3)
    put(store, 1)
    for opt in range(2, 7):
        key = key_of(1, config=f"opt={opt}")
        store.record_miss(key, store.nearest(key), name=f"miss{opt}", level=2)
    assert [(miss.name, miss.level) for miss in store.misses()] == [("miss6", 2), ("miss5", 2), ("miss4", 2)]
    assert store.misses()[0].key == key_of(1, config="opt=6")
    store.collect(0)  # the keys of misses stay, for they explain them
    assert store.entries() == () and [miss.nearest for miss in store.misses()] == [key_of(1)] * 3
    with raw(store) as other:
        assert other.execute("SELECT COUNT(*) FROM keys").fetchone() == (4,)
    other.close()


def test_texts_are_stored_once_and_go_with_their_last_key(store: CacheStore) -> None:
    put(store, 1)
    store.put(key_of(1, config="opt=2"), b"x", name="g", kind="")
    with raw(store) as other:
        assert other.execute("SELECT COUNT(*) FROM texts").fetchone() == (5,)
        assert store.remove(store.get(key_of(1).digest)) == 1
        assert other.execute("SELECT COUNT(*) FROM texts").fetchone() == (4,)
        assert store.remove(store.entries()) == 1
        assert other.execute("SELECT COUNT(*) FROM texts").fetchone() == (0,)
    other.close()


# -- limits -----------------------------------------------------------------------------------------------
def test_what_was_used_least_recently_goes_first(tmp_path: Path) -> None:
    store = CacheStore(tmp_path, limit_bytes=1_000_000)
    first = key_of(0)
    store.put(first, os.urandom(50_000), name="first", kind="")
    for number in range(1, 60):
        assert store.put(key_of(number), os.urandom(50_000), name="g", kind="")
        (entry,) = store.get(first.digest)
        store.touch(entry)
        time.sleep(0.001)
    names = [entry.name for entry in store.entries()]
    assert "first" in names and 8 < len(names) < 21
    assert all(store.get(key_of(number).digest) for number in range(55, 60))
    assert file_of(store).stat().st_size < 1_300_000
    assert store.statistics().evicted == 60 - len(names)


def test_collect_gives_the_space_back(tmp_path: Path) -> None:
    store = CacheStore(tmp_path)
    for number in range(30):
        store.put(key_of(number), os.urandom(50_000), name="g", kind="")
    done = store.collect(500_000)
    assert done.entries >= 20 and done.nbytes > 900_000
    assert file_of(store).stat().st_size < 500_000 and store.statistics().file_bytes < 500_000
    assert store.get(key_of(29).digest)
    assert store.clear().entries == 30 - done.entries
    assert file_of(store).stat().st_size < 100_000


def test_what_does_not_fit_is_not_stored(tmp_path: Path) -> None:
    store = CacheStore(tmp_path, limit_bytes=100_000)
    assert not store.put(key_of(1), bytes(100_000), name="g", kind="")
    assert store.entries() == () and store.problem is None


# -- options ----------------------------------------------------------------------------------------------
def test_the_options_name_one_store_for_all(tmp_path: Path) -> None:
    with config.patch(cache=True, cache_dir=str(tmp_path / "a b"), cache_size_mb=3) as options:
        store = open_store(options)
        assert store is not None and store is open_store(options)
        assert store.folder == tmp_path / "a b" and store.limit_bytes == 3_000_000
        assert not store.folder.exists()
    with config.patch(cache=False) as options:
        assert open_store(options) is None


# -- threads ----------------------------------------------------------------------------------------------
def test_many_threads_share_a_store(store: CacheStore) -> None:
    wrong: list[object] = []

    def work(seed: int) -> None:
        for turn in range(30):
            key = key_of((seed * 7 + turn) % 10)
            store.put(key, payload_of(key, seed), name="g", kind="", guards=f"s0 > {turn % 2}")
            found = store.get(key.digest)
            if not found or not all(is_of(key, entry.payload) for entry in found):
                wrong.append(found)
            store.touch(found[0])

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and store.problem is None
    assert store.statistics().hits == 180


@pytest.mark.serial
def test_a_look_is_fast(tmp_path: Path) -> None:
    filled = CacheStore(tmp_path)
    for number in range(200):
        put(filled, number)
    filled.close()
    times = []
    for number in range(20):
        start = time.perf_counter()
        assert CacheStore(tmp_path).get(key_of(number).digest)
        times.append(time.perf_counter() - start)
    assert sorted(times)[10] < 0.003
