"""Packages: one ``.pt2`` file with all that a compiled model needs, laid out by the conventions of
`torch.export`'s archives::

    package/archive_format                    pt2
    package/archive_version                   0
    package/byteorder                         little
    package/.data/version                     6, for PyTorch's reader of archives
    package/data/braze/model/manifest.json    format, versions, and the SHA-256 of every other member
    package/data/braze/model/model.json       how the model is called, its weights, its ranges
    package/data/braze/model/graph.braze      the artefact: code for each target, LLVM IR, launch plans
    package/data/braze/model/extern_nodes.json   the operators it calls, in torch.export's schema
    package/data/braze/model/graph-1.braze, extern_nodes-1.json, ...   the same for other sizes, if need be
    package/data/weights/model.safetensors    parameters and persistent buffers, unless they were left out
    package/data/constants/model.safetensors  other tensors
    package/extra/braze-signature-<key>.json  signatures, where there are any

Members are stored as they are (`braze.artifact.archive`). `docs/packages.md` says the same at more length.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import msgspec
import torch
from msgspec import Struct

from braze.artifact.archive import Buffer, Member, read_archive, write_archive
from braze.artifact.compiled_graph import CompiledFxGraph
from braze.artifact.model_info import Model, Weight, decode, encode
from braze.artifact.weights import pack_weights, unpack_weights
from braze.cache.keyring import KeyRing, TrustedKey
from braze.cache.paths import replaced
from braze.cache.signatures import PACKAGE, is_signature, sign_members, signature_name, verify_any
from braze.errors import ArtifactError
from braze.version import __version__

__all__ = ["Manifest", "Package", "is_package", "open_package", "sign_package", "write_package"]

VERSION: Final = 1
ROOT: Final = "package/"
_OURS: Final = f"{ROOT}data/braze/model/"
MANIFEST: Final = f"{_OURS}manifest.json"
MODEL: Final = f"{_OURS}model.json"
GRAPH: Final = f"{_OURS}graph.braze"
EXTERNS: Final = f"{_OURS}extern_nodes.json"
WEIGHTS: Final = f"{ROOT}data/weights/model.safetensors"
CONSTANTS: Final = f"{ROOT}data/constants/model.safetensors"
_FIXED: Final[Mapping[str, bytes]] = {
    f"{ROOT}archive_format": b"pt2",
    f"{ROOT}archive_version": b"0",
    f"{ROOT}byteorder": b"little",
    f"{ROOT}.data/version": b"6\n",
}
_LATER: Final = frozenset({MODEL, GRAPH, WEIGHTS, CONSTANTS})
"""Members that are checked when they are read."""
MAX_TEXT: Final = 1 << 28
"""Bytes that the manifest or the description may have."""


class Manifest(Struct, frozen=True, forbid_unknown_fields=True):
    """``members``: the SHA-256, in hexadecimal, of every member but this and signatures."""

    format: Literal["braze-package"]
    version: int
    braze: str
    torch: str
    members: dict[str, str]


# -- writing ----------------------------------------------------------------------------------------------
def write_package(
    path: str | os.PathLike[str],
    model: Model,
    graph: bytes,
    extern_nodes: str,
    tensors: Mapping[str, torch.Tensor],
    *,
    weights: bool = True,
    others: Sequence[tuple[bytes, str]] = (),
) -> None:
    """Write a package. ``others``: graphs for sizes that ``graph`` does not take, each with its calls of
    operators. ``tensors`` are those of the model's weights, by name; without ``weights`` those that are in a
    state dict are left out.

    The file appears when it is whole. Raises `UnserializableError` for a tensor that cannot be stored, and
    `OSError`.
    """
    members: dict[str, Sequence[Buffer]] = {name: [data] for name, data in _FIXED.items()}
    members[MODEL] = [encode(model)]
    for number, (data, calls) in enumerate([(graph, extern_nodes), *others]):
        members[_numbered(GRAPH, number)] = [data]
        members[_numbered(EXTERNS, number)] = [calls.encode()]
    of_state = {w.name: tensors[w.name] for w in model.weights if _of_state(w) and weights}
    constants = {w.name: tensors[w.name] for w in model.weights if not _of_state(w)}
    if of_state:
        members[WEIGHTS] = pack_weights(of_state)
    if constants:
        members[CONSTANTS] = pack_weights(constants)
    sums = {name: _sha256(parts) for name, parts in members.items()}
    manifest = Manifest("braze-package", VERSION, __version__, str(torch.__version__), sums)
    # after what tells a zip file from others, first of all: what the rest is checked against
    head = {name: members.pop(name) for name in _FIXED}
    text = msgspec.json.format(msgspec.json.encode(manifest), indent=1)
    _write(path, {**head, MANIFEST: [text], **members})


def sign_package(path: str | os.PathLike[str], keyring: KeyRing, key: str | None = None) -> TrustedKey:
    """Add this user's signature to a package: of all its members, with the ring's own key of that name or id
    (None: its default). Signatures of others stay.

    Raises `ArtifactError` if this is no intact package, `KeyringError` if there is no key to sign with, and
    `OSError`.
    """
    signer = keyring.signer(key)
    package = open_package(path)
    document = sign_members(PACKAGE, package.digests(), keyring, signer.id)
    members: dict[str, Sequence[Buffer]] = {name: [package.view(name)] for name in package.members}
    members[signature_name(ROOT, signer.id)] = [document]
    _write(path, members)
    return signer


def _write(path: str | os.PathLike[str], members: Mapping[str, Sequence[Buffer]]) -> None:
    with replaced(Path(path)) as partial, partial.open("wb") as file:
        write_archive(file, members)


def _numbered(name: str, number: int) -> str:
    """The name of a member of which there may be several."""
    stem, dot, kind = name.rpartition(".")
    return f"{stem}-{number}{dot}{kind}" if number else name


def _of_state(weight: Weight) -> bool:
    return weight.kind != "constant" and weight.persistent


def _sha256(parts: Sequence[Buffer]) -> str:
    summed = hashlib.sha256()
    for part in parts:
        summed.update(part)
    return summed.hexdigest()


# -- reading ----------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Package:
    """An open package, mapped into memory. Its manifest fits its members; that those have the contents which
    the manifest says is checked where they are read."""

    path: str
    data: memoryview
    members: Mapping[str, Member]
    manifest: Manifest

    def view(self, name: str) -> memoryview:
        """The bytes of a member, as they are in the file now."""
        member = self.members[name]
        return self.data[member.offset : member.offset + member.size]

    def read(self, name: str) -> bytes:
        """A copy of a member's bytes, which are those of the manifest. Raises `ArtifactError`."""
        if name not in self.members:
            raise _damaged(f"{name} is not there")
        content = bytes(self.view(name))
        self._check(name, hashlib.sha256(content).hexdigest())
        return content

    def verify(self, name: str) -> None:
        """Check a member that is used where it lies. Raises `ArtifactError`."""
        self._check(name, hashlib.sha256(self.view(name)).hexdigest())

    def _check(self, name: str, digest: str) -> None:
        if self.manifest.members.get(name) != digest:
            raise _damaged(f"{name} is not what the manifest says")

    def digests(self) -> dict[str, bytes]:
        """The SHA-256 of every member that is no signature, computed now. Raises `ArtifactError` for one that
        is not what the manifest says."""
        found = {}
        for name in self.members:
            if not is_signature(name):
                found[name] = hashlib.sha256(self.view(name)).digest()
                if name != MANIFEST:
                    self._check(name, found[name].hex())
        return found

    @property
    def signers(self) -> tuple[str, ...]:
        """The ids of the keys that the package claims to be signed with."""
        names = [name for name in self.members if is_signature(name)]
        return tuple(n.rpartition("-")[2].removesuffix(".json") for n in names)

    def verify_signature(self, keyring: KeyRing) -> TrustedKey:
        """A trusted key that signed the package as it is. Raises `SignatureError` if there is none, and
        `ArtifactError`."""
        documents = [bytes(self.view(name)) for name in self.members if is_signature(name)]
        return verify_any(self.digests(), documents, keyring)

    def model(self) -> Model:
        """How the model is called, and its weights. Raises `ArtifactError`."""
        return decode(self.read(MODEL))

    def graph(self, *, trusted: bool) -> CompiledFxGraph:
        """The compiled graph, or the first of them; ``trusted``: whether its code may be run. Raises
        `ArtifactError`."""
        return CompiledFxGraph.after_deserialization(self.read(GRAPH), trusted=trusted)

    def graphs(self, *, trusted: bool) -> list[CompiledFxGraph]:
        """All of the compiled graphs, of which a call takes the first that fits its sizes, as `graph` gives
        them."""
        found = [self.graph(trusted=trusted)]
        while (name := _numbered(GRAPH, len(found))) in self.members:
            found.append(CompiledFxGraph.after_deserialization(self.read(name), trusted=trusted))
        return found

    def tensors(self, model: Model, *, verify: bool) -> dict[str, torch.Tensor]:
        """The weights that are in the package, by name, mapped: contiguous, private to this object (what is
        written to them does not reach the file). ``verify``: read and check those of the state dict now, as
        the others are. Raises `ArtifactError`."""
        found: dict[str, torch.Tensor] = {}
        for member, of_state in ((WEIGHTS, True), (CONSTANTS, False)):
            wanted = {w.name: w for w in model.weights if _of_state(w) is of_state}
            if member not in self.members:
                if wanted and not of_state:
                    raise _damaged(f"{member} is not there")
                continue
            if verify or not of_state:
                self.verify(member)
            read = unpack_weights(self.view(member), {name: w.dtype for name, w in wanted.items()})
            for name, tensor in read.items():
                if tuple(tensor.shape) != wanted[name].sizes:
                    raise _damaged(f"the weight {name} has the sizes {tuple(tensor.shape)}")
            found.update(read)
        return found


def open_package(path: str | os.PathLike[str]) -> Package:
    """Map a package, read its manifest, and check what is neither model, graph nor weights. Raises
    `ArtifactError` if it is none, and `OSError`.

    The file has to stay as it is while the package, or a tensor out of it, is in use; replacing it by another
    (`os.replace`) is fine."""
    path = os.fspath(path)
    with open(path, "rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            raise _damaged("the file is empty")
        data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))
    members = read_archive(data)
    member = members.get(MANIFEST)
    if member is None:
        raise ArtifactError(f"{path} is an archive, and not a package of Braze's")
    if member.size > MAX_TEXT:
        raise _damaged(f"{member.size} bytes are not a manifest")
    text = bytes(data[member.offset : member.offset + member.size])
    if zlib.crc32(text) != member.crc:
        raise _damaged("the manifest's checksum is another")
    try:
        manifest = msgspec.json.decode(text, type=Manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _damaged(f"its manifest cannot be read: {error}") from error
    if manifest.version != VERSION:
        raise ArtifactError(
            f"the package has format {manifest.version}, and this Braze reads format {VERSION}",
            hint="compile it again, or use the Braze that made it",
        )
    there = {name for name in members if name != MANIFEST and not is_signature(name)}
    if there != manifest.members.keys():
        odd = sorted(there ^ manifest.members.keys())[0]
        raise _damaged(f"{odd} is in the archive or in its manifest, and not in both")
    package = Package(path, data, members, manifest)
    for name in there - _LATER:
        package.verify(name)
    for name, content in _FIXED.items():
        if name not in members or package.view(name) != content:
            raise _damaged(f"{name} is another than it should be")
    return package


def is_package(path: str | os.PathLike[str]) -> bool:
    """Whether a file is laid out as a package is. Says nothing of its contents. Raises `OSError`."""
    with open(path, "rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            return False
        data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    try:
        return MANIFEST in read_archive(data)
    except ArtifactError:
        return False


def _damaged(what: str) -> ArtifactError:
    return ArtifactError(
        f"the package is damaged: {what}", hint="make it anew, or copy it anew from where it was made"
    )
