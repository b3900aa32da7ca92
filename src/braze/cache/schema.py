"""The tables of the cache. A change of them is a new `FORMAT`, which lives in a folder of its own."""

from __future__ import annotations

from typing import Final

__all__ = ["FORMAT", "PRAGMAS", "SCHEMA"]

FORMAT: Final = 1

PRAGMAS: Final = (
    "PRAGMA synchronous=NORMAL",  # a power failure may cost the last entries, never the file
    "PRAGMA foreign_keys=ON",
    "PRAGMA trusted_schema=OFF",
    "PRAGMA cell_size_check=ON",  # a damaged page is an error, and not garbage
    "PRAGMA journal_size_limit=8000000",
    "PRAGMA mmap_size=0",  # a file cut short by somebody would be a bus error
)

# keys     a key's digest; keys of misses are here, too, without entries
# texts    what the parts of keys say, each text once, compressed
# parts    which texts make up a key
# entries  artefacts: `codec` says how the payload is packed, `checksum` binds everything to the key
# payloads their bytes, apart, so that a list of entries reads none of them
# misses   the last keys that were looked for and not found, and the key that was nearest then
# counters how often something happened since the database was made
SCHEMA: Final = f"""
BEGIN;
CREATE TABLE keys (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    digest TEXT NOT NULL UNIQUE
);
CREATE TABLE texts (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    digest BLOB NOT NULL UNIQUE,
    body BLOB NOT NULL
);
CREATE TABLE parts (
    key INTEGER NOT NULL REFERENCES keys (id) ON DELETE CASCADE,
    position INTEGER NOT NULL,
    name TEXT NOT NULL,
    text INTEGER NOT NULL REFERENCES texts (id),
    PRIMARY KEY (key, position)
) WITHOUT ROWID;
CREATE INDEX parts_by_text ON parts (text, name, key);
CREATE TABLE entries (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    key INTEGER NOT NULL REFERENCES keys (id),
    name TEXT NOT NULL,
    kind TEXT NOT NULL,
    level INTEGER NOT NULL,
    guards TEXT NOT NULL,
    origin TEXT NOT NULL,
    created REAL NOT NULL,
    used REAL NOT NULL,
    hits INTEGER NOT NULL,
    nbytes INTEGER NOT NULL,
    stored INTEGER NOT NULL,
    codec INTEGER NOT NULL,
    checksum BLOB NOT NULL
);
CREATE INDEX entries_by_key ON entries (key);
CREATE INDEX entries_by_use ON entries (used);
CREATE TABLE payloads (
    entry INTEGER PRIMARY KEY REFERENCES entries (id) ON DELETE CASCADE,
    body BLOB NOT NULL
);
CREATE TABLE misses (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    time REAL NOT NULL,
    name TEXT NOT NULL,
    level INTEGER NOT NULL,
    key INTEGER NOT NULL REFERENCES keys (id),
    nearest INTEGER REFERENCES keys (id)
);
CREATE TABLE counters (
    name TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) WITHOUT ROWID;
PRAGMA user_version = {FORMAT};
COMMIT;
"""
