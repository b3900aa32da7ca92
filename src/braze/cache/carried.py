"""Entries of the cache among what `torch.compiler.save_cache_artifacts` returns.

An entry is carried as msgpack of `_Carried`: the texts of its key and the entry, sealed. It is read from the
store, sealed and signed when somebody saves; until then no more is kept of it than where it is.
"""

from __future__ import annotations

import hashlib
import logging
from typing import NamedTuple

import msgspec

from braze import config
from braze._torch import cache_artifacts
from braze.cache.envelope import open_sealed, peek, seal
from braze.cache.keyring import KeyRing
from braze.cache.keys import Key
from braze.cache.remote import MAX_ENTRY
from braze.cache.store import Store, open_store
from braze.errors import ArtifactError, BrazeError, CacheError, UnserializableError

__all__ = ["Unstored", "load", "record"]

_log = logging.getLogger("braze")

_NOTHING = b""
"""The content of an entry that could not be carried."""
_said: set[str] = set()


class Unstored(NamedTuple):
    """An artefact that was made here, and that the store did not take: the disk is full, or read-only."""

    key: Key
    payload: bytes
    name: str
    kind: str


class _Carried(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    key: list[tuple[str, str]]
    sealed: bytes


# -- saving -------------------------------------------------------------------------------------------------
def record(store: Store, digest: str, level: int, guards: str, unstored: Unstored | None = None) -> None:
    """An entry was made, or has served somebody: if somebody saves, it is carried. It is in ``store``, or
    else ``unstored``. Costs some microseconds."""
    condition = hashlib.sha256(guards.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    cache_artifacts.record(f"{digest}-{condition}", lambda: _content(store, digest, level, guards, unstored))


def _content(store: Store, digest: str, level: int, guards: str, unstored: Unstored | None) -> bytes:
    """The entry as it is carried; nothing, and a line in the log, where it cannot be. Raises nothing: with
    it, everything else that is being saved would be lost, of other backends, too."""
    try:
        ring = KeyRing()
        signer = ring.signer()
        entry = unstored or _stored(store, digest, level, guards, ring)
        if len(entry.payload) > MAX_ENTRY:
            raise UnserializableError(f"{len(entry.payload)} bytes are too many to travel")
        sealed = seal(
            entry.payload,
            digest,
            ring,
            level=level,
            kind=entry.kind,
            name=entry.name,
            guards=guards,
            signer=signer.id,
        )
        return msgspec.msgpack.encode(_Carried(list(entry.key.parts), sealed))
    except BrazeError as error:
        _not_carried(f"{error.what} ({error.hint})" if error.hint else error.what)
    except Exception as error:
        _not_carried(f"{type(error).__name__}: {error}")
    return _NOTHING


def _stored(store: Store, digest: str, level: int, guards: str, ring: KeyRing) -> Unstored:
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
            return Unstored(key, entry.payload, entry.name, entry.kind)
    raise CacheError("it is no longer in the cache", hint="save right after compiling, or enlarge the cache")


def _not_carried(reason: str) -> None:
    """One line for each reason: there may be hundreds of entries."""
    level = logging.DEBUG if reason in _said else logging.WARNING
    _said.add(reason)
    _log.log(level, "an entry is not among the cache artefacts that are saved: %s", reason)


# -- loading ------------------------------------------------------------------------------------------------
def load(content: bytes) -> None:
    """Store an entry that was carried here, if a trusted key signed it; if not, say so in the log. What the
    store has under the same key and guards stays as it is."""
    if content == _NOTHING:
        return
    try:
        store = open_store(config.current())
        if store is None:
            _log.warning("cache artefacts are left out: the cache is switched off (BRAZE_CACHE=0)")
            return
        carried = _decoded(content)
        key = Key.of(carried.key)
        claimed = peek(carried.sealed)
        if any(entry.level == claimed.level for entry in store.get(key.digest, claimed.guards.__eq__)):
            return
        opened = open_sealed(carried.sealed, key.digest, KeyRing())
        if not opened.store(store, key):
            _log.warning("a cache artefact could not be stored: %s", store.problem or "it is too large")
    except BrazeError as error:
        _log.warning("a cache artefact was refused: %s (%s)", error.what, error.hint)


def _decoded(content: bytes) -> _Carried:
    try:
        carried = msgspec.msgpack.decode(content, type=_Carried)
        Key.of(carried.key)
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as error:
        raise ArtifactError(f"it is damaged: {error}") from error
    return carried
