"""What a package says of its model, as typed data: how it is called, and what it is made of."""

from __future__ import annotations

import math
from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import Struct

from braze._torch.devices import HOST
from braze.artifact.trees import TreeNode
from braze.dtypes import name_dtype, read_dtype
from braze.errors import ArtifactError
from braze.runtime.plan import SymbolRange
from braze.runtime.spec import TensorSpec

__all__ = [
    "ArgumentLeaf",
    "CallingConvention",
    "GivenKind",
    "Model",
    "Slot",
    "Weight",
    "WeightKind",
    "decode",
    "encode",
]

WeightKind: TypeAlias = Literal["parameter", "buffer", "constant"]
GivenKind: TypeAlias = Literal["tensor", "number", "constant"]
_Natural: TypeAlias = Annotated[int, msgspec.Meta(ge=0, lt=1 << 62)]


class CallingConvention(Struct, frozen=True, forbid_unknown_fields=True):
    """How the model is called: the positional arguments (a tuple) and their names where they have one, the
    keyword arguments (a dict), and what it returns."""

    arguments: TreeNode
    keywords: TreeNode
    names: tuple[str, ...]
    results: TreeNode


class ArgumentLeaf(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One leaf of the arguments, by the name it had in the export. A ``constant`` is part of the program: the
    call has to pass that value."""

    name: str
    kind: GivenKind
    value: bool | int | float | str | None = None


class Weight(TensorSpec[_Natural], frozen=True, kw_only=True):
    """A tensor that belongs to the model. ``mutated``: a call may write to it; ``persistent``: it is in the
    state dict."""

    name: str
    kind: WeightKind
    mutated: bool = False
    persistent: bool = True

    @property
    def nbytes(self) -> int:
        """Bytes of its elements."""
        return math.prod(self.sizes) * self.dtype.itemsize


class Slot(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Where an input of the graph comes from: a leaf of the arguments, or a weight."""

    given: _Natural | None = None
    weight: str | None = None


class Model(Struct, frozen=True, forbid_unknown_fields=True):
    """Everything. ``slots``: one for each input of the graph; ``aliases``: other names of weights, of tensors
    that share memory; ``ranges``: those that the export gave the sizes
    that may differ from call to call."""

    parameters: CallingConvention
    given: tuple[ArgumentLeaf, ...]
    weights: tuple[Weight, ...]
    slots: tuple[Slot, ...]
    aliases: dict[str, str]
    ranges: tuple[SymbolRange, ...]

    def check(self) -> None:
        """That the parts fit each other. Raises `ArtifactError`."""
        leaves = self.parameters.arguments.leaves + self.parameters.keywords.leaves
        names = {weight.name for weight in self.weights}
        keys = self.parameters.keywords.keys
        if self.parameters.arguments.kind != "tuple" or self.parameters.keywords.kind != "dict":
            raise ArtifactError("arguments are not a tuple, or keyword arguments not a dict")
        if not all(isinstance(key, str) for key in keys):
            raise ArtifactError(f"the keyword arguments {list(keys)} have no names")
        if len(self.parameters.names) > len(self.parameters.arguments.children):
            raise ArtifactError("there are more names than arguments")
        if leaves != len(self.given):
            raise ArtifactError(
                f"{len(self.given)} inputs are described for {leaves} leaves of the arguments"
            )
        if len(names) != len(self.weights) or not names.issuperset(self.aliases.values()):
            raise ArtifactError("two weights have one name, or an alias has no weight")
        if names & self.aliases.keys():
            raise ArtifactError("a weight's name is an alias as well")
        for weight in self.weights:
            if weight.device != HOST:
                raise ArtifactError(f"the weight {weight.name!r} is on {weight.device}")
            if len(weight.sizes) != len(weight.strides) or len(weight.sizes) > 64:
                raise ArtifactError(f"the weight {weight.name!r} has {len(weight.sizes)} sizes")
        for slot in self.slots:
            if (slot.given is None) == (slot.weight is None):
                raise ArtifactError("an input of the graph comes from nowhere, or from two places")
            if slot.given is not None and slot.given >= len(self.given):
                raise ArtifactError(f"an input of the graph is argument {slot.given} of {len(self.given)}")
            if slot.weight is not None and slot.weight not in names:
                raise ArtifactError(
                    f"an input of the graph is the weight {slot.weight!r}, which is not there"
                )


def encode(model: Model) -> bytes:
    """As JSON, for people too."""
    return msgspec.json.format(msgspec.json.encode(model, enc_hook=name_dtype), indent=1)


def decode(data: bytes | memoryview) -> Model:
    """What `encode` wrote, checked. Raises `ArtifactError`."""
    try:
        model = msgspec.json.decode(data, type=Model, dec_hook=read_dtype)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise ArtifactError(f"the description of the package's model is damaged: {error}") from error
    model.check()
    return model
