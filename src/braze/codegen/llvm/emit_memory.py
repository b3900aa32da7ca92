"""Loads and stores: which machine access an index becomes, masks included.

Values of half types stay what they are in memory (16 bits) until they are converted; booleans are bytes in
memory and ``i1`` in registers.
"""

from __future__ import annotations

import torch

from braze.codegen.llvm.builder import I8, Type, Value, constant
from braze.codegen.llvm.emit_index import IndexEmitter, fits_32
from braze.codegen.llvm.emit_scope import Lanes
from braze.ops.dag import Node
from braze.runtime.expr import Expr

__all__ = ["MEMORY", "REGISTER", "MemoryEmitter"]

MEMORY: dict[torch.dtype, str] = {
    torch.float64: "double",
    torch.float32: "float",
    torch.float16: "i16",
    torch.bfloat16: "i16",
    torch.int64: "i64",
    torch.int32: "i32",
    torch.int16: "i16",
    torch.int8: "i8",
    torch.uint8: "i8",
    torch.bool: "i8",
}
"""How an element lies in memory, as an LLVM type."""

REGISTER: dict[torch.dtype, str] = {**MEMORY, torch.bool: "i1"}
"""How an element lies in a register."""


class MemoryEmitter(IndexEmitter):
    """Emits loads and stores."""

    def both(self, a: Value | None, b: Value | None) -> Value | None:
        """The conjunction of two masks, None meaning true."""
        if a is None or b is None:
            return b if a is None else a
        return self.fb.and_(a, b)

    def active(self, mask: Node | None, ctx: Lanes) -> Value | None:
        """The lanes in which a guarded access happens: those that exist and whose ``mask`` holds."""
        return self.both(ctx.mask, None if mask is None else self.vector(mask, ctx))

    def address(self, buffer: str, e: Expr, step: Expr, ctx: Lanes, back: int = 0) -> Value:
        """The address of lane 0 of this copy, ``back`` elements before it."""
        if not ctx.offset or not step.terms:
            return self.pointer(buffer, e, -back)
        if step.constant is not None:
            return self.pointer(buffer, e, step.constant * ctx.offset - back)
        first = self.pointer(buffer, e, -back)
        return self.fb.gep(first, self.scalar(step * ctx.offset), self.memory_elem(buffer))

    def pointers_of(self, buffer: str, e: Expr, ctx: Lanes) -> Value:
        """One address for each lane (a scalar for one lane)."""
        step = self.step(e, ctx)
        elem = self.memory_elem(buffer)
        if step is not None:
            first = self.address(buffer, e, step, ctx)
            if ctx.lanes == 1:
                return first
            k = step.constant
            if k is not None:
                width = "i32" if abs(k) * ctx.lanes < 2**31 else "i64"
                return self.fb.gep(
                    first, self.fb.vector_const(width, [k * i for i in range(ctx.lanes)]), elem
                )
            steps = self.fb.splat(self.scalar(step), ctx.lanes)
            return self.fb.gep(first, self.fb.mul(steps, self.fb.lane_ids(steps.type)), elem)
        uniform = tuple(t for t in e.terms if not t[0] or not self.expr_varies(Expr((t,)), ctx))
        varying = Expr(tuple(t for t in e.terms if t not in uniform))
        width = "i32" if fits_32(varying) else "i64"
        return self.fb.gep(self.pointer(buffer, Expr(uniform)), self.lanes_of(varying, ctx, width), elem)

    def load(self, buffer: str, e: Expr, mask: Node | None, ctx: Lanes, varies: bool) -> Value:
        """The elements at ``e``; zero and no access where ``mask`` is false. A scalar unless ``varies``."""
        fb = self.fb
        elem = self.memory_elem(buffer)
        if not varies:
            address = self.pointer(buffer, e)
            scalar = Type(elem)
            if mask is None:
                return fb.load(address, scalar)
            return fb.masked_load(address, scalar, self.get(mask, ctx))
        type = ctx.type(elem)
        active = self.active(mask, ctx)
        step = self.step(e, ctx)
        k = None if step is None else step.constant
        if step is not None and k == 0:
            return self._load_broadcast(self.address(buffer, e, step, ctx), type, active)
        if step is not None and (k == 1 or ctx.lanes == 1):
            address = self.address(buffer, e, step, ctx)
            return fb.load(address, type) if active is None else fb.masked_load(address, type, active)
        if step is not None and k == -1:
            address = self.address(buffer, e, step, ctx, back=ctx.lanes - 1)
            if active is None:
                return self._reversed(fb.load(address, type))
            return self._reversed(fb.masked_load(address, type, self._reversed(active)))
        if step is not None and k in (2, 3, 4) and active is None:
            return self._load_every(k, buffer, e, step, ctx, type)
        if type.bits < 32:
            return self._load_lanes(self.pointers_of(buffer, e, ctx), type, active)
        return fb.gather(self.pointers_of(buffer, e, ctx), type, active)

    def _load_every(self, k: int, buffer: str, e: Expr, step: Expr, ctx: Lanes, type: Type) -> Value:
        """Every k-th element out of k loads, the last of which ends with the last element wanted."""
        fb = self.fb
        n = ctx.lanes
        starts = [min(m * n, k * (n - 1) + 1 - n) for m in range(k)]
        total = fb.load(self.address(buffer, e, step, ctx), type)
        held = [i if k * i < n else -1 for i in range(n)]  # for each lane, where it is by now
        order = [k * i if k * i < n else -1 for i in range(n)]
        for m in range(1, k):
            part = fb.load(self.address(buffer, e, step, ctx, back=-starts[m]), type)
            for i in range(n):
                if held[i] < 0 and k * i - starts[m] < n:
                    held[i], order[i] = i, n + k * i - starts[m]
            total = fb.shuffle(total, part, order)
            order = list(held)
        return total

    def _load_broadcast(self, address: Value, type: Type, active: Value | None) -> Value:
        fb = self.fb
        if active is None:
            return fb.splat(fb.load(address, type.scalar), type.lanes)
        loaded = fb.masked_load(address, type.scalar, fb.any(active))
        return fb.select(active, fb.splat(loaded, type.lanes), fb.zero(type))

    def _load_lanes(self, pointers: Value, type: Type, active: Value | None) -> Value:
        """One load for each lane: there is no gather of narrow elements."""
        fb = self.fb
        total = fb.zero(type)
        for lane in range(type.lanes):
            address = fb.extract(pointers, lane)
            if active is None:
                item = fb.load(address, type.scalar)
            else:
                item = fb.masked_load(address, type.scalar, fb.extract(active, lane))
            total = fb.insert(total, item, lane)
        return total

    def _reversed(self, value: Value) -> Value:
        lanes = value.type.lanes
        return self.fb.shuffle(value, None, range(lanes - 1, -1, -1))

    def store(self, buffer: str, e: Expr, value: Value, mask: Node | None, ctx: Lanes) -> None:
        """Write ``value`` (in the buffer's memory type, a scalar or as many lanes as ``ctx`` has) to
        ``e``."""
        fb = self.fb
        step = self.step(e, ctx)
        k = None if step is None else step.constant
        if ctx.lanes == 1 or (step is not None and k == 0):
            # Every lane writes one element; the last one would win, and all agree.
            active = self.active(mask, ctx)
            address = self.pointers_of(buffer, e, ctx) if ctx.lanes == 1 else self.pointer(buffer, e)
            if active is None:
                fb.store(fb.extract(value, ctx.lanes - 1), address)
            elif ctx.lanes == 1:
                fb.masked_store(value, address, active)
            else:
                self._store_lanes(value, fb.splat(address, ctx.lanes), active)
            return
        active = self.active(mask, ctx)
        if step is not None and k == 1:
            address = self.address(buffer, e, step, ctx)
            if active is None:
                fb.store(value, address)
            else:
                fb.masked_store(value, address, active)
        elif step is not None and k == -1:
            address = self.address(buffer, e, step, ctx, back=ctx.lanes - 1)
            if active is None:
                fb.store(self._reversed(value), address)
            else:
                fb.masked_store(self._reversed(value), address, self._reversed(active))
        elif value.type.bits < 32:
            self._store_lanes(value, self.pointers_of(buffer, e, ctx), active)
        else:
            fb.scatter(value, self.pointers_of(buffer, e, ctx), active)

    def _store_lanes(self, value: Value, pointers: Value, active: Value | None) -> None:
        fb = self.fb
        for lane in range(value.type.lanes):
            address, item = fb.extract(pointers, lane), fb.extract(value, lane)
            if active is None:
                fb.store(item, address)
            else:
                fb.masked_store(item, address, fb.extract(active, lane))

    def to_memory(self, value: Value) -> Value:
        """Booleans as bytes; everything else lies in memory as in a register."""
        return self.fb.zext(value, I8.elem) if value.type.elem == "i1" else value

    def from_memory(self, value: Value, dtype: torch.dtype) -> Value:
        """Bytes as booleans."""
        if dtype is torch.bool:
            return self.fb.icmp("ne", value, constant(value.type, 0))
        return value
