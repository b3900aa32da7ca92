"""Signatures inside a zip archive, such as a ``.pt2`` package: of all its members but the signatures.

A signature is one more member, ``<folder>/extra/braze-signature-<key id>.json``, where ``<folder>`` is the
one folder of all members, if there is one. Several people may sign one archive. What is signed is the names
and the contents of the members; their order, times and comments are not.
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
from typing import Final

from braze.cache.detached import MAX_BYTES, sign_members, verify_members
from braze.cache.keyring import KeyRing, TrustedKey
from braze.errors import ArtifactError, SignatureError

__all__ = ["is_signature", "sign_archive", "signed_members", "verify_any", "verify_archive"]

SUBJECT: Final = "package"
_SIGNATURE: Final = re.compile(r"(?:[^/]+/)?extra/braze-signature-[0-9a-f]{20}\.json")
# What zipfile raises for archives that are damaged, encrypted, or packed in ways it has no code for.
_DAMAGE: Final = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError)


def is_signature(member: str) -> bool:
    """Whether a member of an archive is a signature, and so not signed itself."""
    return _SIGNATURE.fullmatch(member) is not None


def signed_members(archive: zipfile.ZipFile) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """The SHA-256 of every member that is no signature, and the documents of the signatures; both by name.

    Raises `ArtifactError` if a member is damaged, or if two have one name: readers would not agree on which
    of them is meant.
    """
    members: dict[str, bytes] = {}
    documents: dict[str, bytes] = {}
    for info in archive.infolist():
        name = info.filename
        if name in members or name in documents:
            raise ArtifactError(f"the archive has two members of the name {name!r}")
        try:
            with archive.open(info) as member:
                if is_signature(name):
                    documents[name] = member.read(MAX_BYTES + 1)
                else:
                    summed = hashlib.sha256()
                    while piece := member.read(1 << 20):
                        summed.update(piece)
                    members[name] = summed.digest()
        except _DAMAGE as error:
            raise ArtifactError(f"the member {name!r} of the archive is damaged: {error}") from error
    return members, documents


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
    name = f"{folder}extra/braze-signature-{signer.id}.json"
    if name in documents:
        try:
            return verify_any(members, [documents[name]], keyring)
        except SignatureError as error:
            hint = "make the package anew, and sign that"
            raise ArtifactError(f"{path} was changed after {signer} signed it", hint=hint) from error
    partial = path.with_name(f".{path.name}.{os.urandom(4).hex()}.part")
    try:
        shutil.copy(path, partial)
        with zipfile.ZipFile(partial, "a", zipfile.ZIP_STORED) as archive:
            archive.writestr(name, sign_members(SUBJECT, members, keyring, signer.id))
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return signer


def verify_archive(path: str | os.PathLike[str], keyring: KeyRing) -> TrustedKey:
    """A trusted key that signed the archive as it is.

    Raises `SignatureError` if there is none, `ArtifactError` if the file is no intact archive, and `OSError`.
    """
    members, documents = _read(path)
    return verify_any(members, documents.values(), keyring)


def verify_any(members: Mapping[str, bytes], documents: Iterable[bytes], keyring: KeyRing) -> TrustedKey:
    """A trusted key whose signature of exactly these members (SHA-256 by name) is one of the documents.

    Raises `SignatureError` if there is none: what was wrong with the last document.
    """
    problem: ArtifactError | None = None
    for document in documents:
        try:
            return verify_members(SUBJECT, members, document, keyring)
        except ArtifactError as error:
            problem = error
    if problem is None:
        return verify_members(SUBJECT, members, None, keyring)
    if isinstance(problem, SignatureError):
        raise problem
    raise SignatureError(problem.what) from problem


def _read(path: str | os.PathLike[str]) -> tuple[dict[str, bytes], dict[str, bytes]]:
    try:
        archive = zipfile.ZipFile(path)
    except _DAMAGE as error:
        raise ArtifactError(f"{path} is not an intact archive: {error}") from error
    with archive:
        return signed_members(archive)
