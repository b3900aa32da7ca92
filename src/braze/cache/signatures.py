"""Signatures of a file, and of the members of an archive such as a ``.pt2`` package.

What is signed is a list of names and SHA-256 checksums in one canonical form; the signature is a small JSON
document::

    {"format": "braze-signature", "version": 1, "subject": "...", "signer": "<key id>",
     "signature": "<64 bytes in base64>"}

The subject says what kind of thing was signed (``file``, ``package``), so that a signature of one kind never
stands for another. A file has its signature beside it. An archive has it as one more member,
``<folder>/extra/braze-signature-<key id>.json``, where ``<folder>`` is the one folder of all members, if
there is one; it covers all members but the signatures, so that several people may sign one archive. The
order, times and comments of members are not signed.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Final, Literal

import msgspec

from braze.cache.keyring import KeyRing, Signature, TrustedKey
from braze.cache.paths import replaced
from braze.errors import ArtifactError, SignatureError

__all__ = [
    "PACKAGE",
    "SUFFIX",
    "ZIP_ERRORS",
    "is_signature",
    "sign_archive",
    "sign_file",
    "sign_members",
    "signature_name",
    "verify_any",
    "verify_archive",
    "verify_file",
    "verify_members",
]

PACKAGE: Final = "package"
"""The subject of signatures in archives."""
SUFFIX: Final = ".braze-signature"
"""What a file's signature is called: the file's name and this."""
MAX_BYTES: Final = 1 << 16
"""Bytes that a signature's document may have."""
_KIND: Final = "signed files"
_FILE: Final = "file"
_CONTENT: Final = "content"
_SIGNATURE: Final = re.compile(r"(?:[^/]+/)?extra/braze-signature-[0-9a-f]{20}\.json")
ZIP_ERRORS: Final = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError)
"""What zipfile raises for archives that are damaged, encrypted, or packed in ways it has no code for."""


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
    signature = keyring.sign(_KIND, _message(subject, members), key)
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
        return keyring.verify(_KIND, b"", None)
    try:
        if len(document) > MAX_BYTES:
            raise ArtifactError(f"{len(document)} bytes are not a signature")
        found = msgspec.json.decode(document, type=_Document)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ArtifactError(f"the signature is damaged: {error}") from error
    if found.subject != subject:
        raise SignatureError(f"the signature is one of a {found.subject!r}, and this is a {subject!r}")
    return keyring.verify(_KIND, _message(subject, members), Signature(found.signer, found.signature))


def verify_any(members: Mapping[str, bytes], documents: Iterable[bytes], keyring: KeyRing) -> TrustedKey:
    """A trusted key whose signature of exactly these members (SHA-256 by name) is one of the documents.

    Raises `SignatureError` if there is none: what was wrong with the last document.
    """
    problem: ArtifactError | None = None
    for document in documents:
        try:
            return verify_members(PACKAGE, members, document, keyring)
        except ArtifactError as error:
            problem = error
    if problem is None:
        return verify_members(PACKAGE, members, None, keyring)
    if isinstance(problem, SignatureError):
        raise problem
    raise SignatureError(problem.what) from problem


# -- files beside which the signature lies ----------------------------------------------------------------
def sign_file(path: str | os.PathLike[str], keyring: KeyRing, key: str | None = None) -> Path:
    """Sign a file's content (not its name) and write the signature beside it; returns where.

    Raises `KeyringError` if there is no key to sign with, and `OSError`.
    """
    document = sign_members(_FILE, _content(path), keyring, key)
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
    return verify_members(_FILE, _content(path), document, keyring)


def _beside(path: str | os.PathLike[str]) -> Path:
    path = Path(path)
    return path.with_name(path.name + SUFFIX)


def _content(path: str | os.PathLike[str]) -> dict[str, bytes]:
    with open(path, "rb") as file:
        return {_CONTENT: _digest(file)}


# -- archives in which it lies ----------------------------------------------------------------------------
def is_signature(member: str) -> bool:
    """Whether a member of an archive is a signature, and so not signed itself."""
    return _SIGNATURE.fullmatch(member) is not None


def signature_name(folder: str, identity: str) -> str:
    """The member with the signature of a key, of an archive whose members are in ``folder`` ('' or 'x/')."""
    return f"{folder}extra/braze-signature-{identity}.json"


def sign_archive(path: str | os.PathLike[str], keyring: KeyRing, key: str | None = None) -> TrustedKey:
    """Add this user's signature to an archive, with the ring's own key of that name or id (None: default).

    The archive is replaced by a copy with one member more; if this key signed it already, nothing changes.
    Raises `KeyringError` if there is no key to sign with, `ArtifactError` if the file is no intact archive or
    was changed since this key signed it, and `OSError`.
    """
    path = Path(path)
    signer = keyring.signer(key)
    members, documents = _read(path)
    folders = {name.split("/")[0] if "/" in name else "" for name in members}
    folder = f"{folders.pop()}/" if len(folders) == 1 and "" not in folders else ""
    name = signature_name(folder, signer.id)
    if name in documents:
        try:
            return verify_any(members, [documents[name]], keyring)
        except SignatureError as error:
            hint = "make the package anew, and sign that"
            raise ArtifactError(f"{path} was changed after {signer} signed it", hint=hint) from error
    with replaced(path) as partial:
        shutil.copy(path, partial)
        with zipfile.ZipFile(partial, "a", zipfile.ZIP_STORED) as archive:
            archive.writestr(name, sign_members(PACKAGE, members, keyring, signer.id))
    return signer


def verify_archive(path: str | os.PathLike[str], keyring: KeyRing) -> TrustedKey:
    """A trusted key that signed the archive as it is.

    Raises `SignatureError` if there is none, `ArtifactError` if the file is no intact archive, and `OSError`.
    """
    members, documents = _read(path)
    return verify_any(members, documents.values(), keyring)


def _read(path: str | os.PathLike[str]) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """The SHA-256 of every member that is no signature, and the documents of the signatures; both by name.

    Raises `ArtifactError` if a member is damaged, or if two have one name: readers would not agree on which
    of them is meant.
    """
    members: dict[str, bytes] = {}
    documents: dict[str, bytes] = {}
    try:
        archive = zipfile.ZipFile(path)
    except ZIP_ERRORS as error:
        raise ArtifactError(f"{path} is not an intact archive: {error}") from error
    with archive:
        for info in archive.infolist():
            name = info.filename
            if name in members or name in documents:
                raise ArtifactError(f"the archive has two members of the name {name!r}")
            try:
                with archive.open(info) as member:
                    if is_signature(name):
                        documents[name] = member.read(MAX_BYTES + 1)
                    else:
                        members[name] = _digest(member)
            except ZIP_ERRORS as error:
                raise ArtifactError(f"the member {name!r} of the archive is damaged: {error}") from error
    return members, documents


# -- both -------------------------------------------------------------------------------------------------
def _digest(file: IO[bytes]) -> bytes:
    """The SHA-256 of what is left of a file, 32 bytes, read in pieces."""
    summed = hashlib.sha256()
    while piece := file.read(1 << 20):
        summed.update(piece)
    return summed.digest()


def _message(subject: str, members: Mapping[str, bytes]) -> bytes:
    """What is signed: msgpack of a list of lists, sorted by name, so that every list has one form."""
    for name, digest in members.items():
        if len(digest) != hashlib.sha256().digest_size:
            raise ValueError(f"the digest of {name!r} is not a SHA-256")
    return msgspec.msgpack.encode([subject, sorted(members.items())])
