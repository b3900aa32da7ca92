"""Index arithmetic: integer expressions as scalars, as vectors of integers, and as addresses.

A scalar sum is computed outermost loop first, each partial sum in the block where its last part gets a value,
so what does not change in a loop is computed before it.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

from braze.codegen.llvm.builder import I64, FunctionBuilder, Value, constant
from braze.codegen.program.grammar import Along, ValueSymbol, Var
from braze.codegen.program.steps import lane_step, varies
from braze.errors import InternalError
from braze.runtime.expr import (
    ONE,
    ZERO,
    Atom,
    Expr,
    FloorDiv,
    Max,
    Min,
    Mod,
    Symbol,
    known_nonnegative,
)

__all__ = ["Indices", "number", "step_along"]


def number(value: int) -> Value:
    """An i64 constant."""
    return constant(I64, value)


def step_along(e: Expr, along: Along) -> Expr | None:
    """How much ``e`` grows from lane to lane; None where it is not linear in the lane."""
    return ZERO if along.symbol is None else lane_step(e, along.symbol, along.group)


class Indices:
    """What symbols and vars are, here, and what was computed of them; it forgets at the end of a block.

    ``bound``: for each symbol the level of the block that gave it its value, and the value; ``values``: those
    of vars, ``levels`` their levels.
    """

    def __init__(self, fb: FunctionBuilder) -> None:
        self.fb = fb
        self.level = 0
        self.bound: dict[Symbol, tuple[int, Value]] = {}
        self.values: dict[Var, Value] = {}
        self.levels: dict[Var, int] = {}
        self.bases: dict[str, tuple[Value, str]] = {}
        self._scalars: dict[Expr, Value] = {}
        self._pointers: dict[tuple[str, Expr], Value] = {}
        self._vectors: dict[tuple[Expr, str, Along], Value] = {}
        self._log: list[tuple[MutableMapping[Any, Any], Any]] = []

    # -- remembering ------------------------------------------------------------------------------------
    def remember(self, table: MutableMapping[Any, Any], key: Any, value: Any) -> None:
        """``table[key] = value`` until the current block ends."""
        if key not in table:
            self._log.append((table, key))
        table[key] = value

    def define(self, var: Var, value: Value) -> None:
        """``var`` has ``value`` from here on."""
        self.remember(self.values, var, value)
        self.remember(self.levels, var, self.level)

    def bind(self, symbol: Symbol, value: Value) -> None:
        """``symbol`` has ``value`` (i64) from here on."""
        self.remember(self.bound, symbol, (self.level, value))

    @contextmanager
    def block(self) -> Iterator[None]:
        """What is remembered inside is forgotten at the end."""
        mark = len(self._log)
        self.level += 1
        yield
        self.level -= 1
        for table, key in reversed(self._log[mark:]):
            table.pop(key, None)
        del self._log[mark:]

    # -- questions --------------------------------------------------------------------------------------
    def varies(self, e: Expr, along: Along) -> bool:
        """Whether an index differs between lanes."""
        symbol = along.symbol
        return symbol is not None and any(varies(s, symbol) for s in e.free_symbols)

    def _atom_level(self, atom: Atom) -> int:
        if isinstance(atom, ValueSymbol):
            return self.levels.get(atom.var, self.level)
        if isinstance(atom, Symbol):
            try:
                return self.bound[atom][0]
            except KeyError:
                raise InternalError(f"loop variable {atom.name} is used outside its loop") from None
        return max([self._atom_level(s) for p in atom.parts for s in p.free_symbols], default=0)

    def _is_bound(self, mono: tuple[Atom, ...]) -> bool:
        for atom in mono:
            if isinstance(atom, ValueSymbol):
                if atom.var not in self.values:
                    return False
            elif isinstance(atom, Symbol):
                if atom not in self.bound:
                    return False
            elif not all(self._is_bound(m) for p in atom.parts for m, _ in p.terms):
                return False
        return True

    # -- scalars ----------------------------------------------------------------------------------------
    def scalar(self, e: Expr) -> Value:
        """The value of ``e`` (at lane 0 of the first copy of a group), as a scalar i64."""
        if e.constant is not None:
            return number(e.constant)
        found = self._scalars.get(e)
        if found is None:
            found = self._scalar(e)
            self.remember(self._scalars, e, found)
        return found

    def _split_by_level(self, e: Expr) -> tuple[Expr, Expr, int]:
        """``(outer, inner, constant)`` with their sum ``e``: ``inner`` are the terms of the deepest level."""
        levels: list[int] = []
        fixed = 0
        for mono, c in e.terms:
            if not mono:
                fixed = c
            levels.append(max((self._atom_level(a) for a in mono), default=-1))
        deepest = max(levels)
        inner = tuple(t for t, level in zip(e.terms, levels, strict=True) if level == deepest and t[0])
        outer = tuple(t for t, level in zip(e.terms, levels, strict=True) if level != deepest and t[0])
        return Expr(outer), Expr(inner), fixed

    def _scalar(self, e: Expr) -> Value:
        outer, inner, fixed = self._split_by_level(e)
        if fixed:
            return self.fb.add(self.scalar(e - fixed), fixed)
        if outer.terms:
            return self.fb.add(self.scalar(outer), self.scalar(inner))
        total: Value | None = None
        for mono, c in inner.terms:
            term = self._product(mono)
            if c == -1 and total is not None:
                total = self.fb.sub(total, term)
                continue
            if c != 1:
                term = self.fb.mul(term, c)
            total = term if total is None else self.fb.add(total, term)
        assert total is not None
        return total

    def _product(self, mono: tuple[Atom, ...]) -> Value:
        # outermost factors first, so that their product is computed outside
        total: Value | None = None
        for atom in sorted(mono, key=self._atom_level):
            value = self._atom(atom)
            total = value if total is None else self.fb.mul(total, value)
        assert total is not None
        return total

    def _atom(self, atom: Atom) -> Value:
        if isinstance(atom, ValueSymbol):
            return self.values[atom.var]
        if isinstance(atom, Symbol):
            return self.bound[atom][1]
        e = Expr((((atom,), 1),))
        found = self._scalars.get(e)
        if found is None:
            found = self._divide(atom, [self.scalar(p) for p in atom.parts])
            self.remember(self._scalars, e, found)
        return found

    def _divide(self, atom: Atom, parts: list[Value]) -> Value:
        """A floor division, remainder, minimum or maximum of scalars or vectors."""
        fb = self.fb
        if isinstance(atom, Min | Max):
            total = parts[0]
            for p in parts[1:]:
                total = fb.integer_minmax("smin" if isinstance(atom, Min) else "smax", total, p)
            return total
        assert isinstance(atom, FloorDiv | Mod)
        num, den = parts
        k = atom.den.constant
        quotient = isinstance(atom, FloorDiv)
        if k is not None and k & (k - 1) == 0:
            return fb.ashr(num, k.bit_length() - 1) if quotient else fb.and_(num, k - 1)
        if known_nonnegative(atom.num):
            return fb.udiv(num, den) if quotient else fb.urem(num, den)
        rest = fb.srem(num, den)
        negative = fb.icmp("slt", rest, 0)
        if quotient:
            return fb.add(fb.sdiv(num, den), fb.sext(negative, num.type.elem))
        return fb.add(rest, fb.select(negative, den, fb.zero(den.type)))

    # -- lanes ------------------------------------------------------------------------------------------
    def lanes(self, e: Expr, along: Along, elem: str) -> Value:
        """``e`` as a vector of ``elem`` integers (i32 or i64), one for each lane."""
        fb = self.fb
        if not self.varies(e, along):
            value = self.scalar(e)
            return fb.splat(value if elem == "i64" else fb.trunc(value, elem), along.lanes)
        key = (e, elem, along)
        found = self._vectors.get(key)
        if found is None:
            step = step_along(e, along)
            found = self._sum(e, along, elem) if step is None else self._linear(e, step, along, elem)
            self.remember(self._vectors, key, found)
        return found

    def _linear(self, e: Expr, step: Expr, along: Along, elem: str) -> Value:
        fb = self.fb
        start = self.scalar(e)
        k = step.constant
        if along.offset:
            start = fb.add(start, fb.mul(self.scalar(step), along.offset) if k is None else k * along.offset)
        start = fb.splat(fb.trunc(start, elem), along.lanes)
        if along.lanes == 1 or k == 0:
            return start
        if k is not None:
            return fb.add(start, fb.vector_const(elem, [k * lane for lane in range(along.lanes)]))
        steps = fb.splat(fb.trunc(self.scalar(step), elem), along.lanes)
        return fb.add(start, fb.mul(steps, fb.lane_ids(start.type)))

    def _sum(self, e: Expr, along: Along, elem: str) -> Value:
        fb = self.fb
        uniform = [t for t in e.terms if not self.varies(Expr((t,)), along)]
        total: Value | None = None
        for mono, c in e.terms:
            if (mono, c) in uniform:
                continue
            still = [a for a in mono if not self._atom_varies(a, along)]
            factor = Expr(((tuple(still), c),))
            term: Value | None = None
            for atom in mono:
                if self._atom_varies(atom, along):
                    value = self._lanes_of_atom(atom, along, elem)
                    term = value if term is None else fb.mul(term, value)
            assert term is not None
            if factor.constant is None:
                term = fb.mul(term, fb.splat(fb.trunc(self.scalar(factor), elem), along.lanes))
            elif factor.constant != 1:
                term = fb.mul(term, factor.constant)
            total = term if total is None else fb.add(total, term)
        assert total is not None
        if uniform:
            total = fb.add(total, self.lanes(Expr(tuple(uniform)), along, elem))
        return total

    def _atom_varies(self, atom: Atom, along: Along) -> bool:
        return self.varies(Expr((((atom,), 1),)), along)

    def _lanes_of_atom(self, atom: Atom, along: Along, elem: str) -> Value:
        if isinstance(atom, ValueSymbol):
            return self.fb.trunc(self.values[atom.var], elem)
        if isinstance(atom, Symbol):
            return self._linear(atom.expr, ONE, along, elem)
        e = Expr((((atom,), 1),))
        key = (e, elem, along)
        found = self._vectors.get(key)
        if found is None:
            parts = [self.lanes(p, along, elem) for p in atom.parts]
            den = atom.den if isinstance(atom, FloorDiv | Mod) else ONE
            wide = den.constant is None and elem == "i32" and along.lanes > 1
            found = self._divide_wide(atom, parts) if wide else self._divide(atom, parts)
            self.remember(self._vectors, key, found)
        return found

    def _divide_wide(self, atom: Atom, parts: list[Value]) -> Value:
        """Division by a run-time value. Vectors have no divider; below 2^31 a double's quotient is exact,
        since it is at least 2^-31 away from the integer above it."""
        assert isinstance(atom, FloorDiv | Mod)
        fb = self.fb
        num, den = parts
        quotient = fb.fdiv(fb.sitofp(num, "double"), fb.sitofp(den, "double"))
        whole = fb.fptosi(fb.floor(quotient), "i32")
        return whole if isinstance(atom, FloorDiv) else fb.sub(num, fb.mul(whole, den))

    # -- addresses --------------------------------------------------------------------------------------
    def pointer(self, buffer: str, e: Expr, extra: int = 0) -> Value:
        """The address of element ``e + extra`` (lane 0 of the first copy), partial sums at their own
        levels."""
        fixed = 0
        if e.terms and not e.terms[-1][0]:
            fixed = e.terms[-1][1]
            e = Expr(e.terms[:-1])
        address = self._pointer(buffer, e)
        if fixed + extra:
            address = self.fb.gep(address, number(fixed + extra), self.bases[buffer][1])
        return address

    def _pointer(self, buffer: str, e: Expr) -> Value:
        base, elem = self.bases[buffer]
        if not e.terms:
            return base
        key = (buffer, e)
        found = self._pointers.get(key)
        if found is None:
            outer, inner, _ = self._split_by_level(e)
            found = self.fb.gep(self._pointer(buffer, outer), self.scalar(inner), elem)
            self.remember(self._pointers, key, found)
        return found

    def prepare(self, buffer: str, e: Expr) -> None:
        """Compute now as much of an address as has values."""
        if any(isinstance(s, ValueSymbol) and s.var.lanes > 1 for s in e.free_symbols):
            return  # a gather has an address in every lane
        terms = tuple([t for t in e.terms if t[0] and self._is_bound(t[0])])
        if terms:
            self._pointer(buffer, Expr(terms))
