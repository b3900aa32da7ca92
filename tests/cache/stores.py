"""What the tests of the store share: keys, and payloads that say which key they belong to."""

from __future__ import annotations

import hashlib
import os
import random
import sqlite3
from pathlib import Path

from braze.cache.keys import Key
from braze.cache.store import CacheStore


def key_of(number: int, **parts: str) -> Key:
    """A key of a small graph, with some parts replaced."""
    lines = "\n".join(f"%{i} = aten.add.Tensor(%{i - 1}, {number})" for i in range(20))
    return Key.of(
        {"graph": lines, "inputs": f"f32[{number}]", "config": "opt=1", "versions.torch": "2.13", **parts}
    )


def payload_of(key: Key, seed: int = 0, size: int = 4000) -> bytes:
    """Bytes that are half noise and half compressible, and of which `is_of` knows whether they are whole."""
    noise = random.Random(f"{key.digest}{seed}").randbytes(size // 2)
    body = key.digest.encode() + noise + bytes(size - size // 2)
    return hashlib.sha256(body).digest() + body


def is_of(key: Key, payload: bytes) -> bool:
    """Whether these are bytes that `payload_of` made for that key, all of them."""
    body = payload[32:]
    return hashlib.sha256(body).digest() == payload[:32] and body.startswith(key.digest.encode())


def put(store: CacheStore, number: int, **more: str) -> bool:
    key = key_of(number)
    return store.put(key, payload_of(key), name=f"graph{number}", kind="inference", level=1, **more)


def has(store: CacheStore, number: int) -> bool:
    key = key_of(number)
    found = store.get(key.digest)
    assert all(entry.key == key.digest and is_of(key, entry.payload) for entry in found)
    return bool(found)


def raw(store: CacheStore) -> sqlite3.Connection:
    """A connection of one's own to the store's file."""
    return sqlite3.connect(file_of(store), isolation_level=None)


def file_of(store: CacheStore) -> Path:
    (file,) = store.folder.glob("store-*/graphs.sqlite")
    return file


def files_below(folder: Path) -> list[str]:
    return sorted(os.path.relpath(path, folder) for path in folder.rglob("*"))
