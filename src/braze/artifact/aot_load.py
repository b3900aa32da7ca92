"""Loading a package."""

from __future__ import annotations

import os

from braze.artifact.loaded import Loaded
from braze.artifact.model_info import Model
from braze.artifact.package import open_package
from braze.artifact.recompile import for_this_machine
from braze.artifact.schema import GraphInfo, TensorInput
from braze.cache.keyring import KeyRing
from braze.errors import ArtifactError, BrazeError, PackageError

__all__ = ["aot_load"]


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
        OSError: the file cannot be read.
    """
    package = open_package(path)
    if require_signature:
        package.verify_signature(keyring if keyring is not None else KeyRing())
    try:
        model = package.model()
        graph = for_this_machine(package.graph(trusted=True))
        tensors = package.tensors(model, verify=verify_weights and not require_signature)
        _check_fit(model, graph.info)
        return Loaded(os.fspath(path), model, graph, tensors)
    except (BrazeError, OSError):
        raise
    except Exception as error:
        raise PackageError(f"the package cannot be loaded: {type(error).__name__}: {error}") from error


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
            weight = kinds[slot.weight]
            if weight.dtype is not item.dtype or weight.sizes != tuple(e.constant for e in item.sizes):
                raise ArtifactError(f"the weight {slot.weight!r} is not what the graph takes")
            if item.mutated and not weight.mutated:
                raise ArtifactError(f"the graph writes to {slot.weight!r}, and the model does not say so")
