"""How an entry that a trusted key signed comes into the store of this machine."""

from __future__ import annotations

from braze.cache.envelope import Opened
from braze.cache.keys import Key
from braze.cache.store import Store

__all__ = ["admit"]


def admit(store: Store, key: Key, opened: Opened) -> bool:
    """Store an entry that was opened as the answer to ``key``, under the name of its signer. Whether it is
    stored."""
    header = opened.header
    return store.put(
        key,
        bytes(opened.payload),
        name=header.name,
        kind=header.kind,
        level=header.level,
        guards=header.guards,
        origin=opened.signer.id,
    )
