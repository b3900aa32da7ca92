"""What every program has to obey, checked without running it.

Types and lanes of every statement; each var defined once and before its use, in the block that it is used in
or one around it; accumulators of one type throughout; symbols only where they have values; masks wherever a
loop over lanes may end within a vector; indices into scratch within its size, where both are numbers;
barriers where all threads reach them, and one between what threads write and what others read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import gcd

import torch

from braze.codegen.program.grammar import (
    LANE,
    Along,
    Assign,
    Barrier,
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
    ValueSymbol,
    Var,
    bodies,
    phases,
    walk,
)
from braze.codegen.program.program import Program
from braze.errors import InternalError
from braze.ops.dtypes import is_float, is_integer
from braze.ops.vocabulary import OPS
from braze.runtime.expr import Atom, Expr, FloorDiv, Mod, Symbol

__all__ = ["verify_program"]

_DOMAINS: dict[str, Callable[[torch.dtype], bool]] = {
    "any": lambda d: True,
    "number": lambda d: d is not torch.bool,
    "float": is_float,
    "int": is_integer,
    "bool": lambda d: d is torch.bool,
    "bits": lambda d: not is_float(d),
}
_RANDOM = ("rand", "randn", "randint64")


def verify_program(program: Program) -> None:
    """Raises ``InternalError``, which names the statement, for the first thing that is wrong."""
    _Verifier(program).run()


class _Verifier:
    """``vars`` and ``symbols``: what exists here; ``tails``: what each mask is known to exclude;
    ``divisors``: a number that divides each symbol; ``open``: the lanes loops around, whose ends may lie
    within a vector."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.dtypes = {b.name: b.dtype for b in program.buffers}
        self.dtypes.update({s.name: s.dtype for s in program.scratch})
        self.written = {b.name for b in program.buffers if b.role != "in"}
        self.written |= {s.name for s in program.scratch}
        self.scratch = {s.name: s for s in program.scratch}
        self.vars: dict[Var, bool] = {}
        self.seen: set[Var] = set()
        self.symbols: set[Symbol] = {LANE, *program.sizes}
        self.values: dict[Symbol, Expr] = {}
        self.divisors: dict[Symbol, int] = {}
        self.tails: dict[Var, set[tuple[Symbol, Expr]]] = {}
        self.open: dict[Symbol, tuple[Expr, int]] = {}

    def run(self) -> None:
        for phase in phases(self.program.body):
            self.block(phase)
            self._no_races(phase)

    def wrong(self, s: Statement, why: str) -> InternalError:
        shown = type(s).__name__
        var = getattr(s, "var", None)
        if var is not None:
            shown += f" of {var}"
        elif isinstance(s, Store):
            shown += f" to {s.buffer}[{s.index}]"
        return InternalError(f"{shown}: {why}", node=self.program.name)

    # -- blocks -------------------------------------------------------------------------------------------
    def block(self, body: Sequence[Statement], symbols: Iterable[Symbol] = ()) -> None:
        """Statements whose definitions end with the block."""
        variables, known = dict(self.vars), set(self.symbols)
        self.symbols |= set(symbols)
        for s in body:
            self.statement(s)
        self.vars, self.symbols = variables, known

    def statement(self, s: Statement) -> None:
        if isinstance(s, For):
            self._for(s)
        elif isinstance(s, Share):
            self._share(s)
        elif isinstance(s, If):
            for e in s.positive:
                self.index(s, e, Along())
            self.block(s.body)
        elif isinstance(s, Let):
            self._let(s)
        elif isinstance(s, Shuffle):
            self._shuffle(s)
        elif isinstance(s, Index):
            self.index(s, s.index, s.along)
            self._lanes(s, s.var, s.along.lanes)
            self.define(s, s.var)
        elif isinstance(s, Tail):
            self._tail(s)
        elif isinstance(s, Bind):
            self.index(s, s.value, Along())
            self._bind(s)
        elif isinstance(s, Load | Store):
            self._access(s)
        elif isinstance(s, Assign):
            self._assign(s)
        elif isinstance(s, Check):
            self._check(s)
        elif isinstance(s, Barrier):
            raise self.wrong(s, "not every thread is sure to reach it")
        else:
            raise self.wrong(s, "a kernel's program calls no other")

    def _for(self, s: For) -> None:
        for e in (s.start, s.stop):
            self.index(s, e, Along())
        if s.step < 1:
            raise self.wrong(s, f"a step of {s.step}")
        self.divisors[s.symbol] = gcd(self.divisor(s.start), s.step)
        whole = self.divisor(s.stop - s.start) % s.step == 0
        if not whole:
            self.open[s.symbol] = s.stop, s.step
        self.block(s.body, (s.symbol,))
        self.open.pop(s.symbol, None)

    def _share(self, s: Share) -> None:
        for v in s.loops:
            self.index(s, v.size, Along())
        symbols = list(s.loops)
        if s.blocks is not None:
            x = s.blocks
            self.index(s, x.symbol.size, Along())
            symbols += [x.low, x.high]
            self.divisors[x.low] = x.length
            self.divisors[x.high] = gcd(x.length, self.divisor(x.symbol.size))
        self.block(s.body, symbols)

    # -- what a number is divided by ------------------------------------------------------------------------
    def divisor(self, e: Expr) -> int:
        """A number that is known to divide ``e``; 0 divides 0 only."""
        total = 0
        for mono, c in self._expanded(e).terms:
            part = abs(c)
            for atom in mono:
                part *= self._divisor_of(atom)
            total = gcd(total, part)
        return total

    def _divisor_of(self, atom: Atom) -> int:
        if isinstance(atom, Symbol):
            return self.divisors.get(atom, 1)
        if isinstance(atom, FloorDiv | Mod):
            return 1
        total = 0
        for part in atom.parts:
            total = gcd(total, self.divisor(part))
        return total

    def _expanded(self, e: Expr) -> Expr:
        """Named integers replaced by what they stand for."""
        while True:
            known = {v: self.values[v] for v in e.free_symbols if v in self.values}
            if not known:
                return e
            e = e.substitute(known)

    def _bind(self, s: Bind) -> None:
        if s.symbol in self.symbols:
            raise self.wrong(s, f"{s.symbol} has a value already")
        self.symbols.add(s.symbol)
        self.divisors[s.symbol] = self.divisor(s.value)
        self.values[s.symbol] = s.value

    # -- values -------------------------------------------------------------------------------------------
    def define(self, s: Statement, var: Var) -> None:
        if var in self.seen:
            raise self.wrong(s, f"{var} is defined twice")
        self.seen.add(var)
        self.vars[var] = False

    def use(self, s: Statement, var: Var) -> None:
        if not isinstance(var, Const) and var not in self.vars:
            raise self.wrong(s, f"{var} has no value here")

    def _lanes(self, s: Statement, var: Var, lanes: int) -> None:
        if var.lanes != lanes:
            raise self.wrong(s, f"{var} has {var.lanes} lanes, not {lanes}")

    def _let(self, s: Let) -> None:
        for a in s.args:
            self.use(s, a)
        if s.op == "splat":
            if s.args[0].lanes != 1 or s.args[0].dtype is not s.var.dtype:
                raise self.wrong(s, "only a scalar is spread, to its own type")
            self.define(s, s.var)
            return
        if s.op not in OPS:
            raise self.wrong(s, f"no operation is called {s.op}")
        row = OPS[s.op]
        if not row.arity[0] <= len(s.args) <= row.arity[1]:
            raise self.wrong(s, f"{s.op} takes {row.arity} operands, not {len(s.args)}")
        for a in s.args:
            self._lanes(s, a, s.var.lanes)
        operands = s.args[1:] if s.op == "where" else s.args
        if any(a.dtype is not operands[0].dtype for a in operands):
            raise self.wrong(s, f"operands of {s.op} differ in type")
        if not _DOMAINS[row.domain](operands[0].dtype):
            raise self.wrong(s, f"{s.op} is not defined for {operands[0].dtype}")
        result = {"bool": torch.bool, "same": operands[0].dtype}.get(row.result)
        if s.op == "where":
            result = operands[0].dtype
            if s.args[0].dtype is not torch.bool:
                raise self.wrong(s, "a condition is a bool")
        if result is not None and result is not s.var.dtype:
            raise self.wrong(s, f"{s.op} gives {result}, not {s.var.dtype}")
        self.define(s, s.var)
        if s.op == "logical_and":  # excludes what either excludes
            self.tails[s.var] = set().union(*[self.tails.get(a, set()) for a in s.args])

    def _shuffle(self, s: Shuffle) -> None:
        self.use(s, s.a)
        lanes = s.a.lanes
        if s.b is not None:
            self.use(s, s.b)
            self._lanes(s, s.b, lanes)
            lanes *= 2
        if any(i >= lanes for i in s.order) or len(s.order) != s.var.lanes or s.a.dtype is not s.var.dtype:
            raise self.wrong(s, "lanes that are not there, or another type")
        self.define(s, s.var)

    def _tail(self, s: Tail) -> None:
        self.index(s, s.count, Along())
        self.define(s, s.var)
        self.tails[s.var] = {
            (v, s.count + v.expr) for v in s.count.free_symbols if s.count.coefficient(v) is not None
        }

    def _assign(self, s: Assign) -> None:
        self.use(s, s.value)
        if s.value.dtype is not s.var.dtype or s.value.lanes != s.var.lanes:
            raise self.wrong(s, f"{s.value} is of another type")
        if s.var not in self.vars:
            self.define(s, s.var)
        elif not self.vars[s.var]:
            raise self.wrong(s, "it is not an accumulator")
        self.vars[s.var] = True

    # -- memory and checks ----------------------------------------------------------------------------------
    def index(self, s: Statement, e: Expr, along: Along) -> None:
        """An index: its symbols have values, and what it takes from vars fits its lanes."""
        for v in e.free_symbols:
            if isinstance(v, ValueSymbol):
                self.use(s, v.var)
                if v.var.dtype is not torch.int64 or v.var.lanes not in (1, along.lanes):
                    raise self.wrong(s, f"{v.var} is not an index on {along.lanes} lanes")
            elif v not in self.symbols:
                raise self.wrong(s, f"{v} has no value here")
        if along.symbol is not None and along.symbol not in self.symbols:
            raise self.wrong(s, f"{along.symbol} has no value here")

    def _access(self, s: Load | Store) -> None:
        self.index(s, s.index, s.along)
        dtype = self.dtypes.get(s.buffer)
        value = s.var if isinstance(s, Load) else s.value
        if dtype is not value.dtype:
            raise self.wrong(s, f"{s.buffer} holds {dtype}, not {value.dtype}")
        self._lanes(s, value, s.along.lanes)
        self._masked(s, s.mask, s.along)
        if isinstance(s, Load):
            self.define(s, s.var)
        else:
            self.use(s, s.value)
            if s.buffer not in self.written:
                raise self.wrong(s, f"{s.buffer} is only read")
        self._in_scratch(s)

    def _masked(self, s: Load | Store | Check, mask: Var | None, along: Along) -> None:
        if mask is not None:
            self.use(s, mask)
            self._lanes(s, mask, along.lanes)
            if mask.dtype is not torch.bool:
                raise self.wrong(s, "a mask is of bools")
        limit = None if along.symbol is None else self.open.get(along.symbol)
        if limit is None or along.lanes * (1 if along.offset == 0 else 2) == 1 or along.symbol is None:
            return
        stop = self._expanded(limit[0])
        excluded = () if mask is None else self.tails.get(mask, ())
        if not any(v == along.symbol and self._expanded(end) == stop for v, end in excluded):
            raise self.wrong(s, f"the loop over {along.symbol} may end within a vector, and no mask says so")

    def _in_scratch(self, s: Load | Store) -> None:
        piece = self.scratch.get(s.buffer)
        size = None if piece is None else piece.size.constant
        if size is None:
            return
        e = s.index
        if s.along.symbol is LANE:
            e = e.substitute({LANE: Symbol("lane", 0, s.along.offset + s.along.lanes - 1).expr})
        low, high = self._expanded(e).bounds()
        if (low is not None and low < 0) or (high is not None and high >= size):
            raise self.wrong(s, f"{s.buffer} has {size} elements, and the index may be {high}")

    def _check(self, s: Check) -> None:
        self.use(s, s.value)
        if not 0 <= s.number < len(self.program.checks):
            raise self.wrong(s, f"there is no check {s.number}")
        if s.mask is not None:
            self.use(s, s.mask)
            self._lanes(s, s.mask, s.value.lanes)
        wanted = {"index": torch.int64, "holds": torch.bool}.get(s.kind)
        if wanted is not None and s.value.dtype is not wanted:
            raise self.wrong(s, f"{s.value} is of another type")
        if s.bound is not None:
            self.index(s, s.bound, s.along)
        if s.var is not None:
            self._lanes(s, s.var, s.value.lanes)
            self.define(s, s.var)

    # -- threads --------------------------------------------------------------------------------------------
    def _no_races(self, phase: Sequence[Statement]) -> None:
        """What one shared loop of a phase writes for all threads, another must not touch."""
        shares = [s for top in phase for s in ([top, *walk(bodies(top) or [])]) if isinstance(s, Share)]
        near = {s.name for s in self.program.scratch if s.kind != "shared"}
        writers: dict[str, Share] = {}
        for share in shares:
            for s in walk(share.body):
                if isinstance(s, Store) and s.buffer not in near:
                    writers.setdefault(s.buffer, share)
        for share in shares:
            for s in walk(share.body):
                if isinstance(s, Load | Store) and writers.get(s.buffer, share) is not share:
                    raise self.wrong(s, f"other threads write {s.buffer}, and no barrier stands between")
