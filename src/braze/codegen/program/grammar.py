"""The grammar of programs: what a kernel does, loop by loop and vector by vector, as data.

::

    program    = name(buffers; sizes) scratch* statement*

    statement  = var = op(var, ...)                     Let      an operation of the vocabulary, or splat
               | var = shuffle(var, var)[number, ...]   Shuffle  lanes chosen by number
               | var = index                            Index    an integer expression as a value
               | var = lane < count                     Tail     the lanes that exist
               | symbol = index                         Bind     a name for an integer
               | var = buffer[index] where mask         Load
               | buffer[index] = var where mask         Store    (+=: added to what is there, lanes in order)
               | accumulator := var                     Assign   where first assigned, it begins to exist
               | var = check...                         Check    a failure recorded where it does not hold
               | for symbol in index..index step n:     For
               | for symbols shared by threads:         Share    the points that fall to this thread
               | if index > 0, ...:                     If
               | barrier                                Barrier  all threads arrive before one goes on
               | call name(...)                         Call     another program

A *var* is a vector of one element type, of one lane where it is a scalar; each is defined once, but for
accumulators, which are assigned again. An *index* is an integer expression over symbols: loop variables,
sizes, named integers, and integers that a var holds (:class:`ValueSymbol`). What lies on lanes says so by an
:class:`Along`: lane ``k`` takes its symbol ``offset + k`` further on than its loop does.

Operations on vars mean what the vocabulary of loop bodies says (:mod:`braze.ops.vocabulary`). Every thread
runs the whole program, but for what is shared; ``barrier`` stands outside loops and branches only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch

from braze.runtime.expr import Expr, Symbol

__all__ = [
    "LANE",
    "SCALAR",
    "Along",
    "Assign",
    "Barrier",
    "Bind",
    "Blocks",
    "Call",
    "Check",
    "Const",
    "For",
    "If",
    "Index",
    "Let",
    "Load",
    "Share",
    "Shuffle",
    "Statement",
    "Store",
    "Tail",
    "ValueSymbol",
    "Var",
    "bodies",
    "phases",
    "walk",
]


class Var:
    """A value of ``lanes`` elements of ``dtype``; compared by identity."""

    __slots__ = ("dtype", "lanes", "name")

    def __init__(self, name: str, dtype: torch.dtype, lanes: int = 1) -> None:
        self.name = name
        self.dtype = dtype
        self.lanes = lanes

    def __repr__(self) -> str:
        return self.name


class Const(Var):
    """A literal in every lane."""

    __slots__ = ("value",)

    def __init__(self, value: float, dtype: torch.dtype, lanes: int = 1) -> None:
        super().__init__(str(value), dtype, lanes)
        self.value = value


class ValueSymbol(Symbol):
    """An integer that ``var`` (int64) holds, lane by lane where it has several."""

    __slots__ = ("var",)

    def __init__(self, var: Var, upper: Expr | None) -> None:
        super().__init__(var.name, 0, upper)
        self.var = var


class Along(NamedTuple):
    """How an index lies on lanes: lane ``k`` sees ``symbol + offset + k``. Where lanes run together in
    groups, the symbol's value at lane 0 is a multiple of ``group`` away from where its loop starts, and
    groups do not cross multiples of ``group``. No symbol: one lane."""

    symbol: Symbol | None = None
    lanes: int = 1
    offset: int = 0
    group: int = 1


SCALAR = Along()
LANE = Symbol("lane", 0)
"""The number of a lane, for memory that has neighbouring elements for neighbouring lanes; 0 by itself."""


@dataclass(eq=False, slots=True)
class Let:
    """``var = op(args)``: all of one number of lanes, but for ``splat``, which spreads a scalar."""

    var: Var
    op: str
    args: tuple[Var, ...]


@dataclass(eq=False, slots=True)
class Shuffle:
    """Lane ``i`` of ``var`` is lane ``order[i]`` of a, and of b after it (-1: anything)."""

    var: Var
    a: Var
    b: Var | None
    order: tuple[int, ...]


@dataclass(eq=False, slots=True)
class Index:
    """``var`` is the value of ``index``, on lanes as ``along`` says, in the type of ``var``."""

    var: Var
    index: Expr
    along: Along


@dataclass(eq=False, slots=True)
class Tail:
    """``var`` (bool) is true in the first ``count`` lanes."""

    var: Var
    count: Expr


@dataclass(eq=False, slots=True)
class Bind:
    """``symbol`` stands for the value that ``value`` has here."""

    symbol: Symbol
    value: Expr


@dataclass(eq=False, slots=True)
class Load:
    """Elements of ``buffer``; 0, and no access, where ``mask`` is false."""

    var: Var
    buffer: str
    index: Expr
    along: Along
    mask: Var | None = None


@dataclass(eq=False, slots=True)
class Store:
    """Elements to ``buffer``, lanes in order, where ``mask`` is true; ``combine``: the operation (``add``,
    ``mul``, ``minimum``, ``maximum``) by which they are joined to what is there, which no other thread
    touches meanwhile."""

    buffer: str
    index: Expr
    along: Along
    value: Var
    mask: Var | None = None
    combine: str | None = None


@dataclass(eq=False, slots=True)
class Assign:
    """``var``, an accumulator, becomes ``value``. The first assignment begins its life, which ends with the
    block that holds it."""

    var: Var
    value: Var


@dataclass(eq=False, slots=True)
class Check:
    """A failure is recorded, as check ``number`` of the program, where an active lane does not pass.

    ``index``: value (int64) is an index into ``bound`` elements, negative ones counted from the end if
    ``wraps``; ``var`` is the index, 0 where it is none. ``nonzero``: ``var`` is the value, 1 where that is 0.
    ``holds``: value is a condition; there is no ``var``. The mask says which lanes are active.
    """

    kind: Literal["index", "nonzero", "holds"]
    var: Var | None
    value: Var
    mask: Var | None
    number: int
    bound: Expr | None = None
    along: Along = SCALAR
    wraps: bool = False


@dataclass(eq=False, slots=True)
class For:
    """``body`` for each value from ``start`` up to ``stop`` (exclusive); ``runs``: at least one is sure."""

    symbol: Symbol
    start: Expr
    stop: Expr
    step: int
    runs: bool
    body: list[Statement] = field(default_factory=list)


class Blocks(NamedTuple):
    """A variable of a shared loop that is taken block by block: ``low`` and ``high`` stand for the range of
    ``symbol`` in which this thread's blocks lie, each ``length`` long and neighbours."""

    symbol: Symbol
    length: int
    low: Symbol
    high: Symbol


@dataclass(eq=False, slots=True)
class Share:
    """The points of ``loops``, and of a variable's blocks, in row-major order, shared out to threads as
    evenly as they can be, each a run of neighbours. ``serial``: the first thread takes all."""

    loops: tuple[Symbol, ...]
    blocks: Blocks | None
    serial: bool = False
    body: list[Statement] = field(default_factory=list)


@dataclass(eq=False, slots=True)
class If:
    """``body`` where all ``positive`` are greater than 0."""

    positive: tuple[Expr, ...]
    body: list[Statement] = field(default_factory=list)


@dataclass(eq=False, slots=True)
class Barrier:
    """All threads arrive here before one of them goes on."""


@dataclass(eq=False, slots=True)
class Call:
    """Another program, its buffers and sizes being those of this one that are named; ``errors`` is added to
    the numbers of its checks."""

    program: str
    buffers: tuple[str, ...]
    sizes: tuple[Expr, ...]
    errors: int = 0


Statement = (
    Let | Shuffle | Index | Tail | Bind | Load | Store | Assign | Check | For | Share | If | Barrier | Call
)


def bodies(statement: Statement) -> list[Statement] | None:
    """The statements inside a statement, if it has any."""
    return statement.body if isinstance(statement, For | Share | If) else None


def walk(body: list[Statement]) -> list[Statement]:
    """Every statement of a body, outer ones first."""
    out: list[Statement] = []
    for statement in body:
        out.append(statement)
        inner = bodies(statement)
        if inner:
            out += walk(inner)
    return out


def phases(body: Sequence[Statement]) -> list[list[Statement]]:
    """What runs from one barrier to the next."""
    out: list[list[Statement]] = [[]]
    for statement in body:
        if isinstance(statement, Barrier):
            out.append([])
        else:
            out[-1].append(statement)
    return out
