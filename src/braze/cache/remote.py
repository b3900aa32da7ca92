"""A cache that machines share: signed entries on any storage that fsspec has a file system for.

::

    <url>/<first two digits>/<digest of the key>/<SHA-256 of the content, 32 digits>-<id of the signer>.braze

Several entries under one key are answers under different guards. Names say what is in a file, so writing the
same thing twice does no harm, and entries of signers whom nobody here trusts are not even read.

Nothing here ever raises to the caller or makes him wait for long: a storage that fails or hangs costs one
deadline and is then left alone for a while, and writing happens behind the caller's back. Entries are handed
out only if a trusted key signed them as the answer to the very key that was asked for.
"""

from __future__ import annotations

import difflib
import hashlib
import logging
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit, urlunsplit

from braze import config
from braze.cache.job_queue import JobQueue
from braze.cache.keyring import KeyRing
from braze.cache.paths import keyring_folder
from braze.cache.signed_entry import MAX_OVERHEAD, VerifiedEntry, sign_entry, verify_entry
from braze.errors import ArtifactError, BrazeError, ConfigError, KeyringError
from braze.runtime.ending import start

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

__all__ = ["Breaker", "RemoteCache", "RemoteCounters", "configured", "entry_name", "signer_of"]

_log = logging.getLogger("braze")

MAX_VARIANTS: Final = 16
"""Entries that are read for one key."""
MAX_ENTRY: Final = 1 << 28
"""Bytes that a payload may have, and MAX_FILE what is read of a signed entry."""
MAX_FILE: Final = MAX_ENTRY + MAX_OVERHEAD
_QUEUED_JOBS: Final = 64
_QUEUED_BYTES: Final = 1 << 28
_MAX_REMEMBERED: Final = 256
"""Refusals that are remembered so as to be logged once; after so many, no more are logged."""
_DIGEST: Final = re.compile(r"[0-9a-f]{16,128}")
_FILE: Final = re.compile(r"[0-9a-f]{32}-(?P<signer>[0-9a-f]{20})\.braze")

# Storages where an object appears whole or not at all, and where moving it is a copy.
_WHOLE_OBJECTS: Final = frozenset(
    {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oss", "memory", "redis"}
)


@dataclass
class RemoteCounters:
    """What happened, since this object was made."""

    looks: int = 0
    hits: int = 0
    refused: int = 0
    failures: int = 0
    written: int = 0
    dropped: int = 0


def entry_name(key_digest: str, guards: str, payload: bytes | memoryview, signer: str) -> str:
    """Where an entry lies below the storage's root. Raises ValueError for a digest that is none."""
    if not _DIGEST.fullmatch(key_digest):
        raise ValueError(f"{key_digest!r} is not a digest of a key")
    content = hashlib.sha256(guards.encode() + b"\0")
    content.update(payload)
    return f"{key_digest[:2]}/{key_digest}/{content.hexdigest()[:32]}-{signer}.braze"


def signer_of(path: str) -> str | None:
    """The id of the key that the name of an entry claims; None if it is no such name."""
    found = _FILE.fullmatch(path.rsplit("/", 1)[-1])
    return found.group("signer") if found else None


class Breaker:
    """Whether something that failed lately may be asked again: not before a pause that doubles each time.

    ``first`` and ``longest`` pause in seconds; ``clock`` gives seconds that never go back.
    """

    def __init__(
        self, first: float = 5.0, longest: float = 600.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._first = first
        self._longest = longest
        self._clock = clock
        self._failures = 0
        self._until = 0.0

    @property
    def allows(self) -> bool:
        """Whether to ask now."""
        return self._failures == 0 or self._clock() >= self._until

    def failed(self) -> float:
        """Note a failure; the seconds of the pause that begins."""
        pause = min(self._longest, self._first * 2.0 ** min(self._failures, 32))
        self._failures += 1
        self._until = self._clock() + pause
        return pause

    def succeeded(self) -> bool:
        """Note an answer; whether there were failures before it."""
        recovered, self._failures = self._failures > 0, 0
        return recovered


class RemoteCache:
    """The entries below one fsspec URL. Threads may share an object; a process that was forked off goes on
    with connections of its own."""

    def __init__(
        self, url: str, timeout_ms: int, keyring: KeyRing, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """``timeout_ms``: what one `get` may take at most; ``clock``: by which pauses are measured."""
        self.url = url
        self.shown_url = _without_secrets(url)
        self.counts = RemoteCounters()
        self._timeout = timeout_ms / 1000
        self._keyring = keyring
        self._process = -1
        self._connected: tuple[AbstractFileSystem, str] | None = None
        self._reading = Breaker(clock=clock)
        self._writing = Breaker(clock=clock)
        self._writer = JobQueue("braze-remote-cache", jobs=_QUEUED_JOBS, size=_QUEUED_BYTES)
        self._logged: set[str] = set()

    def get(
        self, key_digest: str, *, level: int | None = None, kind: str | None = None
    ) -> list[VerifiedEntry]:
        """The trusted answers to a key, at most `MAX_VARIANTS`; none where the storage fails.

        ``level`` and ``kind``, where they are given, have to be the entries'. If the deadline passes, what
        was there by then is returned.
        """
        self.counts.looks += 1
        if not self._reading.allows or not _DIGEST.fullmatch(key_digest):
            return []
        look = _Lookup()
        thread = start(
            "braze-remote-look",
            lambda: self._look(look, key_digest, level, kind),
            hold=False,  # it may hang for ever, and must not keep the process
        )
        if thread is None:
            look.problem = RuntimeError("no thread can be started")
        else:
            thread.join(self._timeout)
            look.abandoned = thread.is_alive()
        found = list(look.found)
        if look.abandoned:
            self._failed(self._reading, f"it did not answer within {self._timeout:g} s")
        elif look.problem is not None:
            self._failed(self._reading, _one_line(look.problem))
        elif self._reading.succeeded():
            _log.info("the remote cache %s answers again", self.shown_url)
        self.counts.hits += bool(found)
        return found

    def put(
        self, key_digest: str, payload: bytes, *, level: int, kind: str, name: str = "", guards: str = ""
    ) -> bool:
        """Have an entry signed with the ring's own key and written, later and elsewhere.

        False if it will not be: too large, too much is waiting already, or writing failed a moment ago.
        Without a key to sign with nothing is written, and a line in the log says so once.
        """

        def job() -> None:
            self._write(key_digest, payload, level, kind, name, guards)

        good = (
            _DIGEST.fullmatch(key_digest) is not None and len(payload) <= MAX_ENTRY and self._writing.allows
        )
        accepted = good and self._writer.offer(job, len(payload))
        self.counts.dropped += not accepted
        return accepted

    def flush(self, seconds: float) -> bool:
        """Wait until everything that was put is written, at most so long. Whether nothing is left to do."""
        return self._writer.flush(seconds)

    def _connect(self) -> tuple[AbstractFileSystem, str]:
        """The file system, and the path of the root in it. Raises whatever fsspec, or a driver, raises."""
        # 50 ms to import, and seconds for some drivers: only those who share a cache pay it, in a thread
        from fsspec.core import url_to_fs  # noqa: PLC0415

        if self._connected is None or self._process != os.getpid():
            system, root = url_to_fs(self.url)
            self._connected, self._process = (system, root.rstrip("/")), os.getpid()
        return self._connected

    def _look(self, look: _Lookup, key_digest: str, level: int | None, kind: str | None) -> None:
        """The body of `get`, in a thread of its own."""
        try:
            system, root = self._connect()
            for path in self._variants(system, f"{root}/{key_digest[:2]}/{key_digest}"):
                if look.abandoned:
                    return
                try:
                    data = system.cat_file(path)
                except FileNotFoundError:  # somebody cleaned up in between
                    continue
                try:
                    look.found.append(verify_entry(data, key_digest, self._keyring, level=level, kind=kind))
                except ArtifactError as error:
                    self._refused(path, error)
        except KeyringError as error:  # the ring, not the storage, is what fails
            self._refused("every entry", error)
        except Exception as error:  # drivers raise what they like; all of it means: no answer
            look.problem = error

    def _variants(self, system: AbstractFileSystem, folder: str) -> list[str]:
        """The paths in a folder that are worth reading, by what is known without reading them."""
        system.invalidate_cache(folder)  # others write there
        try:
            listed: list[dict[str, Any]] = system.ls(folder, detail=True)
        except FileNotFoundError:
            return []
        paths = []
        for item in sorted(listed, key=lambda item: str(item["name"])):
            path = str(item["name"])
            if not path.endswith(".braze") or item.get("type") != "file":
                continue
            signer = signer_of(path)
            if signer is None:
                self._refused(path, ArtifactError("it is not signed: its name tells no signer"))
            elif not self._keyring.trusts(signer):
                self._refused(
                    path, ArtifactError(f"its signer, the key {signer}, is not trusted"), once_for=signer
                )
            elif (item.get("size") or 0) > MAX_FILE:
                self._refused(path, ArtifactError(f"{item['size']} bytes are too many for an entry"))
            else:
                paths.append(path)
        return paths[:MAX_VARIANTS]

    def _write(self, key_digest: str, payload: bytes, level: int, kind: str, name: str, guards: str) -> None:
        """One job of the writer."""
        try:
            signer = self._keyring.default()
            if signer is None:
                self._say_once(
                    logging.INFO,
                    "nothing is written to the remote cache %s, for there is no key to sign it with: "
                    "`braze cache keygen` makes one",
                    self.shown_url,
                )
                return
            data = sign_entry(
                payload,
                key_digest,
                self._keyring,
                level=level,
                kind=kind,
                name=name,
                guards=guards,
                signer=signer.id,
            )
            path = entry_name(key_digest, guards, payload, signer.id)
        except BrazeError as error:
            self._say_once(logging.WARNING, "nothing is written to the remote cache: %s", _one_line(error))
            return
        try:
            system, root = self._connect()
            if _store(system, f"{root}/{path}", data):
                self.counts.written += 1
            self._writing.succeeded()
        except Exception as error:  # as in `_look`
            self._failed(self._writing, _one_line(error))

    def _failed(self, breaker: Breaker, reason: str) -> None:
        self.counts.failures += 1
        what = "written to" if breaker is self._writing else "asked"
        pause = breaker.failed()
        self._say_once(
            logging.WARNING,
            "the remote cache %s cannot be %s; compiling goes on without it (next try in %g s or later): %s",
            self.shown_url,
            what,
            pause,
            reason,
            once_for=what,
        )

    def _refused(self, path: str, error: BrazeError, once_for: str | None = None) -> None:
        self.counts.refused += 1
        self._say_once(
            logging.WARNING,
            "the remote cache %s: %s was refused: %s",
            self.shown_url,
            path.rsplit("/", 1)[-1],
            _one_line(error),
            once_for=once_for or path,
        )

    def _say_once(self, level: int, text: str, *values: object, once_for: str | None = None) -> None:
        """Log a line; at DEBUG if the same was logged before."""
        once_for = once_for or text
        known = once_for in self._logged or len(self._logged) >= _MAX_REMEMBERED
        self._logged.add(once_for)
        _log.log(logging.DEBUG if known else level, text, *values)


class _Lookup:
    """What a thread of `get` finds, and whether anybody still waits for it."""

    def __init__(self) -> None:
        self.found: list[VerifiedEntry] = []
        self.problem: Exception | None = None
        self.abandoned = False


def _store(system: AbstractFileSystem, path: str, data: bytes) -> bool:
    """Write a file that others see whole or not at all. Whether it was written: not if it is there."""
    try:
        if system.info(path)["size"] == len(data):
            return False
    except FileNotFoundError:
        pass  # the usual case: nobody wrote it yet
    protocols = {system.protocol} if isinstance(system.protocol, str) else set(system.protocol)
    if protocols & _WHOLE_OBJECTS:
        system.pipe_file(path, data)
        return True
    folder, name = path.rsplit("/", 1)
    system.makedirs(folder, exist_ok=True)
    partial = f"{folder}/.{name}.{os.urandom(6).hex()}.part"
    try:
        system.pipe_file(partial, data)
        system.mv(partial, path)
    except BaseException:
        if system.exists(partial):
            system.rm_file(partial)
        raise
    return True


def _one_line(error: Exception) -> str:
    if isinstance(error, BrazeError):
        return f"{error.what} ({error.hint})" if error.hint else error.what
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _without_secrets(url: str) -> str:
    """The URL without a user's name, password or query, which have no place in a log."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "<url>"
    return urlunsplit(parts._replace(netloc=parts.netloc.rsplit("@", 1)[-1], query="", fragment=""))


def _check_protocol(url: str) -> None:
    """Raises ``ConfigError`` for a URL of a storage that fsspec has not heard of."""
    from fsspec.registry import known_implementations, registry  # noqa: PLC0415  as above

    known = sorted({*known_implementations, *registry})
    parts = url.split("::")  # one storage behind another
    for part in parts:
        protocol, colon, _ = part.partition("://")
        if (colon or len(parts) > 1) and protocol not in known:
            close = difflib.get_close_matches(protocol, known, n=3)
            guess = f"did you mean {' or '.join(map(repr, close))}? " if close else ""
            raise ConfigError(
                f"option 'remote_cache' names a storage {protocol!r} that fsspec does not know",
                hint=f"{guess}the storages are: {', '.join(known)}",
            )


_configured: dict[tuple[str, int, str], RemoteCache] = {}


def configured(options: config.Config | None = None) -> RemoteCache | None:
    """The remote cache that the options name, or None: one object for each in a process, so that all its
    compilations know when it does not answer. Raises ``ConfigError`` where fsspec knows no such storage."""
    options = options or config.current()
    if options.remote_cache is None:
        return None
    keyring = KeyRing(keyring_folder(options))
    wanted = (options.remote_cache, options.remote_cache_timeout_ms, str(keyring.folder))
    remote = _configured.get(wanted)
    if remote is None:
        _check_protocol(options.remote_cache)
        remote = _configured.setdefault(wanted, RemoteCache(wanted[0], wanted[1], keyring))
    return remote
