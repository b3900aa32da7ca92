"""Processes that write into a cache, for the tests that start many of them or kill them.

``python writer.py hammer FOLDER SEED SECONDS`` puts and gets the same few keys as its siblings for a while,
and prints what it did as JSON. ``python writer.py nursery FOLDER`` forks a child that writes without end
for each line that it reads, prints its process id, and waits for its death.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time

from braze.cache.store import CacheStore
from tests.cache.stores import is_of, key_of, payload_of

KEYS = 12


def hammer(folder: str, seed: int, seconds: float) -> None:
    store = CacheStore(folder, limit_bytes=400_000)  # so small that entries are thrown out all the time
    chance = random.Random(seed)
    done = {"hits": 0, "looks": 0, "puts": 0, "stored": 0, "wrong": 0}
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        key = key_of(chance.randrange(KEYS))
        found = store.get(key.digest)
        done["looks"] += 1
        done["hits"] += bool(found)
        done["wrong"] += sum(not is_of(key, entry.payload) for entry in found)
        if found:
            store.touch(found[0])
        if not found or chance.random() < 0.3:
            store.record_miss(key, store.nearest(key))
            payload = payload_of(key, seed, 20_000)
            done["puts"] += 1
            done["stored"] += store.put(key, payload, name="g", kind="", guards=f"s0 > {chance.randrange(3)}")
        if chance.random() < 0.02:
            store.remove(found)
    store.close()
    print(json.dumps(done))


def nursery(folder: str) -> None:
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            write_without_end(folder, int(line))
        print(child, flush=True)
        os.waitpid(child, 0)
        print("dead", flush=True)


def write_without_end(folder: str, seed: int) -> None:
    store = CacheStore(folder, limit_bytes=600_000)
    chance = random.Random(seed)
    while True:
        key = key_of(chance.randrange(1, KEYS))
        store.put(key, payload_of(key, seed, chance.randrange(100, 60_000)), name="g", kind="")
        for entry in store.get(key_of(0).digest):
            store.touch(entry)
        if chance.random() < 0.2:
            store.collect(chance.randrange(300_000, 600_000))


if __name__ == "__main__":
    if sys.argv[1] == "hammer":
        hammer(sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))
    else:
        nursery(sys.argv[2])
