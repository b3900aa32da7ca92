"""From a program to LLVM IR: one case a statement.

Native interface of every function that is made here (a *phase* of a program, from one barrier to the next)::

    void @<name>(ptr %err, ptr %b0, ptr %b1, ..., i64 %s0, ..., ptr %scratch, i64 %errbase, i64 %tid, i64 %nt)

with the program's buffers and sizes, in order, its scratch memory (64-byte aligned), the number that is added
to a failed check's id, and which thread of how many this is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch

from braze.codegen.llvm import access, failures
from braze.codegen.llvm.builder import I64, PTR, FunctionBuilder, ModuleBuilder, Type, Value
from braze.codegen.llvm.convert import convert
from braze.codegen.llvm.indices import Indices, number, step_along
from braze.codegen.llvm.operations import compute, literal
from braze.codegen.llvm.sharing import share
from braze.codegen.program.grammar import (
    LANE,
    Assign,
    Bind,
    Check,
    Const,
    For,
    If,
    Index,
    Let,
    Load,
    Share,
    Shuffle,
    Statement,
    Store,
    Tail,
    Var,
    bodies,
    phases,
)
from braze.codegen.program.program import Program, Scratch
from braze.errors import InternalError
from braze.runtime.expr import ZERO, Expr

__all__ = ["Rendered", "ScratchNeed", "render", "scratch_of"]

_ROW_ALIGN = 64


@dataclass(frozen=True)
class ScratchNeed:
    """Where a program's scratch lies: ``at`` the place of each piece, in bytes, behind what all threads share
    or in the part of one thread; ``shared`` and ``thread``: the bytes of both, expressions over the sizes."""

    at: dict[str, Expr]
    shared: Expr
    thread: Expr


def scratch_of(pieces: Sequence[Scratch]) -> ScratchNeed:
    """Every piece begins at a multiple of 64 bytes."""
    at: dict[str, Expr] = {}
    total = {"shared": ZERO, "thread": ZERO}
    for piece in pieces:
        if piece.kind == "stack":
            continue
        at[piece.name] = total[piece.kind]
        size = piece.size * piece.dtype.itemsize
        total[piece.kind] = total[piece.kind] + (size + (_ROW_ALIGN - 1)) // _ROW_ALIGN * _ROW_ALIGN
    return ScratchNeed(at, total["shared"], total["thread"])


@dataclass(frozen=True)
class Rendered:
    """The functions of a program's phases, and the scratch that they need."""

    functions: tuple[str, ...]
    scratch: ScratchNeed


def render(program: Program, module: ModuleBuilder, name: str) -> Rendered:
    """Add the phases of ``program`` to ``module``, under names that begin with ``name``."""
    need = scratch_of(program.scratch)
    functions = []
    for phase, body in enumerate(phases(program.body)):
        functions.append(f"{name}_{phase}")
        _Phase(program, need, module, functions[-1]).run(body)
    return Rendered(tuple(functions), need)


class _Phase:
    """Renders one phase as a function."""

    def __init__(self, program: Program, need: ScratchNeed, module: ModuleBuilder, name: str) -> None:
        params: list[tuple[str, Type]] = [("err", PTR)]
        params += [(f"b{k}", PTR) for k in range(len(program.buffers))]
        params += [(f"s{k}", I64) for k in range(len(program.sizes))]
        params += [("scratch", PTR), ("errbase", I64), ("tid", I64), ("nt", I64)]
        self.fb = FunctionBuilder(module, name, params)
        self.ix = Indices(self.fb)
        self.dtypes = {x.name: x.dtype for x in program.buffers}
        self.dtypes.update({x.name: x.dtype for x in program.scratch})
        self._accesses: dict[int, list[tuple[str, Expr]]] = {}
        self._assigned: dict[int, list[Var]] = {}
        self.ix.bound[LANE] = (0, number(0))
        for k, size in enumerate(program.sizes):
            self.ix.bound[size] = (0, self.fb.params[f"s{k}"])
        for k, buffer in enumerate(program.buffers):
            self.ix.bases[buffer.name] = (self.fb.params[f"b{k}"], access.MEMORY[buffer.dtype])
        self.stack = {s.name: s for s in program.scratch if s.kind == "stack"}
        self._place(program, need)

    def _place(self, program: Program, need: ScratchNeed) -> None:
        """Addresses of scratch, at the head of the function."""
        fb, ix = self.fb, self.ix
        scratch, own = fb.params["scratch"], None
        for piece in program.scratch:
            if piece.kind == "stack":
                continue
            base = scratch
            if piece.kind == "thread":
                if own is None:
                    start = fb.mul(fb.params["tid"], ix.scalar(need.thread))
                    own = fb.gep(scratch, fb.add(start, ix.scalar(need.shared)), "i8")
                base = own
            offset = need.at[piece.name]
            address = fb.gep(base, ix.scalar(offset), "i8") if offset.terms else base
            ix.bases[piece.name] = (address, access.MEMORY[piece.dtype])

    def run(self, body: Sequence[Statement]) -> None:
        """The whole phase."""
        self._near(body)
        self._prepare(body)
        self.body(body)
        self.fb.ret()

    def _near(self, body: Sequence[Statement]) -> None:
        """Room on the stack, for what this phase uses of it."""
        for buffer, _ in self._accesses_in(body):
            piece = self.stack.get(buffer)
            if piece is not None and buffer not in self.ix.bases:
                elem, size = access.MEMORY[piece.dtype], piece.size.constant
                assert size is not None
                self.ix.bases[buffer] = (self.fb.alloca(Type(elem), size, align=_ROW_ALIGN), elem)

    # -- what a body holds ------------------------------------------------------------------------------
    def _accesses_in(self, body: Sequence[Statement]) -> list[tuple[str, Expr]]:
        out: dict[tuple[str, Expr], None] = {}
        for s in body:
            if isinstance(s, Load | Store):
                index = s.index
                if index.terms and not index.terms[-1][0]:
                    index = Expr(index.terms[:-1])  # the constant is added where the access happens
                out[s.buffer, index] = None
            elif isinstance(s, For | Share | If):
                known = self._accesses.get(id(s))
                if known is None:
                    known = self._accesses[id(s)] = self._accesses_in(s.body)
                out.update(dict.fromkeys(known))
        return list(out)

    def _prepare(self, body: Sequence[Statement]) -> None:
        """As much of every address as has values here, so that loops further in find it."""
        for buffer, index in self._accesses_in(body):
            self.ix.prepare(buffer, index)

    def _carried(self, s: For | Share | If) -> list[Var]:
        """The accumulators that exist before a statement and change in it."""
        return [var for var in self._assigned_in(s) if var in self.ix.values]

    def _assigned_in(self, s: Statement) -> list[Var]:
        found = self._assigned.get(id(s))
        if found is None:
            seen: dict[Var, None] = {}
            for inner in bodies(s) or ():
                if isinstance(inner, Assign):
                    seen[inner.var] = None
                elif isinstance(inner, For | Share | If):
                    seen.update(dict.fromkeys(self._assigned_in(inner)))
            found = self._assigned[id(s)] = list(seen)
        return found

    # -- statements -------------------------------------------------------------------------------------
    def value(self, var: Var) -> Value:
        """The value of an operand."""
        found = self.ix.values.get(var)
        if found is None:
            if not isinstance(var, Const):
                raise InternalError(f"{var} is used before it has a value")
            found = self.ix.values[var] = literal(var)
        return found

    def body(self, statements: Sequence[Statement]) -> None:
        """Statements, one after another."""
        left = iter(pairwise((*statements, None)))
        for s, following in left:
            assert s is not None
            if isinstance(s, Store) and isinstance(following, Store) and access.alternate(s, following):
                self.stores(s, following)
                next(left)
            else:
                _CASES[type(s)](self, s)

    def let(self, s: Let) -> None:
        args = [self.value(a) for a in s.args]
        if s.op == "splat":
            self.ix.define(s.var, self.fb.splat(args[0], s.var.lanes))
            return
        operands = s.args[0].dtype if s.op != "where" else s.var.dtype
        self.ix.define(s.var, compute(self.fb, s.op, operands, args, s.var.dtype))

    def shuffle(self, s: Shuffle) -> None:
        a, b = self.value(s.a), None if s.b is None else self.value(s.b)
        if len(s.order) == 1 and b is None:
            self.ix.define(s.var, self.fb.extract(a, s.order[0]))
            return
        self.ix.define(s.var, self.fb.shuffle(a, b, s.order))

    def index(self, s: Index) -> None:
        ix, e, dtype = self.ix, s.index, s.var.dtype
        if s.along.symbol is None:
            ix.define(s.var, convert(self.fb, ix.scalar(e), torch.int64, dtype))
            return
        lo, hi = e.bounds()
        small = lo is not None and hi is not None and lo >= -(2**31) and hi < 2**31
        narrow = small and dtype is not torch.int64 and step_along(e, s.along) is not None
        own = torch.int32 if dtype is torch.int32 or narrow else torch.int64
        value = ix.lanes(e, s.along, "i32" if own is torch.int32 else "i64")
        ix.define(s.var, convert(self.fb, value, own, dtype))

    def tail(self, s: Tail) -> None:
        fb, lanes = self.fb, s.var.lanes
        left = fb.trunc(fb.integer_minmax("smin", self.ix.scalar(s.count), lanes), "i32")
        self.ix.define(s.var, fb.icmp("sgt", fb.splat(left, lanes), fb.lane_ids(Type("i32", lanes))))

    def bind(self, s: Bind) -> None:
        self.ix.bind(s.symbol, self.ix.scalar(s.value))

    def load(self, s: Load) -> None:
        self._operand(s.mask)
        self.ix.define(s.var, access.load(self.ix, s))

    def store(self, s: Store) -> None:
        self._operand(s.mask)
        self._operand(s.value)
        access.store(self.ix, s, self.dtypes[s.buffer])

    def stores(self, first: Store, second: Store) -> None:
        for var in (first.mask, first.value, second.value):
            self._operand(var)
        access.store_alternately(self.ix, first, second)

    def check(self, s: Check) -> None:
        self._operand(s.mask)
        self._operand(s.value)
        failures.check(self.ix, s)

    def _operand(self, var: Var | None) -> None:
        """Literals have values, too, where others look them up."""
        if var is not None:
            self.value(var)

    def assign(self, s: Assign) -> None:
        value = self.value(s.value)
        if s.var in self.ix.values:
            self.ix.values[s.var] = value
        else:
            self.ix.define(s.var, value)

    # -- control ----------------------------------------------------------------------------------------
    def loop(self, s: For) -> None:
        ix = self.ix
        carried = self._carried(s)
        start, stop = ix.scalar(s.start), ix.scalar(s.stop)
        values = [ix.values[v] for v in carried]
        with self.fb.for_range(start, stop, s.step, values, runs=s.runs, label=s.symbol.name) as loop:
            with ix.block():
                ix.bind(s.symbol, loop.index)
                for var, value in zip(carried, loop.carried, strict=True):
                    ix.values[var] = value
                self._prepare(s.body)
                self.body(s.body)
            loop.set_next(*[ix.values[v] for v in carried])
        for var, value in zip(carried, loop.results, strict=True):
            ix.values[var] = value

    def share(self, s: Share) -> None:
        def inside() -> None:
            self._prepare(s.body)
            self.body(s.body)

        share(self.ix, s, inside)

    def branch(self, s: If) -> None:
        ix, fb = self.ix, self.fb
        some: Value | None = None
        for e in s.positive:
            here = fb.icmp("sgt", ix.scalar(e), 0)
            some = here if some is None else fb.and_(some, here)
        assert some is not None
        carried = self._carried(s)
        before = [ix.values[v] for v in carried]

        def then() -> list[Value]:
            with ix.block():
                self.body(s.body)
            after = [ix.values[v] for v in carried]
            for var, value in zip(carried, before, strict=True):
                ix.values[var] = value
            return after

        if not carried:
            with fb.if_then(some, "some"):
                then()
            return
        results = fb.if_else(some, then, lambda: before, "some")
        for var, value in zip(carried, results, strict=True):
            ix.values[var] = value


_CASES: dict[type, Callable[..., None]] = {
    Let: _Phase.let,
    Shuffle: _Phase.shuffle,
    Index: _Phase.index,
    Tail: _Phase.tail,
    Bind: _Phase.bind,
    Load: _Phase.load,
    Store: _Phase.store,
    Assign: _Phase.assign,
    Check: _Phase.check,
    For: _Phase.loop,
    Share: _Phase.share,
    If: _Phase.branch,
}
