"""The launch plan: what a call of a compiled graph does, as data of a closed instruction set.

A plan is straight-line. Its names stand for tensors and for numbers; sizes, strides and offsets are
expressions over the names of numbers. `braze.runtime.verify` checks a plan, `braze.runtime.callgen` turns it
into one Python function, and it prints as a program that one can read::

    plan graph0(arg0):
      s0 = arg0.shape[0]
      check arg0: float32[s0, 16] stride (16, 1) on cpu
      buf0 = allocate float32[s0, 16] stride (16, 1) on cpu
      run seg0(arg0, buf0; s0) work s0*16 kernels fused_add_relu
      return buf0
"""

from __future__ import annotations

from abc import ABC
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import torch

from braze._torch.integers import LEAST
from braze.dtypes import torch_name
from braze.runtime.checks import Check
from braze.runtime.expr import ZERO, Expr, Symbol
from braze.runtime.guard import BoolExpr
from braze.runtime.launches import (
    SEGMENTS,
    BindStream,
    BufferArg,
    KernelEntry,
    Launch,
    RunSegment,
    signature,
)
from braze.runtime.spec import Node, TensorSpec, listed

__all__ = [
    "ARG_LEAVES",
    "SEGMENTS",
    "Allocate",
    "Arg",
    "Assert",
    "BindItem",
    "BindSize",
    "BindStream",
    "BindThreads",
    "BufferArg",
    "CallExtern",
    "CheckRange",
    "CheckSizes",
    "CheckTensor",
    "Compute",
    "ErrorEntry",
    "Event",
    "Free",
    "Hold",
    "Instruction",
    "KernelEntry",
    "Launch",
    "LoadConstant",
    "Pattern",
    "Plan",
    "Ref",
    "Restride",
    "Return",
    "RunSegment",
    "Slice",
    "SymbolRange",
    "TensorProperty",
    "View",
    "Workspace",
    "range_check",
    "signature",
]


_MOST: Final = 1 << 62
"""No size is as large as this."""


class Ref:
    """A tensor or number by its name, as an argument."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ref) and self.name == other.name

    def __hash__(self) -> int:
        return hash((Ref, self.name))

    def __str__(self) -> str:
        return self.name

    __repr__ = __str__


TensorProperty: TypeAlias = Literal["size", "stride", "storage_offset"]

ARG_LEAVES: Final = (
    Ref,
    Expr,
    int,
    float,
    complex,
    bool,
    str,
    torch.dtype,
    torch.device,
    torch.layout,
    torch.memory_format,
    type(None),
)
"""What an extern's argument is made of."""

if TYPE_CHECKING:
    Arg: TypeAlias = (
        Ref
        | Expr
        | int
        | float
        | complex
        | bool
        | str
        | torch.dtype
        | torch.device
        | torch.layout
        | torch.memory_format
        | "tuple[Arg, ...]"
        | None
    )
    Pattern: TypeAlias = str | "tuple[Pattern, ...]" | None
else:
    # Stored plans are checked against the fields' types, which know no recursive unions: these two are
    # checked by `braze.artifact.codec`.
    class Arg(ABC):  # noqa: B024  a name for a union
        """What an extern's argument may be; a tuple stands for a list."""

    class Pattern(ABC):  # noqa: B024  a name for a union
        """How a result is taken apart: a name for it, None for what nobody needs, a tuple for a list or
        tuple."""

    for _kind in (*ARG_LEAVES, tuple):
        Arg.register(_kind)
    for _kind in (str, tuple, type(None)):
        Pattern.register(_kind)


def _arg(value: Arg) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_arg, value))}]"
    return repr(value) if isinstance(value, str) else torch_name(value)


def _pattern(value: Pattern) -> str:
    if isinstance(value, tuple):
        return f"({', '.join(map(_pattern, value))})"
    return "_" if value is None else value


class BindSize(Node, frozen=True, tag="bind_size"):
    """``out`` becomes a property of a tensor: its ``size``, ``stride`` (elements) or ``storage_offset``
    (``dim`` unused). Where the property is ``factor*out + rest``, ``out`` is what follows from it; that it is
    no fraction is for the tensor's own check to see."""

    out: str
    tensor: str
    dim: int = 0
    kind: TensorProperty = "size"
    factor: int = 1
    rest: Expr = ZERO

    def __str__(self) -> str:
        return f"{self.out} = {self.expression}"

    @property
    def expression(self) -> str:
        """What to read, as Python."""
        if self.kind == "size":
            read = f"{self.tensor}.shape[{self.dim}]"
        else:
            read = f"{self.tensor}.{self.kind}({self.dim if self.kind == 'stride' else ''})"
        if self.rest != 0:
            read = f"({read} - ({self.rest}))"
        return read if self.factor == 1 else f"{read}//{self.factor}"


class BindItem(Node, frozen=True, tag="bind_item"):
    """``out`` becomes the Python number of a one-element tensor or of a number; ``as_int`` makes it an
    integer (``True`` is 1), which expressions may then use."""

    out: str
    source: str
    as_int: bool = True

    def __str__(self) -> str:
        return f"{self.out} = {'int' if self.as_int else 'item'}({self.source})"


class Compute(Node, frozen=True, tag="compute"):
    """``out`` becomes what a function on numbers (`NUMBER_FUNCTIONS`) gives, as Python computes it. It is no
    integer that expressions may use, until `BindItem` says so."""

    out: str
    function: str
    args: tuple[Arg, ...]

    def __str__(self) -> str:
        return f"{self.out} = {self.function}({', '.join(map(_arg, self.args))})"


class Hold(Node, frozen=True, tag="hold"):
    """``out`` becomes a new tensor without dimensions that holds a number."""

    out: str
    number: str
    dtype: torch.dtype

    def __str__(self) -> str:
        return f"{self.out} = hold {self.number} as {torch_name(self.dtype)}"


class BindThreads(Node, frozen=True, tag="bind_threads"):
    """``out`` becomes the number of threads that segments of enough work get in this call. Segments that name
    it use this number; scratch memory can be sized by it."""

    out: str

    def __str__(self) -> str:
        return f"{self.out} = number of threads"


class CheckTensor(Node, frozen=True, tag="check_tensor"):
    """Check a tensor against what the code was made for. None stands for a size or stride that it does not
    rely on. ``origin`` is ``input``, or the operator that was expected to return it like this."""

    tensor: str
    spec: TensorSpec[Expr | None]
    origin: str = "input"

    def __str__(self) -> str:
        of = "" if self.origin == "input" else f" from {self.origin}"
        return f"check {self.tensor}: {self.spec} on {self.spec.device}{of}"


class SymbolRange(Node, frozen=True):
    """The least and the greatest value of an integer, inclusive; `LEAST` and None where there is none."""

    symbol: str
    lower: int = LEAST
    upper: int | None = None

    def __str__(self) -> str:
        return self.condition

    @property
    def condition(self) -> str:
        """What has to hold, as Python."""
        below = "" if self.lower == LEAST else f"{self.lower} <= "
        return f"{below}{self.symbol}" + ("" if self.upper is None else f" <= {self.upper}")

    def admits(self, value: int) -> bool:
        """Whether a value lies within the bounds."""
        return self.lower <= value and (self.upper is None or value <= self.upper)


class CheckRange(SymbolRange, frozen=True, tag="check_range"):
    """Check an integer that follows from the inputs: whatever simplified an expression by the bounds of its
    symbol relied on these."""

    def __str__(self) -> str:
        return f"check {self.condition}"


def range_check(symbol: Symbol) -> CheckRange | None:
    """The check of what a symbol's bounds say beyond what holds of every size and integer."""
    upper = None if symbol.upper is None else symbol.upper.constant
    lower = symbol.lower if symbol.lower > -_MOST else LEAST
    if upper is not None and upper >= _MOST:
        upper = None
    return None if lower == LEAST and upper is None else CheckRange(symbol.name, lower, upper)


class CheckSizes(Node, frozen=True, tag="check_sizes"):
    """Check a relation between integers that follow from the inputs, which the trace took for granted."""

    condition: BoolExpr

    def __str__(self) -> str:
        return f"check {self.condition}"


class Restride(Node, frozen=True, tag="restride"):
    """Make sure that a tensor that an operator returned lies in memory as the code after it expects: where
    its strides are others (in elements; those of dimensions of size 1 do not count), it becomes a copy.
    Other sizes are an error. ``origin`` is the operator."""

    tensor: str
    spec: TensorSpec[Expr]
    origin: str

    def __str__(self) -> str:
        return f"expect {self.tensor}: {self.spec.geometry} from {self.origin}"


class LoadConstant(Node, frozen=True, tag="load_constant"):
    """``out`` becomes the constant tensor of that key."""

    out: str
    key: str

    def __str__(self) -> str:
        return f"{self.out} = constant {self.key!r}"


class Allocate(Node, frozen=True, tag="allocate"):
    """``out`` becomes a new, uninitialised tensor."""

    out: str
    spec: TensorSpec[Expr]

    def __str__(self) -> str:
        return f"{self.out} = allocate {self.spec} on {self.spec.device}"


class Workspace(Node, frozen=True, tag="workspace"):
    """``out`` becomes a block of at least ``nbytes`` bytes, aligned to 64, which holds anything at first. It
    goes back when it is freed, or else when the call returns; nothing in it may outlive that."""

    out: str
    nbytes: Expr
    device: str = "cpu"

    def __str__(self) -> str:
        on = "" if self.device == "cpu" else f" on {self.device}"
        return f"{self.out} = workspace {self.nbytes} bytes{on}"


class Slice(Node, frozen=True, tag="slice"):
    """``out`` becomes a tensor at ``offset`` bytes in a workspace."""

    out: str
    workspace: str
    offset: Expr
    spec: TensorSpec[Expr]

    def __str__(self) -> str:
        return f"{self.out} = {self.workspace}[{self.offset}] as {self.spec}"


class View(Node, frozen=True, tag="view"):
    """``out`` becomes a view of a tensor's storage; the offset counts from the tensor's own beginning.
    ``reinterprets``: the bytes are taken for elements of another type, of whose size that beginning must be
    a multiple."""

    out: str
    base: str
    spec: TensorSpec[Expr]
    reinterprets: bool = False

    def __str__(self) -> str:
        shape = str(self.spec) if self.reinterprets else self.spec.geometry
        return f"{self.out} = view {self.base} + {self.spec.offset} as {shape}"


class CallExtern(Node, frozen=True, tag="call_extern"):
    """Call an operator by its qualified name (``aten::mm.out``, ``higher_order::cond``), or a Python callable
    that is bound when the plan is loaded (``python::<key>``). ``where`` is the user's line."""

    target: str
    args: tuple[Arg, ...]
    kwargs: tuple[tuple[str, Arg], ...] = ()
    outs: Pattern = None
    where: str | None = None

    def __str__(self) -> str:
        args = [_arg(a) for a in self.args] + [f"{k}={_arg(a)}" for k, a in self.kwargs]
        out = "" if self.outs is None else f"{_pattern(self.outs)} = "
        return f"{out}call {self.target}({', '.join(args)})"


class Assert(Node, frozen=True, tag="assert"):
    """Raise an exception (a key of `braze.runtime.checks.EXCEPTIONS`) unless the condition holds."""

    condition: BoolExpr
    message: str
    exception: str = "RuntimeError"

    def __str__(self) -> str:
        return f"assert {self.condition}, {self.message!r}"


class Free(Node, frozen=True, tag="free"):
    """These names end here: tensors are let go, a workspace is given back."""

    names: tuple[str, ...]

    def __str__(self) -> str:
        return f"free {listed(self.names)}"


class Return(Node, frozen=True, tag="return"):
    """The end of the call, with its results."""

    values: tuple[Arg, ...]

    def __str__(self) -> str:
        return f"return {', '.join(map(_arg, self.values))}".rstrip()


Instruction: TypeAlias = (
    BindSize
    | BindItem
    | BindThreads
    | CheckRange
    | CheckSizes
    | CheckTensor
    | Compute
    | Restride
    | LoadConstant
    | Allocate
    | Workspace
    | Slice
    | View
    | RunSegment
    | BindStream
    | Launch
    | CallExtern
    | Assert
    | Free
    | Hold
    | Return
)


class Event(Node, frozen=True):
    """What an instrumented call runs at one moment: a ``kernel``, a whole ``segment`` or an ``extern``, by
    its name, the position of its instruction, and which kernel of a segment it is."""

    kind: str
    name: str
    instruction: int
    index: int


class ErrorEntry(Node, frozen=True):
    """The check that machine code means by a positive ``id`` in its error words."""

    id: int
    check: Check

    def __str__(self) -> str:
        return f"error {self.id}: {self.check.encode()}"


class Plan(Node, frozen=True):
    """A whole call: the names of its inputs (tensors, numbers, or what an extern takes), the instructions, of
    which the last and no other is a `Return`, and the errors that its segments may report. ``numbers`` are
    those of the inputs that are integers, which expressions may use. ``layouts`` describes, for whoever reads
    the plan, the tensors of which no instruction says it: constants, and results of externs as traced; their
    sizes may use numbers that are known only after they were made."""

    name: str
    inputs: tuple[str, ...]
    instructions: tuple[Instruction, ...]
    errors: tuple[ErrorEntry, ...] = ()
    numbers: tuple[str, ...] = ()
    layouts: tuple[tuple[str, TensorSpec[Expr]], ...] = ()

    def __str__(self) -> str:
        inputs = [f"{name}: int" if name in self.numbers else name for name in self.inputs]
        lines = [f"plan {self.name}({', '.join(inputs)}):"]
        lines += [f"  {instruction}" for instruction in self.instructions]
        lines += [f"  {error}" for error in self.errors]
        return "\n".join(lines)

    @property
    def launches(self) -> tuple[RunSegment | Launch, ...]:
        """The instructions that run kernels, in order."""
        return tuple([i for i in self.instructions if isinstance(i, (RunSegment, Launch))])

    @property
    def kinds(self) -> frozenset[str]:
        """The backends whose code it runs."""
        return frozenset(SEGMENTS if isinstance(i, RunSegment) else i.kind for i in self.launches)

    def launched(self, kind: str) -> tuple[str, ...]:
        """The entries of a backend that `Launch` runs."""
        found = [i.entry for i in self.launches if isinstance(i, Launch) and i.kind == kind]
        return tuple(dict.fromkeys(found))

    @property
    def entries(self) -> tuple[str, ...]:
        """The symbols that the linked code must export: segments, and kernels on their own."""
        names: dict[str, None] = {}
        for instruction in self.instructions:
            if isinstance(instruction, RunSegment):
                names[instruction.entry] = None
                names.update({kernel.entry: None for kernel in instruction.kernels})
        return tuple(names)

    @property
    def signatures(self) -> tuple[str, ...]:
        """The `signature` of each segment, as the plan calls it."""
        segments = [i for i in self.instructions if isinstance(i, RunSegment)]
        return tuple(dict.fromkeys([signature(i.entry, len(i.buffers), len(i.sizes)) for i in segments]))

    @property
    def constants(self) -> tuple[str, ...]:
        """The keys of the constants that it loads."""
        return tuple([i.key for i in self.instructions if isinstance(i, LoadConstant)])

    @property
    def externs(self) -> tuple[str, ...]:
        """The targets that it calls, in order."""
        return tuple([i.target for i in self.instructions if isinstance(i, CallExtern)])
