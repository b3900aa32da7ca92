"""Programs as pseudo-code that a person reads."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING

from braze.codegen.program.grammar import (
    Along,
    Assign,
    Barrier,
    Bind,
    Call,
    Check,
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
)
from braze.ops.dtypes import SHORT
from braze.runtime.expr import Expr

if TYPE_CHECKING:
    from braze.codegen.program.program import Program

__all__ = ["write"]

_INFIX = {
    "add": "+",
    "sub": "-",
    "mul": "*",
    "truediv": "/",
    "eq": "==",
    "ne": "!=",
    "lt": "<",
    "le": "<=",
    "gt": ">",
    "ge": ">=",
    "logical_and": "and",
    "logical_or": "or",
    "bitwise_and": "&",
    "bitwise_or": "|",
    "bitwise_xor": "^",
}


def write(program: Program) -> str:
    """The whole program, a statement a line."""
    sizes = "".join(["; ", ", ".join(s.name for s in program.sizes)]) if program.sizes else ""
    lines = [f"program {program.name}({', '.join(map(str, program.buffers))}{sizes}):"]
    owners = {"shared": "for all threads", "thread": "for each thread", "stack": "near each thread"}
    for scratch in program.scratch:
        lines.append(
            f"  scratch {scratch.name}: {SHORT[scratch.dtype]}[{scratch.size}] {owners[scratch.kind]}"
        )
    lines += [f"  check {k}: {error}" for k, error in enumerate(program.checks)]
    lines += ["  " + line for line in _Writer().body(program.body)]
    return "\n".join(lines)


class _Writer:
    """``begun``: the accumulators that exist already."""

    def __init__(self) -> None:
        self.begun: set[Var] = set()

    def body(self, statements: list[Statement]) -> Iterator[str]:
        for statement in statements:
            yield from self.statement(statement)

    def statement(self, s: Statement) -> Iterator[str]:
        if isinstance(s, For):
            step = f" step {s.step}" if s.step != 1 else ""
            yield f"for {s.symbol.name} in {s.start}..{s.stop}{step}:"
        elif isinstance(s, Share):
            yield _share(s)
        elif isinstance(s, If):
            yield f"if {' and '.join(f'{e} > 0' for e in s.positive)}:"
        else:
            yield self.simple(s)
            return
        for line in self.body(s.body):
            yield "  " + line

    def simple(self, s: Statement) -> str:
        if isinstance(s, Let):
            return f"{_typed(s.var)} = {_operation(s)}"
        if isinstance(s, Shuffle):
            of = str(s.a) if s.b is None else f"{s.a}, {s.b}"
            return f"{_typed(s.var)} = shuffle({of})[{_order(s.order)}]"
        if isinstance(s, Index):
            return f"{_typed(s.var)} = index {_along(s.index, s.along)}"
        if isinstance(s, Tail):
            return f"{_typed(s.var)} = lane < {s.count}"
        if isinstance(s, Bind):
            return f"{s.symbol.name} = {s.value}"
        if isinstance(s, Load):
            return f"{_typed(s.var)} = {s.buffer}[{_along(s.index, s.along)}]{_where(s.mask)}"
        if isinstance(s, Store):
            sign = "=" if s.combine is None else _COMBINED[s.combine]
            return f"{s.buffer}[{_along(s.index, s.along)}] {sign} {s.value}{_where(s.mask)}"
        if isinstance(s, Assign):
            shown = str(s.var) if s.var in self.begun else _typed(s.var)
            self.begun.add(s.var)
            return f"{shown} := {s.value}"
        if isinstance(s, Check):
            return _check(s)
        if isinstance(s, Barrier):
            return "barrier"
        assert isinstance(s, Call)
        errors = f" with checks from {s.errors}" if s.errors else ""
        return f"call {s.program}({', '.join([*s.buffers, *map(str, s.sizes)])}){errors}"


_COMBINED = {"add": "+=", "mul": "*=", "minimum": "min=", "maximum": "max="}


def _typed(var: Var) -> str:
    lanes = f"x{var.lanes}" if var.lanes > 1 else ""
    return f"{var.name}: {SHORT[var.dtype]}{lanes}"


def _operation(s: Let) -> str:
    sign = _INFIX.get(s.op)
    if sign is not None:
        return f"{s.args[0]} {sign} {s.args[1]}"
    if s.op == "to_dtype":
        return f"{SHORT[s.var.dtype]}({s.args[0]})"
    return f"{s.op}({', '.join(map(str, s.args))})"


def _order(order: tuple[int, ...]) -> str:
    if len(order) > 2 and all(b == a + 1 for a, b in itertools.pairwise(order)):
        return f"{order[0]}..{order[-1] + 1}"
    return ", ".join("_" if i < 0 else str(i) for i in order)


def _along(e: Expr, along: Along) -> str:
    """An index as lane 0 of this copy sees it."""
    if along.symbol is not None and along.offset:
        e = e.substitute({along.symbol: along.symbol.expr + along.offset})
    return str(e)


def _where(mask: Var | None) -> str:
    return "" if mask is None else f" where {mask}"


def _check(s: Check) -> str:
    active = _where(s.mask)
    if s.kind == "holds":
        return f"check {s.value} else {s.number}{active}"
    assert s.var is not None
    if s.kind == "nonzero":
        return f"{_typed(s.var)} = check {s.value} != 0 else {s.number}{active}"
    assert s.bound is not None
    low = f"-({s.bound})" if s.wraps else "0"
    return f"{_typed(s.var)} = check {low} <= {s.value} < {_along(s.bound, s.along)} else {s.number}{active}"


def _share(s: Share) -> str:
    of = [f"{v.name} in 0..{v.size}" for v in s.loops]
    if s.blocks is not None:
        x = s.blocks
        of.append(f"{x.symbol.name} in {x.low.name}..{x.high.name} of {x.symbol.size} by {x.length}")
    who = "on the first thread" if s.serial else "shared by threads"
    return f"for {', '.join(of)} {who}:" if of else f"once, {who}:"
