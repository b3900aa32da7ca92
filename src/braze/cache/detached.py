"""Detached signatures: of one file, or of the members of an archive.

What is signed is a list of names and SHA-256 checksums in one canonical form; the signature is a small JSON
document, beside the file or as one more member of the archive::

    {"format": "braze-signature", "version": 1, "subject": "...", "signer": "<key id>",
     "signature": "<64 bytes in base64>"}

The subject says what kind of thing was signed (``file``, ``package``), so that a signature of one kind never
stands for another.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal

import msgspec

from braze.cache.keyring import KeyRing, Signature, TrustedKey
from braze.errors import ArtifactError, SignatureError

__all__ = ["SUFFIX", "file_digest", "sign_file", "sign_members", "verify_file", "verify_members"]

SUFFIX: Final = ".braze-signature"
"""What a file's signature is called: the file's name and this."""
MAX_BYTES: Final = 1 << 16
"""Bytes that a signature's document may have."""
_FILE: Final = "content"


class _Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: Literal["braze-signature"]
    version: Literal[1]
    subject: str
    signer: str
    signature: bytes


def sign_members(
    subject: str, members: Mapping[str, bytes], keyring: KeyRing, key: str | None = None
) -> bytes:
    """The signature document of ``members``: SHA-256 (32 bytes) by name, in any order.

    ``subject`` says what kind of thing they make up, ``key`` is the name or id of the ring's own key that
    signs (None: its default). What is no member is not covered: whoever signs an archive has to list all of
    it but the signature itself, and whoever verifies has to list all that is there. Raises `KeyringError`.
    """
    signature = keyring.sign(_message(subject, members), key)
    document = _Document("braze-signature", 1, subject, signature.signer, signature.value)
    return msgspec.json.format(msgspec.json.encode(document)) + b"\n"


def verify_members(
    subject: str, members: Mapping[str, bytes], document: bytes | None, keyring: KeyRing
) -> TrustedKey:
    """The trusted key that signed exactly these members as this kind of thing.

    Raises `ArtifactError` if the document is damaged, `SignatureError` if there is none, if its key is not
    trusted, or if it was made of something else.
    """
    if document is None:
        return keyring.verify(b"", None)
    try:
        if len(document) > MAX_BYTES:
            raise ArtifactError(f"{len(document)} bytes are not a signature")
        found = msgspec.json.decode(document, type=_Document)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ArtifactError(f"the signature is damaged: {error}") from error
    if found.subject != subject:
        raise SignatureError(f"the signature is one of a {found.subject!r}, and this is a {subject!r}")
    return keyring.verify(_message(subject, members), Signature(found.signer, found.signature))


def sign_file(path: str | os.PathLike[str], keyring: KeyRing, key: str | None = None) -> Path:
    """Sign a file's content (not its name) and write the signature beside it; returns where.

    Raises `KeyringError` if there is no key to sign with, and `OSError`.
    """
    document = sign_members("file", {_FILE: file_digest(path)}, keyring, key)
    beside = _beside(path)
    beside.write_bytes(document)
    return beside


def verify_file(path: str | os.PathLike[str], keyring: KeyRing) -> TrustedKey:
    """The trusted key that signed the file, by the signature beside it.

    Raises as `verify_members` does, and `OSError` if the file cannot be read.
    """
    try:
        document = _beside(path).read_bytes()
    except FileNotFoundError:
        document = None
    return verify_members("file", {_FILE: file_digest(path)}, document, keyring)


def file_digest(path: str | os.PathLike[str]) -> bytes:
    """The SHA-256 of a file, 32 bytes, read in pieces. Raises `OSError`."""
    summed = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            summed.update(piece)
    return summed.digest()


def _message(subject: str, members: Mapping[str, bytes]) -> bytes:
    """What is signed: msgpack of a list of lists, sorted by name, so that every list has one form."""
    for name, digest in members.items():
        if len(digest) != hashlib.sha256().digest_size:
            raise ValueError(f"the digest of {name!r} is not a SHA-256")
    return b"braze signed files 1\n" + msgspec.msgpack.encode([subject, sorted(members.items())])


def _beside(path: str | os.PathLike[str]) -> Path:
    path = Path(path)
    return path.with_name(path.name + SUFFIX)
