"""Loading a package."""

from __future__ import annotations

import errno
import os
import zipfile
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from braze.artifact.compiled_graph import CompiledFxGraph, Module, Variant
from braze.artifact.loaded import Loaded
from braze.artifact.model_info import Model
from braze.artifact.package import open_package
from braze.artifact.schema import GraphInfo, TensorInput
from braze.cache.keyring import KeyRing
from braze.errors import ArtifactError, BrazeError, PackageError, SignatureError
from braze.runtime.engines import engine

__all__ = ["aot_load"]

_AGAIN: Final = "make the package anew with braze.aot_compile, or copy it anew from where it was made"
_EXPORT: Final = (
    "this is a torch.export archive: a program that is not compiled yet",
    "pass it to Braze first: braze.aot_compile(torch.export.load(path), 'model.pt2')",
)


def aot_load(
    path: str | os.PathLike[str],
    *,
    require_signature: bool = False,
    keyring: KeyRing | None = None,
    verify_weights: bool = True,
) -> Loaded:
    """Load a package that `braze.aot_compile` made. **Loading a package runs its native code**: load what you
    would run as a program.

    Args:
        path: the ``.pt2`` file. It has to stay as it is while the model is in use; replacing it is fine.
        require_signature: refuse a package that is not signed with a key that this user trusts.
        keyring: the keys that count; None takes the user's key ring.
        verify_weights: read all weights now and check them against their checksum. Without, they are mapped
            and read as they are used. (Everything else is always checked, before any code is linked.)

    Returns the model: a function with the signature of the exported program.

    Raises:
        ArtifactError: the file is no package, is damaged, or was made by another version.
        SignatureError: a signature is required, and there is none by a trusted key.
        WorkerError: no code in it runs on this machine, and none could be made of its LLVM IR.
        LinkError: it calls an operator that this PyTorch does not have.
        PackageError: anything else went wrong.
        TypeError: an argument is of a wrong type.
        OSError: the file cannot be read.
    """
    path = _checked(path, keyring, require_signature=require_signature, verify_weights=verify_weights)
    try:
        package = open_package(path)
    except ArtifactError as error:
        known = _what_it_is(path)
        if known is None:
            raise
        raise ArtifactError(f"{path}: {known[0]}", hint=known[1]) from error
    if require_signature:
        package.verify_signature(keyring if keyring is not None else KeyRing())
    try:
        model = package.model()
        graphs = [for_this_machine(graph) for graph in package.graphs(trusted=True)]
        tensors = package.tensors(model, verify=verify_weights and not require_signature)
        for graph in graphs:
            _check_fit(model, graph.info)
        return Loaded(path, model, graphs, tensors)
    except (BrazeError, OSError):
        raise
    except Exception as error:
        raise PackageError(f"the package cannot be loaded: {type(error).__name__}: {error}") from error


def _checked(path: Any, keyring: Any, **flags: Any) -> str:
    if not isinstance(path, (str, os.PathLike)) or isinstance(os.fspath(path), bytes):
        raise TypeError(
            f"path has to be the name of a file, as a str or a Path, but is of type {type(path).__name__}:"
            " write a package that is in memory to a file first"
        )
    if keyring is not None and not isinstance(keyring, KeyRing):
        raise TypeError(f"keyring has to be a KeyRing or None, but is of type {type(keyring).__name__}")
    for name, value in flags.items():
        if not isinstance(value, bool):
            raise TypeError(f"{name} has to be True or False, but is {value!r}")
    if "\0" in os.fspath(path):
        raise ValueError("path holds a zero byte: is it a package's contents, and not its name?")
    if os.path.isdir(path):
        raise IsADirectoryError(errno.EISDIR, "this is a directory, and a package is a file", os.fspath(path))
    return os.fspath(path)


def _check_fit(model: Model, info: GraphInfo) -> None:
    """That the description is one of this graph."""
    if len(model.slots) != len(info.inputs):
        raise ArtifactError(f"the model has {len(model.slots)} inputs, and its graph {len(info.inputs)}")
    results = model.parameters.results.leaves
    if results != len(info.outputs):
        raise ArtifactError(f"the model has {results} results, and its graph {len(info.outputs)}")
    kinds = {weight.name: weight for weight in model.weights}
    for slot, item in zip(model.slots, info.inputs, strict=True):
        if slot.weight is not None and isinstance(item, TensorInput):
            weight, spec = kinds[slot.weight], item.spec
            if weight.dtype is not spec.dtype or weight.sizes != spec.sizes:
                raise ArtifactError(f"the weight {slot.weight!r} is not what the graph takes")
            if item.mutated and not weight.mutated:
                raise ArtifactError(f"the graph writes to {slot.weight!r}, and the model does not say so")


def for_this_machine(graph: CompiledFxGraph) -> CompiledFxGraph:
    """``graph`` itself if this machine can run one of its variants; otherwise with one variant, `recompiled`
    for it. Raises as that does."""
    try:
        graph.variant()
    except ArtifactError:
        return recompiled(graph)
    return graph


def recompiled(graph: CompiledFxGraph) -> CompiledFxGraph:
    """``graph`` with code for this machine alone, made of the sources of the variant that asks for least.

    Raises `SignatureError` where the graph is not trusted: a source is a program as well; `WorkerError` where
    no code can be made of it.
    """
    if not graph.trusted:
        raise SignatureError(f"the code of {graph.name} was not made here and is not signed")
    old = min(graph.variants, key=lambda variant: variant.demands)
    parts, modules = [], []
    for part, own in old.parts:
        made_for, objects = engine(part.kind).adapted(
            part.made_for, [(bytes(m.ir), m.opt_level) for m in own]
        )
        parts.append(msgspec.structs.replace(part, target=made_for.name, traits=dict(made_for.traits)))
        modules += [Module(code, m.ir, m.opt_level) for code, m in zip(objects, own, strict=True)]
    info = msgspec.structs.replace(old.info, parts=tuple(parts))
    calls = {key: call.of([recompiled(g) for g in call.graphs]) for key, call in graph.calls.items()}
    return CompiledFxGraph(
        msgspec.structs.replace(graph.info, variants=(info,)),
        (Variant(info, tuple(modules)),),
        graph.constants,
        {**graph.externs, **calls},
        trusted=True,
    )


# -- what a file is that is no package -----------------------------------------------------------------------
def _what_it_is(path: str | os.PathLike[str]) -> tuple[str, str] | None:
    """What a file is, as far as its outside tells, and what to do about it; None where it does not look like
    anything that people take for a package. Reads names, and no contents. Raises `OSError`."""
    with open(path, "rb") as file:
        head = file.read(8)
        if not head:
            return "the file is empty", _AGAIN
        if head.startswith(b"\x7fELF"):
            return "this is a program or a shared library, and not a package", _AGAIN
        if head.startswith(b"\x80") and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
            return "this is a pickle, as torch.save writes, and not a package", _bind_hint("torch.load(path)")
        if not head.startswith(b"PK\x03\x04"):
            return "this is not a zip archive, and so not a package", _AGAIN
        try:
            names = zipfile.ZipFile(file).namelist()
        except (zipfile.BadZipFile, ValueError, OverflowError, NotImplementedError):
            return "the end of the file is missing, or was changed", _AGAIN
    return _what_archive([name.replace("\\", "/") for name in names])


def _what_archive(names: Sequence[str]) -> tuple[str, str] | None:
    inner = [name.partition("/")[2] for name in names]
    if any(name.startswith("data/braze/") for name in inner):
        return None  # a package, and what is wrong with it is another matter
    if any(name.startswith("data/aotinductor/") for name in inner):
        return (
            "this is a package of TorchInductor's",
            "export the model again, and compile that with braze.aot_compile",
        )
    if any(name.startswith("models/") for name in inner) or "serialized_exported_program.json" in names:
        return _EXPORT
    if "constants.pkl" in inner:
        return "this is a TorchScript archive, and not a package", "load it by torch.jit.load"
    if "data.pkl" in inner:
        return "this is a file of torch.save's, and not a package", _bind_hint("torch.load(path)")
    return "this is a zip archive, and not a package of Braze's", _AGAIN


def _bind_hint(loaded: str) -> str:
    return f"if it holds weights: model = braze.aot_load('model.pt2'); model.bind({loaded})"
