"""Entries of the cache in one file: a zip archive, laid out as a remote cache is.

::

    <first two digits>/<digest of a key>/key.json                        the key's named texts
    <first two digits>/<digest of a key>/<content>-<signer>.braze        signed entries

So unpacking one into a folder makes that folder a remote cache. The texts need no signature: their digest is
the key that each entry is signed for.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from braze.cache.keyring import KeyRing
from braze.cache.keys import Key
from braze.cache.paths import replaced
from braze.cache.records import EntryInfo
from braze.cache.remote import MAX_ENTRY, MAX_FILE, entry_name, signer_of
from braze.cache.signatures import ZIP_ERRORS
from braze.cache.signed_entry import read_header, sign_entry, verify_entry
from braze.cache.store import CacheStore
from braze.errors import ArtifactError, CacheError, SignatureError

__all__ = ["TransferResult", "export_entries", "import_entries"]

MAX_MEMBERS: Final = 100_000
_MAX_KEY: Final = 1 << 26
_TIME: Final = (1980, 1, 1, 0, 0, 0)  # the zip format's zero; the header says when it was made


class TransferResult(NamedTuple):
    """What became of one entry: ``done``, or not, for ``reason``."""

    key: str
    name: str
    nbytes: int
    signer: str
    done: bool
    reason: str


class _KeyDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``key.json``."""

    parts: list[tuple[str, str]]


def export_entries(
    path: str | os.PathLike[str],
    store: CacheStore,
    entries: Iterable[EntryInfo],
    keyring: KeyRing,
    signer: str | None = None,
) -> list[TransferResult]:
    """Sign entries of a store with the ring's own key (``signer``: its name or id; None: the default) and
    write them to one file, which appears when it is complete.

    Raises `KeyringError` if there is no key to sign with, and `CacheError` if the file cannot be written.
    """
    path = Path(path)
    chosen = keyring.signer(signer)
    done = []
    try:
        with (
            replaced(path) as partial,
            zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        ):
            written: set[str] = set()
            for info in entries:
                found = [entry for entry in store.get(info.key) if entry.id == info.id]
                key = store.key(info.key)
                if not found or key is None:
                    done.append(_transfer(info, "", "it is no longer in the cache"))
                    continue
                entry = found[0]
                if len(entry.payload) > MAX_ENTRY:
                    done.append(_transfer(info, "", "it is too large to travel"))
                    continue
                signed = sign_entry(
                    entry.payload,
                    entry.key,
                    keyring,
                    level=entry.level,
                    kind=entry.kind,
                    name=entry.name,
                    guards=entry.guards,
                    signer=chosen.id,
                )
                texts = f"{entry.key[:2]}/{entry.key}/key.json"
                if texts not in written:
                    archive.writestr(_member(texts), msgspec.json.encode(_KeyDocument(list(key.parts))))
                    written.add(texts)
                name = entry_name(entry.key, entry.guards, entry.payload, chosen.id)
                archive.writestr(_member(name), signed)
                done.append(_transfer(info, str(chosen)))
    except OSError as error:
        raise CacheError(f"{path} cannot be written: {error}", hint="choose another place") from error
    return done


def import_entries(path: str | os.PathLike[str], store: CacheStore, keyring: KeyRing) -> list[TransferResult]:
    """Put the entries of a file into a store: those that a trusted key signed, each by itself. What the store
    has under the same key and guards stays as it is.

    Raises `ArtifactError` if the file is no such file at all, and `CacheError` if it cannot be read.
    """
    known = {(info.key, info.level, info.guards) for info in store.entries()}
    with _opened(path) as archive:
        names = archive.namelist()
        if len(names) > MAX_MEMBERS:
            raise ArtifactError(f"{path} has {len(names)} members, which are too many")
        entries = [name for name in names if name.endswith(".braze")]
        if not entries:
            hint = "`braze cache export` writes such files"
            raise ArtifactError(f"{path} holds no entries of a cache", hint=hint)
        return [_import_one(archive, name, store, keyring, known) for name in entries]


def _import_one(
    archive: zipfile.ZipFile,
    name: str,
    store: CacheStore,
    keyring: KeyRing,
    known: set[tuple[str, int, str]],
) -> TransferResult:
    digest = name.split("/")[1] if name.count("/") == 2 else ""
    shown = TransferResult(digest, name.rsplit("/", 1)[-1], 0, signer_of(name) or "nobody", False, "")
    try:
        data = _read(archive, name, MAX_FILE)
        header = read_header(data)
        shown = shown._replace(key=header.key, name=header.name, nbytes=header.size, signer=header.signer)
        opened = verify_entry(data, header.key, keyring)
        shown = shown._replace(signer=str(opened.signer))
        if (header.key, header.level, header.guards) in known:
            return shown._replace(reason="it is in the cache already")
        key = _key(archive, header.key)
        stored = opened.store(store, key)
        known.add((header.key, header.level, header.guards))
        return shown._replace(done=stored, reason="" if stored else store.problem or "the cache took it not")
    except SignatureError as error:
        return shown._replace(reason=f"refused: {error.what}")
    except ArtifactError as error:
        return shown._replace(reason=error.what)


def _key(archive: zipfile.ZipFile, digest: str) -> Key:
    """The key with that digest. Raises `ArtifactError` if its texts are missing or of another key."""
    data = _read(archive, f"{digest[:2]}/{digest}/key.json", _MAX_KEY)
    try:
        key = Key.of(msgspec.json.decode(data, type=_KeyDocument).parts)
    except (msgspec.DecodeError, ValueError) as error:
        raise ArtifactError(f"the texts of its key are damaged: {error}") from error
    if key.digest != digest:
        raise ArtifactError("the texts of its key are those of another key")
    return key


def _read(archive: zipfile.ZipFile, name: str, limit: int) -> bytes:
    """A member of at most ``limit`` bytes, however many it says it has. Raises `ArtifactError`."""
    try:
        with archive.open(name) as member:
            data = member.read(limit + 1)
    except KeyError as error:
        raise ArtifactError(f"{name} is missing") from error
    except (*ZIP_ERRORS, OSError) as error:
        raise ArtifactError(f"{name} is damaged: {error}") from error
    if len(data) > limit:
        raise ArtifactError(f"{name} has more than {limit} bytes")
    return data


@contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[zipfile.ZipFile]:
    with ExitStack() as stack:
        try:
            file = stack.enter_context(open(path, "rb"))
        except OSError as error:
            raise CacheError(f"{path} cannot be read: {error.strerror}", hint="is the path right?") from error
        try:
            archive = stack.enter_context(zipfile.ZipFile(file))
        except (*ZIP_ERRORS, OSError) as error:
            raise ArtifactError(f"{path} is not a file of `braze cache export`: {error}") from error
        yield archive


def _member(name: str) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(name, _TIME)
    member.compress_type = zipfile.ZIP_DEFLATED
    member.external_attr = 0o644 << 16
    return member


def _transfer(info: EntryInfo, signer: str, reason: str = "") -> TransferResult:
    return TransferResult(info.key, info.name, info.nbytes, signer, not reason, reason)
