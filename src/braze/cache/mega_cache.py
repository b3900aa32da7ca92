"""Entries of the cache among what `torch.compiler.save_cache_artifacts` returns.

PyTorch calls that its mega-cache. An entry of ours in it is msgpack of `_Artifact`: the texts of its key, and
the signed entry. It is read from the store and signed when somebody saves; until then no more is kept of it
than where it is.
"""

from __future__ import annotations

import hashlib
import logging
from typing import NamedTuple

import msgspec

from braze import config
from braze._torch import cache_artifacts
from braze.cache.keyring import KeyRing
from braze.cache.keys import Key
from braze.cache.remote import MAX_ENTRY
from braze.cache.signed_entry import read_header, sign_entry, verify_entry
from braze.cache.store import CacheStore, open_store
from braze.errors import ArtifactError, BrazeError, CacheError, UnserializableError

__all__ = ["PendingArtifact", "load", "record"]

_log = logging.getLogger("braze")

_NOTHING = b""
"""The content of an entry that could not be saved."""
_said: set[str] = set()


class PendingArtifact(NamedTuple):
    """An artefact that was made here, and that the store did not take: the disk is full, or read-only."""

    key: Key
    payload: bytes
    name: str
    kind: str


class _Artifact(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    key: list[tuple[str, str]]
    entry: bytes


# -- saving -------------------------------------------------------------------------------------------------
def record(
    store: CacheStore, digest: str, level: int, guards: str, pending: PendingArtifact | None = None
) -> None:
    """An entry was made, or has served somebody: if somebody saves, it is saved, too. It is in ``store``, or
    else ``pending``. Costs some microseconds."""
    condition = hashlib.sha256(guards.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    cache_artifacts.record(f"{digest}-{condition}", lambda: _content(store, digest, level, guards, pending))


def _content(
    store: CacheStore, digest: str, level: int, guards: str, pending: PendingArtifact | None
) -> bytes:
    """The entry as it is saved; nothing, and a line in the log, where it cannot be. Raises nothing: with
    it, everything else that is being saved would be lost, of other backends, too."""
    try:
        ring = KeyRing()
        signer = ring.signer()
        entry = pending or _stored(store, digest, level, guards, ring)
        if len(entry.payload) > MAX_ENTRY:
            raise UnserializableError(f"{len(entry.payload)} bytes are too many to travel")
        signed = sign_entry(
            entry.payload,
            digest,
            ring,
            level=level,
            kind=entry.kind,
            name=entry.name,
            guards=guards,
            signer=signer.id,
        )
        return msgspec.msgpack.encode(_Artifact(list(entry.key.parts), signed))
    except BrazeError as error:
        _left_out(f"{error.what} ({error.hint})" if error.hint else error.what)
    except Exception as error:
        _left_out(f"{type(error).__name__}: {error}")
    return _NOTHING


def _stored(store: CacheStore, digest: str, level: int, guards: str, ring: KeyRing) -> PendingArtifact:
    key = store.key(digest)
    for entry in store.get(digest, lambda text: text == guards):
        if entry.level == level and key is not None:
            if entry.origin != "local" and not any(
                trusted.own and trusted.id == entry.origin
                for trusted in ring.keys()  # noqa: SIM118
            ):
                raise CacheError(
                    f"it was signed by {entry.origin}, and carried it would have your signature",
                    hint=f"`braze cache export --foreign {digest[:12]}` vouches for it",
                )
            return PendingArtifact(key, entry.payload, entry.name, entry.kind)
    raise CacheError("it is no longer in the cache", hint="save right after compiling, or enlarge the cache")


def _left_out(reason: str) -> None:
    """One line for each reason: there may be hundreds of entries."""
    level = logging.DEBUG if reason in _said else logging.WARNING
    _said.add(reason)
    _log.log(level, "an entry is not among the cache artefacts that are saved: %s", reason)


# -- loading ------------------------------------------------------------------------------------------------
def load(content: bytes) -> None:
    """Store an entry that was saved elsewhere, if a trusted key signed it; else say so in the log. What the
    store has under the same key and guards stays as it is."""
    if content == _NOTHING:
        return
    try:
        store = open_store(config.current())
        if store is None:
            _log.warning("cache artefacts are left out: the cache is switched off (BRAZE_CACHE=0)")
            return
        artifact = _decoded(content)
        key = Key.of(artifact.key)
        claimed = read_header(artifact.entry)
        if any(entry.level == claimed.level for entry in store.get(key.digest, claimed.guards.__eq__)):
            return
        opened = verify_entry(artifact.entry, key.digest, KeyRing())
        if not opened.store(store, key):
            _log.warning("a cache artefact could not be stored: %s", store.problem or "it is too large")
    except BrazeError as error:
        _log.warning("a cache artefact was refused: %s (%s)", error.what, error.hint)


def _decoded(content: bytes) -> _Artifact:
    try:
        artifact = msgspec.msgpack.decode(content, type=_Artifact)
        Key.of(artifact.key)
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as error:
        raise ArtifactError(f"it is damaged: {error}") from error
    return artifact
