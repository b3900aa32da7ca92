"""The file that the cache is kept in: opened, watched, and begun anew when it is damaged; never an exception.

`Database.run` is the only way in. What goes wrong is reported once through the logger ``braze``, and as a
`BrazeWarning` where a person should do something about it; the caller gets the value for "nothing there".

The file lives in a folder of its own, ``<cache>/store-<format>/``, and that folder is made complete under
another name and then renamed, so that nobody ever sees half of it; and it is renamed again to throw it
away, so that a database and its log are never parted. A process whose file was renamed or deleted sees that
before each use and opens the new one.

A connection must not cross a fork (sqlite.org/howtocorrupt.html, 2.6: locks are those of a process). It is
closed before each fork that Python knows of; after one that Python does not, the child uses no cache.
"""

from __future__ import annotations

import logging
import os
import shutil
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from braze import notices
from braze.cache.paths import is_shared_by_machines, permission_problem, prepare_folder
from braze.errors import CacheError

if TYPE_CHECKING:  # loading it takes 4 ms, which a process that finds no graph to compile saves
    import sqlite3

__all__ = ["Damage", "Database"]

_log = logging.getLogger("braze")
T = TypeVar("T")

WAIT_MS: Final = 2000
"""Milliseconds that one use of the cache may wait for other processes."""
REST_SECONDS: Final = 5.0
"""Seconds for which the cache is let alone after it could not be used."""
_LEFTOVER_SECONDS: Final = 3600.0

FORMAT: Final = 1
"""Of the tables below. A change of them is a new number, and a folder of its own."""

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


class Damage(Exception):
    """What was read from the database cannot have been written by Braze."""


class Database:
    """One SQLite file in ``folder``, one connection for all threads of the process. Opened when first used.

    ``problem`` is what went wrong last, in words, or None if the last use went well.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / f"store-{FORMAT}"
        self.file = self.home / "graphs.sqlite"
        self.problem: str | None = None
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None
        self._read_only = False
        self._rest_until = {"read": 0.0, "write": 0.0}
        self._reported: set[str] = set()
        self._process = os.getpid()
        with _OPEN_LOCK:
            _OPEN.add(self)

    def run(
        self,
        action: Callable[[sqlite3.Connection], T],
        default: T,
        *,
        write: bool = False,
        transaction: bool = True,
        wait_ms: int = WAIT_MS,
    ) -> T:
        """``action(connection)`` in one transaction, committed if it returns and rolled back if it raises;
        its result, or ``default`` if anything at all went wrong. Waits at most ``wait_ms`` for other
        processes."""
        warning = None
        with self._lock:
            now = time.monotonic()
            purpose = "write" if write else "read"
            if self._process != os.getpid() or now < self._rest_until[purpose]:
                return default
            try:
                connection = self._current()
                if write and self._read_only:
                    return default
                connection.execute(f"PRAGMA busy_timeout={wait_ms:d}")
                result = _perform(connection, action, write, transaction)
                self.problem = None
                return result
            except Exception as error:  # whatever it is, a compile goes on without the cache
                warning = self._failed(error, purpose)
        if warning is not None:
            notices.say(warning)
        return default

    def close(self) -> None:
        """Close the connection, if there is one; the next use opens it again."""
        with self._lock:
            connection, self._connection = self._connection, None
            if connection is None or self._process != os.getpid():
                return
            with suppress(Exception):  # SQLite gives the file back in any case
                connection.close()

    def sizes(self) -> int:
        """The bytes of the file and its log on disk."""
        total = 0
        for suffix in ("", "-wal"):
            with suppress(OSError):
                total += os.stat(f"{self.file}{suffix}").st_size
        return total

    def sweep(self) -> None:
        """Delete the folders that processes left behind which were killed while they renamed one."""
        with suppress(OSError):
            for path in self.folder.iterdir():
                if path.name.startswith(("new-", "damaged-")):
                    with suppress(OSError):
                        if time.time() - path.lstat().st_mtime > _LEFTOVER_SECONDS:
                            shutil.rmtree(path, ignore_errors=True)

    # -- opening ------------------------------------------------------------------------------------------
    def _current(self) -> sqlite3.Connection:
        if self._connection is not None:
            if self._identity == _identity(self.file):
                return self._connection
            self.close()  # somebody deleted or replaced the file
        self._connection = self._open()
        return self._connection

    def _open(self) -> sqlite3.Connection:
        import sqlite3  # noqa: PLC0415 - 4 ms, see above

        prepare_folder(self.folder)
        for _ in range(8):
            self._identity = _identity(self.file)
            if self._identity is None:
                self._create()
                continue
            wrong = permission_problem(self.home) or permission_problem(self.file)
            if wrong is not None:
                raise CacheError(wrong)
            try:
                connection = self._connect()
            except (sqlite3.DatabaseError, Damage) as error:
                if not _is_damage(error):
                    raise
                self._set_aside(error)
                continue
            if self._identity == _identity(self.file):
                return connection
            connection.close()
        raise CacheError(f"{self.file} cannot be opened: it changes all the time")

    def _connect(self) -> sqlite3.Connection:
        import sqlite3  # noqa: PLC0415 - 4 ms, see above

        # What lies in a folder that cannot be written to is still read, as a file that nobody changes.
        self._read_only = not (os.access(self.home, os.W_OK) and os.access(self.file, os.W_OK))
        mode = "ro&immutable=1" if self._read_only else "rw"
        connection = sqlite3.connect(
            f"{self.file.as_uri()}?mode={mode}",
            uri=True,
            timeout=WAIT_MS / 1000,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            connection.text_factory = _as_text
            for pragma in PRAGMAS:
                connection.execute(pragma)
            (found,) = connection.execute("PRAGMA user_version").fetchone()
            if found != FORMAT:
                raise Damage(f"it is of format {found}, not {FORMAT}")
        except BaseException:
            connection.close()
            raise
        return connection

    def _create(self) -> None:
        import sqlite3  # noqa: PLC0415 - 4 ms, see above

        fresh = self.folder / f"new-{os.urandom(6).hex()}"
        fresh.mkdir(mode=0o700)
        try:
            file = fresh / self.file.name
            connection = sqlite3.connect(file, isolation_level=None)
            try:
                connection.execute("PRAGMA auto_vacuum=INCREMENTAL")  # holds only if it comes first
                # A write-ahead log needs memory that all processes share, which ends with the machine.
                journal = "DELETE" if is_shared_by_machines(fresh) else "WAL"
                connection.execute(f"PRAGMA journal_mode={journal}")
                connection.executescript(SCHEMA)
            finally:
                connection.close()
            file.chmod(0o600)
            try:
                fresh.rename(self.home)
            except OSError:
                if self.file.exists():
                    return  # another process was first
                if self.home.exists():
                    self._rename_away()  # a folder whose database was deleted
                fresh.rename(self.home)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)

    # -- when something is wrong --------------------------------------------------------------------------
    def _failed(self, error: Exception, purpose: str) -> str | None:
        """Put things in order after an error; the text of a warning if somebody should be told."""
        text = str(error) if isinstance(error, CacheError) else f"{error or type(error).__name__}"
        self.problem = text
        if _is_damage(error):
            self.close()
            try:
                self._set_aside(error)
            except OSError as refused:
                text = f"it is damaged ({text}) and cannot be deleted ({refused})"
            else:
                return None
        elif "locked" in text or "busy" in text:
            self._say_once("locked", logging.INFO, f"the cache in {self.folder} is busy: {text}")
            return None
        if "readonly" in text and _identity(self.file) != self._identity:
            self.close()  # the file was renamed in the middle of a write; the next use opens the new one
            return None
        until = time.monotonic() + REST_SECONDS
        self._rest_until["write"] = until
        if purpose == "read" or self._connection is None:
            self._rest_until["read"] = until
        self.close()
        advice = "" if isinstance(error, CacheError) else f"\n  to do:  {CacheError.default_hint}"
        message = f"the cache in {self.folder} does not work, compiled graphs are not kept: {text}{advice}"
        expected = isinstance(error, (CacheError, OSError)) or type(error).__module__ == "sqlite3"
        detail = None if expected else error
        # the warning is what people see; reading and writing mostly fail for one reason
        return message if self._say_once(message, logging.INFO, message, detail) else None

    def _say_once(self, kind: str, level: int, message: str, error: Exception | None = None) -> bool:
        if kind in self._reported:
            return False
        self._reported.add(kind)
        _log.log(level, "%s", message, exc_info=error)
        return True

    def _set_aside(self, error: Exception) -> None:
        """Throw the damaged database away, unless another process has done so. Raises `OSError`."""
        if self._read_only:
            raise PermissionError("the folder is read-only")
        if _identity(self.file) == self._identity:
            self._rename_away()
            _log.warning("the cache in %s was damaged and begins anew: %s", self.folder, error)

    def _rename_away(self) -> None:
        grave = self.folder / f"damaged-{os.urandom(6).hex()}"
        with suppress(FileNotFoundError):  # another process was first
            self.home.rename(grave)
        shutil.rmtree(grave, ignore_errors=True)

    # -- forks --------------------------------------------------------------------------------------------
    def before_fork(self) -> None:
        """Wait for the use that is going on, close the connection, and let nobody in."""
        self._lock.acquire()
        self.close()

    def after_fork(self) -> None:
        """Let threads in again, in the parent and in the child."""
        self._process = os.getpid()
        self._lock.release()


def _perform(
    connection: sqlite3.Connection,
    action: Callable[[sqlite3.Connection], T],
    write: bool,
    transaction: bool,
) -> T:
    if not transaction:
        return action(connection)
    try:
        connection.execute("BEGIN IMMEDIATE" if write else "BEGIN")
        result = action(connection)
        connection.execute("COMMIT")
    except BaseException:
        with suppress(Exception):  # the first error is the one that counts, and closing rolls back as well
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        raise
    return result


def _as_text(value: bytes) -> str:
    return value.decode("utf-8", "replace")


def _identity(path: Path) -> tuple[int, int] | None:
    """What tells this file from another of the same name; None if there is none."""
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_dev, found.st_ino


# What SQLite says where a file cannot be reached; anything else that it calls an operational error (a missing
# table, a schema that contradicts itself) comes from contents that are not ours. Error codes would be
# clearer; Python tells them from 3.11 on.
_OUT_OF_REACH: Final = (
    "locked", "locking protocol", "full", "readonly", "I/O", "unable to open", "permission", "interrupted",
    "out of memory", "transaction",
)  # fmt: skip


def _is_damage(error: Exception) -> bool:
    """Whether an error says that the file's contents are wrong, and not that it cannot be reached."""
    import sqlite3  # noqa: PLC0415 - 4 ms, see above

    if isinstance(error, sqlite3.OperationalError):
        return not any(words in str(error) for words in _OUT_OF_REACH)
    if isinstance(error, (sqlite3.ProgrammingError, sqlite3.DataError, sqlite3.NotSupportedError)):
        return False
    # A name in a damaged schema may be no text, which Python finds when it makes an error message of it.
    return isinstance(error, (Damage, UnicodeDecodeError, sqlite3.DatabaseError))


_OPEN: weakref.WeakSet[Database] = weakref.WeakSet()
_OPEN_LOCK: Final = threading.Lock()
_held: list[Database] = []


def _before_fork() -> None:
    _OPEN_LOCK.acquire()
    for database in list(_OPEN):
        database.before_fork()
        _held.append(database)  # only now: Ctrl-C may end this function anywhere, and the fork goes on


def _after_fork() -> None:
    try:
        while _held:
            _held.pop().after_fork()
    finally:
        _OPEN_LOCK.release()


if hasattr(os, "register_at_fork"):  # there is no fork on Windows
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)
