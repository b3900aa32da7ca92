"""Index arithmetic: integer expressions as scalars, as steps between lanes, and as vectors of integers.

A scalar sum is emitted outermost loop first, each partial sum at its own level, so what does not change in
a loop is computed before it. Along lanes an index is *linear* where consecutive lanes differ by one uniform
step: then lane 0 and the step are all that memory access needs. ``i // k`` and ``i % k`` stay linear where
a block of lanes never crosses a multiple of ``k``.
"""

from __future__ import annotations

from braze.codegen.llvm.builder import I64, Value, constant
from braze.codegen.llvm.emit_scope import Lanes, ScopeEmitter
from braze.ops.dag import IndirectSymbol
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
    as_expr,
    known_nonnegative,
)

__all__ = ["IndexEmitter", "fits_32", "lane_step"]

_INT32 = 2**31 - 1


def fits_32(e: Expr) -> bool:
    """Whether the value, and every operand of a division in it, lies in the range of int32."""
    lo, hi = e.bounds()
    if lo is None or hi is None or lo < -_INT32 or hi > _INT32:
        return False
    return all(fits_32(part) for atom in e.atoms() for part in atom.parts)


def lane_step(e: Expr, var: Symbol, group: int) -> Expr | None:
    """How much ``e`` grows from one value of ``var`` to the next; None where that is not the same
    throughout a group.

    A group are the values of ``var`` from a multiple of ``group`` up to the next one. Indirect symbols
    count as constant if they don't depend on ``var``.
    """
    total = ZERO
    for mono, c in e.terms:
        step: Expr | None = None
        for position, atom in enumerate(mono):
            s = _atom_step(atom, var, group)
            if s is None or (step is not None and s.terms):
                return None
            if s.terms:
                step = Expr(((mono[:position] + mono[position + 1 :], c),)) * s
        if step is not None:
            total = total + step
    return total


def _atom_step(atom: Atom, var: Symbol, group: int) -> Expr | None:
    if isinstance(atom, Symbol):
        if isinstance(atom, IndirectSymbol):
            return None if var in atom.node.free else ZERO
        return ONE if atom == var else ZERO
    steps = [lane_step(p, var, group) for p in atom.parts]
    if any(s is None for s in steps):
        return None
    if all(not s.terms for s in steps if s is not None):
        return ZERO
    if not isinstance(atom, FloorDiv | Mod) or group == 1:
        return ONE if group == 1 else None  # a group of one: any step will do, it is never taken
    assert steps[0] is not None
    step, den = steps[0].constant, atom.den.constant
    if step is None or den is None or step <= 0:
        return None
    block = step * group
    for mono, c in atom.num.terms:
        c = c if mono != (var,) else c // step * block
        if c % block:
            return None
    if den % block:
        return None
    return ZERO if isinstance(atom, FloorDiv) else as_expr(step)


class IndexEmitter(ScopeEmitter):
    """Emits index expressions."""

    # -- scalars ----------------------------------------------------------------------------------------
    def scalar(self, e: Expr, ctx: Lanes | None = None) -> Value:
        """The value of ``e`` (at lane 0 of the first copy of a group), as a scalar i64."""
        if e.constant is not None:
            return constant(I64, e.constant)
        found = self.scalars.get(e)
        if found is None:
            found = self._scalar(e)
            self.remember(self.scalars, e, found)
        return found

    def split_by_level(self, e: Expr) -> tuple[Expr, Expr, int]:
        """``(outer, inner, constant)`` with their sum ``e``: ``inner`` are the terms of the deepest level."""
        levels: list[int] = []
        number = 0
        for mono, c in e.terms:
            if not mono:
                number = c
            levels.append(max((self._atom_level(a) for a in mono), default=-1))
        deepest = max(levels)
        inner = tuple(t for t, level in zip(e.terms, levels, strict=True) if level == deepest and t[0])
        outer = tuple(t for t, level in zip(e.terms, levels, strict=True) if level != deepest and t[0])
        return Expr(outer), Expr(inner), number

    def _atom_level(self, atom: Atom) -> int:
        if isinstance(atom, Symbol):
            return self.symbol_level(atom)
        return max((self.expr_level(p) for p in atom.parts), default=0)

    def _scalar(self, e: Expr) -> Value:
        outer, inner, number = self.split_by_level(e)
        if number:
            return self.fb.add(self.scalar(e - number), number)
        if outer.terms:
            return self.fb.add(self.scalar(outer), self.scalar(inner))
        total: Value | None = None
        for mono, c in inner.terms:
            term = self._scalar_product(mono)
            if c == -1 and total is not None:
                total = self.fb.sub(total, term)
                continue
            if c != 1:
                term = self.fb.mul(term, c)
            total = term if total is None else self.fb.add(total, term)
        assert total is not None
        return total

    def _scalar_product(self, mono: tuple[Atom, ...]) -> Value:
        # outermost factors first, so that their product is computed outside
        total: Value | None = None
        for atom in sorted(mono, key=self._atom_level):
            value = self._scalar_atom(atom)
            total = value if total is None else self.fb.mul(total, value)
        assert total is not None
        return total

    def _scalar_atom(self, atom: Atom) -> Value:
        if isinstance(atom, IndirectSymbol):
            return self.values[atom.node.id]
        if isinstance(atom, Symbol):
            return self.bound[atom][1]
        e = Expr((((atom,), 1),))
        found = self.scalars.get(e)
        if found is None:
            found = self._divide(atom, [self.scalar(p) for p in atom.parts])
            self.remember(self.scalars, e, found)
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
    def step(self, e: Expr, ctx: Lanes) -> Expr | None:
        """How much ``e`` grows from lane to lane; None where it is not linear in the lane."""
        if ctx.var is None:
            return ZERO
        return lane_step(e, ctx.var, ctx.group)

    def lanes_of(self, e: Expr, ctx: Lanes, elem: str) -> Value:
        """``e`` as a vector of ``elem`` integers (i32 or i64), one for each lane."""
        fb = self.fb
        if not self.expr_varies(e, ctx):
            value = self.scalar(e)
            return fb.splat(value if elem == "i64" else fb.trunc(value, elem), ctx.lanes)
        key = (e.key, elem)
        found = ctx.vectors.get(key)
        if found is None:
            step = self.step(e, ctx)
            found = (
                self._lanes_linear(e, step, ctx, elem) if step is not None else self._lanes_sum(e, ctx, elem)
            )
            self.remember(ctx.vectors, key, found)
        return found

    def _lanes_linear(self, e: Expr, step: Expr, ctx: Lanes, elem: str) -> Value:
        fb = self.fb
        start = self.scalar(e)
        k = step.constant
        if ctx.offset:
            start = fb.add(start, fb.mul(self.scalar(step), ctx.offset) if k is None else k * ctx.offset)
        start = fb.splat(fb.trunc(start, elem), ctx.lanes)
        if ctx.lanes == 1 or k == 0:
            return start
        if k is not None:
            return fb.add(start, fb.vector_const(elem, [k * lane for lane in range(ctx.lanes)]))
        steps = fb.splat(fb.trunc(self.scalar(step), elem), ctx.lanes)
        return fb.add(start, fb.mul(steps, fb.lane_ids(start.type)))

    def _lanes_sum(self, e: Expr, ctx: Lanes, elem: str) -> Value:
        fb = self.fb
        uniform = [t for t in e.terms if not self.expr_varies(Expr((t,)), ctx)]
        total: Value | None = None
        for mono, c in e.terms:
            if (mono, c) in uniform:
                continue
            still = [a for a in mono if not self._atom_varies(a, ctx)]
            factor = Expr(((tuple(still), c),))
            term: Value | None = None
            for atom in mono:
                if self._atom_varies(atom, ctx):
                    value = self._lanes_atom(atom, ctx, elem)
                    term = value if term is None else fb.mul(term, value)
            assert term is not None
            if factor.constant is None:
                term = fb.mul(term, fb.splat(fb.trunc(self.scalar(factor), elem), ctx.lanes))
            elif factor.constant != 1:
                term = fb.mul(term, factor.constant)
            total = term if total is None else fb.add(total, term)
        assert total is not None
        if uniform:
            total = fb.add(total, self.lanes_of(Expr(tuple(uniform)), ctx, elem))
        return total

    def _atom_varies(self, atom: Atom, ctx: Lanes) -> bool:
        return self.expr_varies(Expr((((atom,), 1),)), ctx)

    def _lanes_atom(self, atom: Atom, ctx: Lanes, elem: str) -> Value:
        if isinstance(atom, IndirectSymbol):
            return self.fb.trunc(self.vector(atom.node, ctx), elem)
        if isinstance(atom, Symbol):
            return self._lanes_linear(atom.expr, ONE, ctx, elem)
        e = Expr((((atom,), 1),))
        key = (e.key, elem)
        found = ctx.vectors.get(key)
        if found is None:
            parts = [self.lanes_of(p, ctx, elem) for p in atom.parts]
            den = atom.den if isinstance(atom, FloorDiv | Mod) else ONE
            found = (
                self._divide(atom, parts) if den.constant is not None else self._divide_wide(atom, parts, ctx)
            )
            self.remember(ctx.vectors, key, found)
        return found

    def _divide_wide(self, atom: Atom, parts: list[Value], ctx: Lanes) -> Value:
        """Division by a run-time value. Vectors have no divider; below 2^31 a double's quotient is exact,
        since it is at least 2^-31 away from the integer above it."""
        assert isinstance(atom, FloorDiv | Mod)
        fb = self.fb
        num, den = parts
        if num.type.elem != "i32" or ctx.lanes == 1:
            return self._divide(atom, parts)
        quotient = fb.fdiv(fb.sitofp(num, "double"), fb.sitofp(den, "double"))
        whole = fb.fptosi(fb.floor(quotient), "i32")
        return whole if isinstance(atom, FloorDiv) else fb.sub(num, fb.mul(whole, den))

    # -- addresses --------------------------------------------------------------------------------------
    def base_pointer(self, buffer: str) -> Value:
        """The address of a buffer's first element."""
        raise NotImplementedError

    def memory_elem(self, buffer: str) -> str:
        """The LLVM type of a buffer's elements in memory."""
        raise NotImplementedError

    def pointer(self, buffer: str, e: Expr, extra: int = 0) -> Value:
        """The address of element ``e + extra`` (lane 0 of the first copy), partial sums at their own
        levels."""
        number = 0
        if e.terms and not e.terms[-1][0]:
            number = e.terms[-1][1]
            e = Expr(e.terms[:-1])
        address = self._pointer(buffer, e)
        if number + extra:
            address = self.fb.gep(address, self.i64(number + extra), self.memory_elem(buffer))
        return address

    def _pointer(self, buffer: str, e: Expr) -> Value:
        if not e.terms:
            return self.base_pointer(buffer)
        key = (buffer, e)
        found = self.pointers.get(key)
        if found is None:
            outer, inner, _ = self.split_by_level(e)
            base = self._pointer(buffer, outer)
            found = self.fb.gep(base, self.scalar(inner), self.memory_elem(buffer))
            self.remember(self.pointers, key, found)
        return found

    def prepare_pointer(self, buffer: str, e: Expr) -> None:
        """Emit now as much of an address as the bound variables allow."""
        terms = tuple(t for t in e.terms if t[0] and self._is_bound(t[0]))
        if terms:
            self._pointer(buffer, Expr(terms))

    def _is_bound(self, mono: tuple[Atom, ...]) -> bool:
        for atom in mono:
            if isinstance(atom, IndirectSymbol):
                if atom.node.id not in self.values:
                    return False
            elif isinstance(atom, Symbol):
                if atom not in self.bound:
                    return False
            elif not all(self._is_bound(m) for p in atom.parts for m, _ in p.terms):
                return False
        return True
