"""Many processes at one cache, and processes that are killed while they write."""

from __future__ import annotations

import json
import logging
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from braze.cache.store import CacheStore
from tests.cache.stores import file_of, has, key_of, put, raw
from tests.cache.writer import KEYS
from tests.source_tree import ROOT

PROCESSES = 8
SECONDS = 2.0
KILLS = 100
COMMAND = [sys.executable, "-W", "error", "-m", "tests.cache.writer"]


@pytest.mark.serial
def test_eight_processes_begin_a_cache_at_once(tmp_path: Path) -> None:
    folder = tmp_path / "not there yet"
    started = [
        subprocess.Popen(
            [*COMMAND, "hammer", str(folder), str(seed), str(SECONDS)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        for seed in range(PROCESSES)
    ]
    done = []
    for process in started:
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0 and not err, err
        done.append(json.loads(out))
    assert [one["wrong"] for one in done] == [0] * PROCESSES
    assert all(one["hits"] > 10 and one["stored"] > 10 for one in done), done
    assert sum(one["stored"] for one in done) > 0.9 * sum(one["puts"] for one in done)
    assert [path.name for path in folder.iterdir()] == ["store-1"]
    store = CacheStore(folder, limit_bytes=400_000)
    assert all(entry.key in {key_of(number).digest for number in range(KEYS)} for entry in store.entries())
    with raw(store) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()
    counted = store.statistics()
    assert counted.puts == sum(one["stored"] for one in done) and counted.damaged == 0


@pytest.mark.serial
def test_a_process_killed_in_the_middle_of_a_write(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = CacheStore(tmp_path / "cache", limit_bytes=600_000)
    assert put(store, 0)
    made = os.stat(file_of(store)).st_ino
    chance = random.Random(3)
    nursery = subprocess.Popen(
        [*COMMAND, "nursery", str(store.folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert nursery.stdin is not None and nursery.stdout is not None
    found = 0
    with caplog.at_level(logging.WARNING, "braze"):
        for turn in range(KILLS):
            print(turn, file=nursery.stdin, flush=True)
            child = int(nursery.stdout.readline())
            time.sleep(0.01 + chance.random() * 0.06)
            os.kill(child, signal.SIGKILL)
            assert nursery.stdout.readline() == "dead\n"
            if turn % 2:
                store.close()  # with nobody left, the next to open it has to repair it
            assert has(store, 0)  # it was in use all the time: neither lost nor thrown out
            found += sum(has(store, number) for number in range(1, KEYS))
    nursery.stdin.close()
    assert nursery.wait(timeout=20) == 0
    assert found > KILLS and not caplog.records and store.problem is None
    assert os.stat(file_of(store)).st_ino == made  # it was never begun anew
    with raw(store) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()
    assert put(store, 50) and has(store, 50)


@pytest.mark.serial
def test_a_process_killed_while_it_begins_a_cache(tmp_path: Path) -> None:
    """Killed when anything from nothing to all was done: the next process finds a cache or begins one."""
    folder = tmp_path / "cache"
    nursery = subprocess.Popen(
        [*COMMAND, "nursery", str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert nursery.stdin is not None and nursery.stdout is not None
    chance = random.Random(4)
    for turn in range(KILLS // 3):
        print(turn, file=nursery.stdin, flush=True)
        child = int(nursery.stdout.readline())
        time.sleep(chance.random() * 0.012)
        os.kill(child, signal.SIGKILL)
        assert nursery.stdout.readline() == "dead\n"
        store = CacheStore(folder, limit_bytes=600_000)
        assert put(store, 50) and has(store, 50) and store.problem is None
        store.clear()
        file_of(store).unlink()
        store.close()
    nursery.stdin.close()
    assert nursery.wait(timeout=20) == 0
