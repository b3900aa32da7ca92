"""Loads and stores: which machine access an index becomes, masks included.

Values of half types stay what they are in memory (16 bits) until they are converted; booleans are bytes in
memory and ``i1`` in registers.
"""

from __future__ import annotations

import torch

from braze.codegen.llvm.builder import I8, Type, Value, constant
from braze.codegen.llvm.convert import convert
from braze.codegen.llvm.indices import Indices, step_along
from braze.codegen.llvm.operations import compute
from braze.codegen.program.grammar import LANE, Along, Load, Store
from braze.codegen.program.steps import fits_32
from braze.ops.dtypes import compute_dtype
from braze.runtime.expr import ONE, Expr

__all__ = ["MEMORY", "alternate", "load", "store", "store_alternately"]

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


class _Place:
    """Where an access happens: ``step`` from lane to lane, None where there is no one step."""

    def __init__(self, ix: Indices, buffer: str, e: Expr, along: Along) -> None:
        self.ix = ix
        self.buffer = buffer
        self.step = step_along(e, along)
        self.e = e.substitute({LANE: 0}) if along.symbol is LANE else e
        self.along = along
        self.elem = ix.bases[buffer][1]

    def address(self, back: int = 0) -> Value:
        """That of lane 0 of this copy, ``back`` elements before it."""
        step, offset = self.step, self.along.offset
        assert step is not None
        if not offset or not step.terms:
            return self.ix.pointer(self.buffer, self.e, -back)
        if step.constant is not None:
            return self.ix.pointer(self.buffer, self.e, step.constant * offset - back)
        first = self.ix.pointer(self.buffer, self.e, -back)
        return self.ix.fb.gep(first, self.ix.scalar(step * offset), self.elem)

    def addresses(self) -> Value:
        """One for each lane (a scalar for one lane)."""
        ix, fb, lanes = self.ix, self.ix.fb, self.along.lanes
        if self.step is not None:
            first = self.address()
            if lanes == 1:
                return first
            k = self.step.constant
            if k is not None:
                width = "i32" if abs(k) * lanes < 2**31 else "i64"
                return fb.gep(first, fb.vector_const(width, [k * i for i in range(lanes)]), self.elem)
            steps = fb.splat(ix.scalar(self.step), lanes)
            return fb.gep(first, fb.mul(steps, fb.lane_ids(steps.type)), self.elem)
        e = self.e
        uniform = tuple(t for t in e.terms if not t[0] or not ix.varies(Expr((t,)), self.along))
        varying = Expr(tuple(t for t in e.terms if t not in uniform))
        width = "i32" if fits_32(varying) else "i64"
        index = ix.lanes(varying, self.along, width)
        return fb.gep(ix.pointer(self.buffer, Expr(uniform)), index, self.elem)


def _reversed(ix: Indices, value: Value) -> Value:
    return ix.fb.shuffle(value, None, range(value.type.lanes - 1, -1, -1))


def load(ix: Indices, s: Load) -> Value:
    """The elements; zero and no access where the mask is false."""
    loaded = _load(ix, s, None if s.mask is None else ix.values[s.mask])
    if s.var.dtype is torch.bool:
        return ix.fb.icmp("ne", loaded, constant(loaded.type, 0))
    return loaded


def _load(ix: Indices, s: Load, active: Value | None) -> Value:
    fb, along = ix.fb, s.along
    place = _Place(ix, s.buffer, s.index, along)
    type = Type(place.elem, along.lanes)
    k = None if place.step is None else place.step.constant
    if place.step is not None and k == 0 and along.lanes > 1:
        return _load_broadcast(ix, place.address(), type, active)
    if place.step is not None and (k == 1 or along.lanes == 1):
        address = place.address()
        return fb.load(address, type) if active is None else fb.masked_load(address, type, active)
    if k == -1:
        address = place.address(back=along.lanes - 1)
        if active is None:
            return _reversed(ix, fb.load(address, type))
        return _reversed(ix, fb.masked_load(address, type, _reversed(ix, active)))
    if k in (2, 3, 4) and active is None:
        return _load_every(ix, k, place, type)
    if type.bits < 32:
        return _load_lanes(ix, place.addresses(), type, active)
    return fb.gather(place.addresses(), type, active)


def _load_every(ix: Indices, k: int, place: _Place, type: Type) -> Value:
    """Every k-th element out of k loads, the last of which ends with the last element wanted."""
    fb, n = ix.fb, type.lanes
    starts = [min(m * n, k * (n - 1) + 1 - n) for m in range(k)]
    total = fb.load(place.address(), type)
    held = [i if k * i < n else -1 for i in range(n)]  # for each lane, where it is by now
    order = [k * i if k * i < n else -1 for i in range(n)]
    for m in range(1, k):
        part = fb.load(place.address(back=-starts[m]), type)
        for i in range(n):
            if held[i] < 0 and k * i - starts[m] < n:
                held[i], order[i] = i, n + k * i - starts[m]
        total = fb.shuffle(total, part, order)
        order = list(held)
    return total


def _load_broadcast(ix: Indices, address: Value, type: Type, active: Value | None) -> Value:
    fb = ix.fb
    if active is None:
        return fb.splat(fb.load(address, type.scalar), type.lanes)
    loaded = fb.masked_load(address, type.scalar, fb.any(active))
    return fb.select(active, fb.splat(loaded, type.lanes), fb.zero(type))


def _load_lanes(ix: Indices, pointers: Value, type: Type, active: Value | None) -> Value:
    """One load for each lane: there is no gather of narrow elements."""
    fb = ix.fb
    total = fb.zero(type)
    for lane in range(type.lanes):
        address = fb.extract(pointers, lane)
        if active is None:
            item = fb.load(address, type.scalar)
        else:
            item = fb.masked_load(address, type.scalar, fb.extract(active, lane))
        total = fb.insert(total, item, lane)
    return total


def store(ix: Indices, s: Store, dtype: torch.dtype) -> None:
    """Write, or join to what is there, the elements whose mask is true; those in memory are of ``dtype``."""
    fb = ix.fb
    value = _in_memory(ix, s)
    active = None if s.mask is None else ix.values[s.mask]
    place = _Place(ix, s.buffer, s.index, s.along)
    if s.combine is not None:
        _combine(ix, s.combine, place, value, dtype, active)
        return
    k = None if place.step is None else place.step.constant
    if s.along.lanes == 1:
        address = place.addresses()
        if active is None:
            fb.store(value, address)
        else:
            fb.masked_store(value, address, active)
    elif k == 0:  # every lane writes one element; the last one wins, and all agree
        address = place.address()
        if active is None:
            fb.store(fb.extract(value, s.along.lanes - 1), address)
        else:
            _store_lanes(ix, value, fb.splat(address, s.along.lanes), active)
    elif k == 1:
        address = place.address()
        if active is None:
            fb.store(value, address)
        else:
            fb.masked_store(value, address, active)
    elif k == -1:
        address = place.address(back=s.along.lanes - 1)
        if active is None:
            fb.store(_reversed(ix, value), address)
        else:
            fb.masked_store(_reversed(ix, value), address, _reversed(ix, active))
    elif value.type.bits < 32:
        _store_lanes(ix, value, place.addresses(), active)
    else:
        fb.scatter(value, place.addresses(), active)


def _in_memory(ix: Indices, s: Store) -> Value:
    value = ix.values[s.value]
    return ix.fb.zext(value, I8.elem) if value.type.elem == "i1" else value


def alternate(first: Store, second: Store) -> bool:
    """Whether two stores fill the even and the odd places of one stretch of memory."""
    if first.along.lanes == 1 or first.combine is not None or second.combine is not None:
        return False
    if (first.buffer, first.along, first.mask) != (second.buffer, second.along, second.mask):
        return False
    step = step_along(first.index, first.along)
    return step is not None and step.constant == 2 and second.index - first.index == ONE


def store_alternately(ix: Indices, first: Store, second: Store) -> None:
    """Two stores of which that is so, as one."""
    fb, lanes = ix.fb, first.along.lanes
    places = [place for i in range(lanes) for place in (i, lanes + i)]
    value = fb.shuffle(_in_memory(ix, first), _in_memory(ix, second), places)
    address = _Place(ix, first.buffer, first.index, first.along).address()
    if first.mask is None:
        fb.store(value, address)
        return
    active = ix.values[first.mask]
    fb.masked_store(value, address, fb.shuffle(active, active, places))


def _store_lanes(ix: Indices, value: Value, pointers: Value, active: Value | None) -> None:
    fb = ix.fb
    for lane in range(value.type.lanes):
        address, item = fb.extract(pointers, lane), fb.extract(value, lane)
        if active is None:
            fb.store(item, address)
        else:
            fb.masked_store(item, address, fb.extract(active, lane))


def _combine(
    ix: Indices, op: str, place: _Place, value: Value, dtype: torch.dtype, active: Value | None
) -> None:
    fb, lanes = ix.fb, place.along.lanes
    if lanes == 1:
        address = place.addresses()
        if active is None:
            _combine_at(ix, op, address, value, dtype, None)
            return
        with fb.if_then(active, op):
            _combine_at(ix, op, address, value, dtype, None)
        return
    if place.step is not None and place.step.constant == 1:
        _combine_at(ix, op, place.address(), value, dtype, active)
        return
    pointers = place.addresses()
    for lane in range(lanes):
        item, at = fb.extract(value, lane), fb.extract(pointers, lane)
        if active is None:
            _combine_at(ix, op, at, item, dtype, None)
            continue
        with fb.if_then(fb.extract(active, lane), op):
            _combine_at(ix, op, at, item, dtype, None)


_OF_BYTES = {"add": "logical_or", "mul": "logical_and", "minimum": "logical_and", "maximum": "logical_or"}
"""What the operations are on booleans, each a byte in memory."""


def _combine_at(
    ix: Indices, op: str, address: Value, value: Value, dtype: torch.dtype, active: Value | None
) -> None:
    fb, type = ix.fb, value.type
    old = fb.load(address, type) if active is None else fb.masked_load(address, type, active)
    wide = compute_dtype(dtype)
    operands = [convert(fb, v, dtype, wide) for v in (value, old)]  # of equal zeros the old one stays
    total = compute(fb, _OF_BYTES[op] if dtype is torch.bool else op, wide, operands, wide)
    total = convert(fb, total, wide, dtype)
    if active is None:
        fb.store(total, address)
    else:
        fb.masked_store(total, address, active)
