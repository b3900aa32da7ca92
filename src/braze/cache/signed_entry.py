"""The signed entry: how an entry of the cache travels between machines and people.

::

     0  magic          8 bytes   93 42 52 5a 53 45 0d 0a  ("\\x93BRZSE\\r\\n")
     8  version        u32       2, little endian as all numbers
    12  header length  u32
    16  header         msgpack of `EntryHeader`, typed
        signature      64 bytes  Ed25519 over "braze signed entry 1\\n" and the bytes 0 to the header's end
        payload        as many bytes as the header says, and nothing after it

The header holds the SHA-256 of the payload, the digest of the key that the entry is an answer to, and the
guards under which it is. So the signature binds them: what was signed as the answer to one question is
refused as the answer to another, whoever stored it there.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import struct
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from braze.cache.keyring import SIGNATURE_BYTES, KeyRing, Signature, TrustedKey
from braze.errors import ArtifactError, SignatureError, UnserializableError

if TYPE_CHECKING:
    from braze.cache.keys import Key
    from braze.cache.store import CacheStore

__all__ = ["MAGIC", "VERSION", "EntryHeader", "VerifiedEntry", "read_header", "sign_entry", "verify_entry"]

MAGIC: Final = b"\x93BRZSE\r\n"
VERSION: Final = 2
MAX_HEADER: Final = 1 << 22
"""Bytes that a header may have."""

_PREFIX: Final = struct.Struct("<8sII")
MAX_OVERHEAD: Final = _PREFIX.size + MAX_HEADER + SIGNATURE_BYTES
"""By how many bytes a signed entry can be longer than its payload."""
_KIND: Final = "signed entry"


class EntryHeader(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is said of a payload, under the signature.

    ``key``: the digest of the cache key it belongs to; ``level``, ``kind``, ``name`` and ``guards`` as in
    `braze.cache.records.EntryInfo`; ``braze`` the version that signed it, ``signer`` the id of the key it is
    signed with, ``made`` when (UTC); ``size`` in bytes and ``sha256`` (32 bytes) of the payload.
    """

    key: str
    level: int
    kind: str
    name: str
    guards: str
    braze: str
    signer: str
    made: datetime
    size: int
    sha256: bytes


class VerifiedEntry(NamedTuple):
    """A payload that a trusted key signed as the answer to the key it was asked for."""

    payload: memoryview
    signer: TrustedKey
    header: EntryHeader

    def store(self, store: CacheStore, key: Key) -> bool:
        """Put it into a store as the answer to ``key``, under the id of its signer. Whether it is stored."""
        header = self.header
        return store.put(
            key,
            bytes(self.payload),
            name=header.name,
            kind=header.kind,
            level=header.level,
            guards=header.guards,
            origin=self.signer.id,
        )


def sign_entry(
    payload: bytes | memoryview,
    key_digest: str,
    keyring: KeyRing,
    *,
    level: int,
    kind: str,
    name: str = "",
    guards: str = "",
    signer: str | None = None,
) -> bytes:
    """The signed entry that holds ``payload`` as the answer to ``key_digest``.

    ``signer`` is the name or id of one of the ring's own keys; None takes its default. Raises `KeyringError`
    if there is none, and `UnserializableError` for a text that is no text (lone surrogates) or too long.
    """
    chosen = keyring.signer(signer)  # its id is part of what it signs
    header = EntryHeader(
        key=key_digest,
        level=level,
        kind=kind,
        name=name,
        guards=guards,
        braze=importlib.metadata.version("braze"),
        signer=chosen.id,
        made=datetime.now(timezone.utc),
        size=len(payload),
        sha256=hashlib.sha256(payload).digest(),
    )
    try:
        encoded = msgspec.msgpack.encode(header)
    except UnicodeEncodeError as error:
        raise UnserializableError(f"an entry cannot be signed: {error}") from error
    if len(encoded) > MAX_HEADER:
        raise UnserializableError(f"an entry cannot be signed: its header would have {len(encoded)} bytes")
    head = _PREFIX.pack(MAGIC, VERSION, len(encoded)) + encoded
    return b"".join([head, keyring.sign(_KIND, head, chosen.id).value, payload])


def read_header(data: bytes | memoryview) -> EntryHeader:
    """What an intact signed entry says of itself, *whoever made it*: for tables, and to learn which key it
    claims to answer. Raises `ArtifactError` if it is damaged."""
    return _parse(memoryview(data))[0]


def verify_entry(
    data: bytes | memoryview,
    key_digest: str,
    keyring: KeyRing,
    *,
    level: int | None = None,
    kind: str | None = None,
) -> VerifiedEntry:
    """The payload of a signed entry, if it is what it should be.

    ``level`` and ``kind``, where they are given, have to be the entry's. Raises `ArtifactError` if the entry
    is damaged or of another format, `SignatureError` if it is not signed by a trusted key, or was signed as
    the answer to another key. The payload is a view of ``data``.
    """
    header, head, signature, payload = _parse(memoryview(data))
    signed = Signature(header.signer, signature) if header.signer else None
    signer = keyring.verify(_KIND, head, signed)
    for what, asked, found in (
        ("key", key_digest, header.key),
        ("level", level, header.level),
        ("kind", kind, header.kind),
    ):
        if asked is not None and asked != found:
            raise SignatureError(
                f"it was signed by {signer} for the {what} {found!r}, and stored under the {what} {asked!r}",
                hint="somebody may have moved it there to have other code run; look at who can write there",
            )
    return VerifiedEntry(payload, signer, header)


def _parse(view: memoryview) -> tuple[EntryHeader, bytes, bytes, memoryview]:
    """Header, what the signature is over, signature, payload; the payload's checksum is right."""
    if len(view) < _PREFIX.size:
        raise ArtifactError(f"{len(view)} bytes are not a signed entry")
    magic, version, length = _PREFIX.unpack_from(view)
    if magic != MAGIC:
        raise ArtifactError("these bytes are not a signed entry: they begin otherwise")
    if version != VERSION:
        raise ArtifactError(f"the signed entry has format {version}, and this Braze reads format {VERSION}")
    end = _PREFIX.size + length
    if length > MAX_HEADER or end + SIGNATURE_BYTES > len(view):
        raise ArtifactError(f"the signed entry is damaged: a header of {length} bytes cannot be in it")
    try:
        header = msgspec.msgpack.decode(view[_PREFIX.size : end], type=EntryHeader)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ArtifactError(f"the header of the signed entry is damaged: {error}") from error
    payload = view[end + SIGNATURE_BYTES :].toreadonly()
    if len(payload) != header.size:
        raise ArtifactError(f"the signed entry is cut: {len(payload)} of {header.size} bytes are there")
    if hashlib.sha256(payload).digest() != header.sha256:
        raise ArtifactError("the signed entry is damaged: the checksum of its payload is another")
    return header, bytes(view[:end]), bytes(view[end : end + SIGNATURE_BYTES]), payload
