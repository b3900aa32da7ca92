"""The reference interpreter of programs: runs them statement by statement with torch operations, at the width
that they were built for, and with any number of threads, one after another between barriers.

It is written to be evidently right, not fast. What no statement has written is garbage, what lies outside a
buffer cannot be touched, and each thread runs a phase to its end before the next one starts, so that a wrong
tail, strip, identity or barrier shows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import TypeAlias

import torch

from braze.codegen.program.grammar import (
    LANE,
    Along,
    Assign,
    Bind,
    Call,
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
    phases,
)
from braze.codegen.program.program import Program
from braze.errors import InternalError
from braze.ops import scalar
from braze.ops.dtypes import SHORT
from braze.ops.interpreter import combined
from braze.runtime import checks
from braze.runtime.expr import Atom, Expr, Symbol

__all__ = ["run_program"]

Tensor = torch.Tensor
NOTHING: Mapping[str, Program] = {}
_GARBAGE = 0x5A


def run_program(
    program: Program,
    buffers: Mapping[str, Tensor],
    sizes: Mapping[str, int] | None = None,
    threads: int = 1,
    callees: Mapping[str, Program] = NOTHING,
    *,
    backwards: bool = False,
) -> None:
    """Run ``program``, writing the buffers that it writes.

    ``buffers``: flat 1-D storage for each of its buffers, of their element types, at least as long as they
    say. ``sizes``: the value of each size symbol. ``callees``: the programs that it calls, by their names.
    ``backwards``: from one barrier to the next the last thread runs first, so that what is missing where a
    barrier is missing is something else.

    Raises what a failed check raises, after the program has run (the first that failed). Raises
    ``InternalError`` where the program itself is wrong: an access outside a buffer, a value of another type
    or width than its var's, a symbol or var without a value.
    """
    known = dict(sizes or {})
    failures: list[Exception] = []
    for phase in _expanded(program, _Memory(program, buffers, known, threads), known, threads, callees):
        for thread in reversed(range(threads)) if backwards else range(threads):
            for own, memory, its_sizes, body in phase:
                _Thread(own, memory, its_sizes, thread, threads, failures).run(body)
    if failures:
        raise failures[0]


_Piece: TypeAlias = "tuple[Program, _Memory, dict[str, int], list[Statement]]"


def _expanded(
    program: Program, memory: _Memory, sizes: dict[str, int], threads: int, callees: Mapping[str, Program]
) -> list[list[_Piece]]:
    """The phases of a program and of what it calls: each what runs from one barrier to the next, in pieces
    that have memory and sizes of their own."""
    out: list[list[_Piece]] = [[]]
    for phase in phases(program.body):
        for s in phase:
            if not isinstance(s, Call):
                if not out[-1] or out[-1][-1][1] is not memory:
                    out[-1].append((program, memory, sizes, []))
                out[-1][-1][3].append(s)
                continue
            callee = callees[s.program]
            given = {
                b.name: memory.all[name, 0][0] for b, name in zip(callee.buffers, s.buffers, strict=True)
            }
            its_sizes = {v.name: e.evaluate(sizes) for v, e in zip(callee.sizes, s.sizes, strict=True)}
            inner = _Memory(callee, given, its_sizes, threads)
            first, *rest = _expanded(callee, inner, its_sizes, threads, callees)
            out[-1] += first
            out += rest
        out.append([])
    return out[:-1]


class _Memory:
    """All buffers of a run: those that were given, and scratch."""

    def __init__(
        self, program: Program, buffers: Mapping[str, Tensor], sizes: dict[str, int], threads: int
    ) -> None:
        self.all: dict[tuple[str, int], tuple[Tensor, int]] = {}
        for b in program.buffers:
            numel, given = b.numel.evaluate(sizes), buffers[b.name]
            if given.dim() != 1 or given.dtype is not b.dtype or given.numel() < numel:
                raise InternalError(
                    f"{b} was given {SHORT[given.dtype]}{list(given.shape)}", node=program.name
                )
            for thread in range(threads):
                self.all[b.name, thread] = given, numel
        for s in program.scratch:
            numel = s.size.evaluate(sizes)
            for thread in range(threads):
                if s.kind != "shared" or thread == 0:
                    raw = torch.full((max(0, numel) * s.dtype.itemsize,), _GARBAGE, dtype=torch.uint8)
                    piece = raw.view(s.dtype)
                self.all[s.name, thread] = piece, numel


class _Thread:
    """One thread in one phase: what symbols and vars are."""

    def __init__(
        self,
        program: Program,
        memory: _Memory,
        sizes: Mapping[str, int],
        thread: int,
        threads: int,
        failures: list[Exception],
    ) -> None:
        self.program = program
        self.memory = memory
        self.thread = thread
        self.threads = threads
        self.failures = failures
        self.symbols: dict[Symbol, int] = {s: sizes[s.name] for s in program.sizes}
        self.symbols[LANE] = 0
        self.vars: dict[Var, Tensor] = {}

    def run(self, body: Sequence[Statement]) -> None:
        """Statements, one after another."""
        for s in body:
            try:
                _CASES[type(s)](self, s)
            except InternalError:
                raise
            except (RuntimeError, IndexError, KeyError, ZeroDivisionError) as e:
                raise InternalError(f"{type(s).__name__} cannot be run: {e}", node=self.program.name) from e

    # -- values -------------------------------------------------------------------------------------------
    def value(self, var: Var) -> Tensor:
        """A var's value, ``[lanes]``."""
        if isinstance(var, Const):
            return torch.full((var.lanes,), var.value, dtype=var.dtype)
        found = self.vars.get(var)
        if found is None:
            raise InternalError(f"{var} has no value", node=self.program.name)
        return found

    def define(self, var: Var, value: Tensor) -> None:
        """A var gets its value."""
        if value.dtype is not var.dtype or value.shape != (var.lanes,):
            raise InternalError(
                f"{var} is {SHORT[var.dtype]}x{var.lanes}, and computed as {value.dtype}{list(value.shape)}",
                node=self.program.name,
            )
        self.vars[var] = value

    def let(self, s: Let) -> None:
        args = [self.value(a) for a in s.args]
        if s.op == "splat":
            self.define(s.var, args[0].expand(s.var.lanes))
        elif s.op == "to_dtype":
            self.define(s.var, args[0].to(s.var.dtype))
        elif s.op == "bitcast":
            self.define(s.var, args[0].contiguous().view(s.var.dtype))
        else:
            self.define(s.var, scalar.FUNCTIONS[s.op](*args))

    def shuffle(self, s: Shuffle) -> None:
        a = self.value(s.a)
        both = a if s.b is None else torch.cat([a, self.value(s.b)])
        self.define(s.var, both[torch.tensor([max(0, i) for i in s.order])])

    def index(self, s: Index) -> None:
        self.define(s.var, self.lanes(s.index, s.along).to(s.var.dtype))

    def tail(self, s: Tail) -> None:
        self.define(s.var, torch.arange(s.var.lanes) < self.integer(s.count))

    def bind(self, s: Bind) -> None:
        self.symbols[s.symbol] = self.integer(s.value)

    def assign(self, s: Assign) -> None:
        self.define(s.var, self.value(s.value))

    # -- integers -----------------------------------------------------------------------------------------
    def integer(self, e: Expr) -> int:
        """An index at lane 0."""
        return int(self.lanes(e, Along())[0])

    def lanes(self, e: Expr, along: Along) -> Tensor:
        """An index on lanes, int64."""
        total = torch.zeros(along.lanes, dtype=torch.int64)
        for factors, coefficient in e.terms:
            term = torch.full((along.lanes,), coefficient)
            for atom in factors:
                term = term * self._atom(atom, along)
            total = total + term
        return total

    def _atom(self, atom: Atom, along: Along) -> Tensor | int:
        if isinstance(atom, ValueSymbol):
            return self.value(atom.var)
        if isinstance(atom, Symbol):
            if atom not in self.symbols:
                raise InternalError(f"{atom} has no value", node=self.program.name)
            start = self.symbols[atom]
            return start + along.offset + torch.arange(along.lanes) if atom == along.symbol else start
        parts = [self.lanes(p, along) for p in atom.parts]
        return combined(atom, parts)

    # -- memory -------------------------------------------------------------------------------------------
    def _place(self, s: Load | Store) -> tuple[Tensor, Tensor, Tensor]:
        """The memory, the element that each lane accesses, and whether it does."""
        memory, numel = self.memory.all[s.buffer, self.thread]
        index = self.lanes(s.index, s.along)
        active = torch.ones(s.along.lanes, dtype=torch.bool)
        if s.mask is not None:
            active = active & self.value(s.mask)
        for v in s.index.free_symbols:
            if isinstance(v, ValueSymbol) and v.upper is not None:
                # an index into nothing has failed its check; it is read or written by nobody
                active = active & (self.lanes(v.upper, s.along) >= 0)
        outside = active & ((index < 0) | (index >= numel))
        if bool(outside.any()):
            where = int(index[outside][0])
            raise InternalError(
                f"{type(s).__name__.lower()} of {s.buffer}[{s.index}] at {where}: it has {numel} elements",
                node=self.program.name,
            )
        return memory, index, active

    def load(self, s: Load) -> None:
        memory, index, active = self._place(s)
        result = torch.zeros(s.along.lanes, dtype=memory.dtype)
        result[active] = memory[index[active]]
        self.define(s.var, result)

    def store(self, s: Store) -> None:
        memory, index, active = self._place(s)
        value = self.value(s.value)
        if value.dtype is not memory.dtype or value.shape != (s.along.lanes,):
            raise InternalError(f"{s.value} does not fit {s.buffer}", node=self.program.name)
        for lane in active.nonzero().flatten().tolist():
            at = int(index[lane])
            old, new = memory[at], value[lane]
            memory[at] = new if s.combine is None else scalar.FUNCTIONS[s.combine](old, new)

    # -- checks -------------------------------------------------------------------------------------------
    def check(self, s: Check) -> None:
        value = self.value(s.value)
        bound = torch.zeros(value.numel(), dtype=torch.int64)
        if s.kind == "index":
            assert s.bound is not None
            bound = self.lanes(s.bound, s.along).expand(value.numel())
            wrapped = torch.where(value < 0, value + bound, value) if s.wraps else value
            bad = (wrapped < 0) | (wrapped >= bound)
            result = torch.where(bad, 0, wrapped)
        elif s.kind == "nonzero":
            bad, result = value == 0, torch.where(value == 0, 1, value)
        else:
            bad, result = ~value, value
        if s.mask is not None:
            bad = bad & self.value(s.mask)
        if bool(bad.any()):
            lane = int(bad.nonzero()[0, 0])
            error = checks.Check.decode(self.program.checks[s.number])
            seen = int(value[lane]) if s.kind == "index" else 0
            self.failures.append(error.error(seen, int(bound[lane])))
        if s.var is not None:
            self.define(s.var, result)

    # -- control ------------------------------------------------------------------------------------------
    def loop(self, s: For) -> None:
        for at in range(self.integer(s.start), self.integer(s.stop), s.step):
            self.symbols[s.symbol] = at
            self.run(s.body)

    def branch(self, s: If) -> None:
        if all(self.integer(e) > 0 for e in s.positive):
            self.run(s.body)

    def share(self, s: Share) -> None:
        extents = [self.integer(v.size) for v in s.loops]
        x = s.blocks
        size = 0 if x is None else self.integer(x.symbol.size)
        blocks = 1 if x is None else -(-size // x.length)
        total = prod(extents) * blocks
        if s.serial:
            low, high = 0, total if self.thread == 0 else 0
        else:
            each, rest = divmod(total, self.threads)
            low = self.thread * each + min(self.thread, rest)
            high = low + each + (self.thread < rest)
        while low < high:
            row, block = divmod(low, blocks)
            for v, n in zip(reversed(s.loops), reversed(extents), strict=True):
                row, self.symbols[v] = divmod(row, n)
            count = min(blocks - block, high - low)
            if x is not None:
                self.symbols[x.low] = block * x.length
                self.symbols[x.high] = min((block + count) * x.length, size)
            self.run(s.body)
            low += count


_CASES: dict[type, Callable[..., None]] = {
    Let: _Thread.let,
    Shuffle: _Thread.shuffle,
    Index: _Thread.index,
    Tail: _Thread.tail,
    Bind: _Thread.bind,
    Load: _Thread.load,
    Store: _Thread.store,
    Assign: _Thread.assign,
    Check: _Thread.check,
    For: _Thread.loop,
    Share: _Thread.share,
    If: _Thread.branch,
}
