"""What an artefact says of itself, as typed data: the schema that stored metadata are checked against.

Everything is immutable and prints; sizes and strides are in elements.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, TypeAlias

import msgspec
from msgspec import Struct

from braze.runtime.engine import MadeFor
from braze.runtime.expr import Expr
from braze.runtime.guard import BoolExpr
from braze.runtime.plan import Arg, Plan, SymbolRange
from braze.runtime.spec import TensorSpec

__all__ = [
    "SCHEMA_VERSION",
    "CallInfo",
    "ExternCall",
    "Fallback",
    "GraphInfo",
    "GraphKind",
    "Input",
    "KernelInfo",
    "Metadata",
    "Metrics",
    "NumberInput",
    "Output",
    "Part",
    "TensorInput",
    "TensorOutput",
    "UnusedInput",
    "ValueOutput",
    "VariantInfo",
    "Versions",
]

SCHEMA_VERSION: Final = 5
"""Raised with every change of a type in this module or of the launch plan's instructions."""

GraphKind: TypeAlias = Literal["inference", "forward", "backward"]

_Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0, lt=1 << 62)]


class TensorInput(Struct, frozen=True, forbid_unknown_fields=True, tag="tensor", omit_defaults=True):
    """A tensor that is passed in.

    ``alignment``: bytes that its first element's address is taken to be a multiple of; ``static``: a
    parameter or buffer, the same storage at every call; ``mutated``: the graph writes to it; ``expanded``:
    dimensions of stride 0 with more than one element; ``overlaps``: two elements may share a place."""

    name: str
    spec: TensorSpec[Expr]
    alignment: int = 1
    static: bool = False
    mutated: bool = False
    expanded: tuple[int, ...] = ()
    overlaps: bool = False

    def __str__(self) -> str:
        words = [w for w, on in (("static", self.static), ("mutated", self.mutated)) if on]
        words += ["overlapping"] if self.overlaps else []
        return " ".join([f"{self.name}: {self.spec}", *words])


class NumberInput(Struct, frozen=True, forbid_unknown_fields=True, tag="number"):
    """An integer that is passed in: the value of ``expression``, a symbol as a rule."""

    name: str
    expression: Expr

    def __str__(self) -> str:
        return f"{self.name}: int"


class UnusedInput(Struct, frozen=True, forbid_unknown_fields=True, tag="unused"):
    """Something that is passed in and not looked at."""

    name: str

    def __str__(self) -> str:
        return f"{self.name}: unused"


Input: TypeAlias = TensorInput | NumberInput | UnusedInput


class TensorOutput(Struct, frozen=True, forbid_unknown_fields=True, tag="tensor", omit_defaults=True):
    """A tensor that is returned. ``input``: the position of the input that it is or shares memory with."""

    spec: TensorSpec[Expr]
    input: int | None = None

    def __str__(self) -> str:
        alias = "" if self.input is None else f" in the memory of input {self.input}"
        return f"{self.spec}{alias}"


class ValueOutput(Struct, frozen=True, forbid_unknown_fields=True, tag="value"):
    """A number, or None, that is returned; the name of one that only a call knows."""

    value: Arg

    def __str__(self) -> str:
        return str(self.value)


Output: TypeAlias = TensorOutput | ValueOutput


class Fallback(Struct, frozen=True, forbid_unknown_fields=True):
    """An operator, or a whole graph, that eager PyTorch runs, and why; ``source`` is the user's line."""

    op: str
    reason: str
    source: str = ""

    def __str__(self) -> str:
        return f"{self.op}: {self.reason}" + (f" ({self.source})" if self.source else "")


class ExternCall(Struct, frozen=True, forbid_unknown_fields=True):
    """An operator that is called whole by design."""

    op: str
    source: str = ""


class KernelInfo(Struct, frozen=True, forbid_unknown_fields=True):
    """A kernel by the name people see, the symbol of its function, the graph's nodes that it computes, and
    the user's lines that those come from."""

    name: str
    symbol: str
    nodes: tuple[str, ...]
    sources: tuple[str, ...]


class Metrics(Struct, frozen=True, forbid_unknown_fields=True):
    """What compiling came to. ``seconds``: by phase; ``counters``: by how much each of the process's counters
    went up."""

    externs: tuple[ExternCall, ...]
    fallbacks: tuple[Fallback, ...]
    seconds: dict[str, float]
    counters: dict[str, int]


class Versions(Struct, frozen=True, forbid_unknown_fields=True):
    """Who made an artefact. ``tools``: what the backends that there were compile with."""

    braze: str
    torch: str
    tools: dict[str, str]

    def named(self) -> dict[str, str]:
        """Each version by its name."""
        return {"braze": self.braze, "torch": self.torch, **self.tools}


class Part(Struct, frozen=True, forbid_unknown_fields=True):
    """The code of one backend, ``kind``: what it was made for, by name and by what else the backend says of
    that; for each of its modules the level of optimisation."""

    kind: str
    target: str
    traits: dict[str, str]
    opt_levels: tuple[Annotated[int, msgspec.Meta(ge=0, le=3)], ...]

    @property
    def made_for(self) -> MadeFor:
        return MadeFor(self.kind, self.target, self.traits)


class VariantInfo(Struct, frozen=True, forbid_unknown_fields=True):
    """One way to run a graph: the code of each backend that has a part in it, and the launch plan that goes
    with that. The first part is that of the device on which most of the graph runs."""

    parts: tuple[Part, ...]
    plan: Plan
    kernels: tuple[KernelInfo, ...]

    @property
    def target(self) -> str:
        """What it was made for, for people."""
        return ", ".join(part.target for part in self.parts)


class CallInfo(Struct, frozen=True, forbid_unknown_fields=True):
    """A call of an operator that takes graphs: ``key``, by which plans call it (``python::<key>``), the
    operator's qualified name, and for each of its graphs whether that returns a value and no tuple."""

    key: str
    operator: str
    single: tuple[bool, ...]


class GraphInfo(Struct, frozen=True, forbid_unknown_fields=True):
    """A compiled graph, less its code and constants. The guards are those that the compiler added to what the
    graph was traced with: the code is right only for sizes that fulfil them."""

    name: str
    kind: GraphKind
    inputs: tuple[Input, ...]
    outputs: tuple[Output, ...]
    guards: tuple[BoolExpr, ...]
    variants: tuple[VariantInfo, ...]
    metrics: Metrics
    versions: Versions
    calls: tuple[CallInfo, ...] = ()

    def __str__(self) -> str:
        """The specs, for people."""
        lines = [f"{self.kind} graph {self.name}, made by braze {self.versions.braze}"]
        lines += [f"  input   {spec}" for spec in self.inputs]
        lines += [f"  output  {spec}" for spec in self.outputs]
        lines += [f"  guard   {guard}" for guard in self.guards]
        lines += [f"  call    {call.operator} of {len(call.single)} graphs" for call in self.calls]
        lines += [f"  code    {v.target}: {len(v.kernels)} kernels" for v in self.variants]
        lines += [f"  eager   {fallback}" for fallback in self.metrics.fallbacks]
        return "\n".join(lines)


class Metadata(Struct, frozen=True, forbid_unknown_fields=True):
    """The metadata section: the symbols come first, since expressions in the rest are over them."""

    schema: _Count
    symbols: tuple[SymbolRange, ...]
    graph: msgspec.Raw
