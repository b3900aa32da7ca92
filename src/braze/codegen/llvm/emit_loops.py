"""Loops: a thread's share of the iterations, loops over scalars, and loops over lanes with their tails."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from braze.codegen.llvm.builder import I64, Type, Value
from braze.codegen.llvm.emit_scope import Lanes
from braze.codegen.llvm.emit_values import ValueEmitter
from braze.codegen.llvm.plan import StagePlan
from braze.runtime.expr import Symbol, known_positive, product

__all__ = ["LaneSegment", "LoopEmitter"]

Carried = list[Value]
Body = Callable[[list[Lanes], Carried], Carried]


@dataclass(frozen=True)
class LaneSegment:
    """A part of a loop over lanes: ``copies`` times ``lanes`` iterations at once, the last ones masked or
    not."""

    start: Value
    stop: Value
    copies: int
    lanes: int
    masked: bool
    runs: bool

    @property
    def step(self) -> int:
        return self.copies * self.lanes


def _number(value: Value) -> int | None:
    return int(value.text) if value.text.lstrip("-").isdigit() else None


class LoopEmitter(ValueEmitter):
    """Emits loops; what runs inside them is passed in."""

    tid: Value
    nthreads: Value

    def prepare(self, ctxs: Sequence[Lanes]) -> None:
        """Emit what is computable now that another variable is bound."""
        raise NotImplementedError

    # -- conditions -------------------------------------------------------------------------------------
    @contextmanager
    def unless_empty(self, vars: Sequence[Symbol]) -> Iterator[None]:
        """The body runs only where no loop over ``vars`` is empty, so that code may move out of them."""
        doubtful = [v for v in vars if not known_positive(v.size)]
        if not doubtful:
            yield
            return
        total: Value | None = None
        for v in doubtful:
            some = self.fb.icmp("sgt", self.scalar(v.size), 0)
            total = some if total is None else self.fb.and_(total, some)
        assert total is not None
        with self.fb.if_then(total, "some"), self.scope():
            yield

    # -- sharing out ------------------------------------------------------------------------------------
    def share(self, total: Value, serial: bool = False) -> tuple[Value, Value]:
        """This thread's range of ``total`` units: as even as possible, in order."""
        fb = self.fb
        if serial:
            first = fb.icmp("eq", self.tid, 0)
            return self.i64(0), fb.select(first, total, self.i64(0))
        each = fb.udiv(total, self.nthreads)
        rest = fb.sub(total, fb.mul(each, self.nthreads))
        low = fb.add(fb.mul(self.tid, each), fb.integer_minmax("smin", self.tid, rest))
        more = fb.icmp("slt", self.tid, rest)
        return low, fb.add(fb.add(low, each), fb.zext(more, "i64"))

    def shared_loop(
        self, loops: Sequence[Symbol], plan: StagePlan, body: Callable[[Value | None, Value | None], None]
    ) -> None:
        """Run ``body(start, stop)`` for this thread's units: points of ``loops``, each with a range of
        blocks of the vector variable if the plan has blocks (else with None)."""
        fb = self.fb
        blocks: Value | None = None
        size: Value | None = None
        if plan.block:
            assert plan.vector is not None
            size = self.scalar(plan.vector.size)
            blocks = self.scalar((plan.vector.size + plan.block - 1) // plan.block)
        rows = self.scalar(product(v.size for v in loops))
        total = rows if blocks is None else fb.mul(rows, blocks)
        low, high = self.share(total, plan.serial)
        with fb.if_then(fb.icmp("slt", low, high), "share"), self.scope():
            if blocks is None:
                self._flat_loop(loops, low, high, lambda: body(None, None))
                return
            assert size is not None
            if not loops:
                stop = fb.integer_minmax("smin", fb.mul(high, plan.block), size)
                body(fb.mul(low, plan.block), stop)
                return
            self._block_loop(loops, plan.block, blocks, size, low, high, body)

    def _decode(self, loops: Sequence[Symbol], flat: Value) -> list[Value]:
        """The values of ``loops`` at a flat position."""
        fb = self.fb
        out: list[Value] = []
        for v in reversed(loops[1:]):
            n = self.scalar(v.size)
            out.append(fb.urem(flat, n))
            flat = fb.udiv(flat, n)
        out.append(flat)
        return out[::-1]

    def _advance(self, loops: Sequence[Symbol], values: Sequence[Value], by: Value) -> list[Value]:
        """The next point in row-major order (``by`` is 0 or 1), without division."""
        fb = self.fb
        out: list[Value] = []
        carry = by
        for position in range(len(loops) - 1, -1, -1):
            following = fb.add(values[position], carry)
            if position:
                full = fb.icmp("eq", following, self.scalar(loops[position].size))
                following = fb.select(full, 0, following)
                carry = fb.zext(full, "i64")
            out.append(following)
        return out[::-1]

    def _flat_loop(self, loops: Sequence[Symbol], low: Value, high: Value, body: Callable[[], None]) -> None:
        """One loop over flat positions; the variables are decoded once and then counted on. Not empty."""
        fb = self.fb
        start = self._decode(loops, low) if loops else []
        with fb.for_range(low, high, 1, start[:] if len(loops) > 1 else [], label="unit", runs=True) as loop:
            values = loop.carried if len(loops) > 1 else [loop.index][: len(loops)]
            with self.bind_all(list(zip(loops, values, strict=True))):
                body()
            if len(loops) > 1:
                loop.set_next(*self._advance(loops, values, self.i64(1)))

    def _block_loop(
        self,
        loops: Sequence[Symbol],
        block: int,
        blocks: Value,
        size: Value,
        low: Value,
        high: Value,
        body: Callable[[Value | None, Value | None], None],
    ) -> None:
        """Units are (row, block): a thread may start and end inside a row."""
        fb = self.fb
        first_row, first_block = fb.udiv(low, blocks), fb.urem(low, blocks)
        start = self._decode(loops, first_row)
        head = fb.current
        loop_block, done = fb.block("rows"), fb.block("rows.end")
        fb.br(loop_block)
        fb.place(loop_block)
        unit = fb.phi(I64, (low, head))
        at = fb.phi(I64, (first_block, head))
        values = [fb.phi(I64, (v, head)) for v in start]
        count = fb.integer_minmax("smin", fb.sub(blocks, at), fb.sub(high, unit))
        stop = fb.integer_minmax("smin", fb.mul(fb.add(at, count), block), size)
        with self.bind_all(list(zip(loops, values, strict=True))):
            body(fb.mul(at, block), stop)
        following = fb.add(unit, count)
        advanced = self._advance(loops, values, self.i64(1))
        latch = fb.current
        fb.cond_br(fb.icmp("slt", following, high), loop_block, done)
        unit.add(following, latch)
        at.add(self.i64(0), latch)
        for phi, value in zip(values, advanced, strict=True):
            phi.add(value, latch)
        fb.place(done)

    # -- plain loops ------------------------------------------------------------------------------------
    def nest(self, loops: Sequence[Symbol], ctxs: Sequence[Lanes], body: Callable[[], None]) -> None:
        """Scalar loops, none of them empty, with what is invariant emitted at each level."""
        if not loops:
            body()
            return
        with (
            self.fb.for_range(
                self.i64(0), self.scalar(loops[0].size), runs=True, label=loops[0].name
            ) as loop,
            self.bind(loops[0], loop.index),
        ):
            self.prepare(ctxs)
            self.nest(loops[1:], ctxs, body)

    # -- lanes ------------------------------------------------------------------------------------------
    def lane_segments(self, plan: StagePlan, start: Value, stop: Value) -> list[LaneSegment]:
        """The parts of ``range(start, stop)``: interleaved copies, then single vectors, then the tail."""
        fb = self.fb
        low, high = _number(start), _number(stop)
        if low is not None and high is not None:
            return self._static_segments(plan, low, high)
        lanes, copies = plan.lanes, plan.unroll
        assert plan.vector is not None
        multiple = plan.vector.size.constant or 0
        out: list[LaneSegment] = []
        at = start
        group = lanes * copies
        if group == 1:
            return [LaneSegment(start, stop, 1, 1, False, False)]
        exact = multiple and multiple % group == 0 and plan.block % group == 0
        if copies > 1 or plan.tail != "mask":
            mid = stop if exact else fb.add(at, fb.and_(fb.sub(stop, at), -group))
            out.append(LaneSegment(at, mid, copies, lanes, False, False))
            at = mid
            if exact:
                return out
        if lanes == 1 or plan.tail == "mask":
            masked = not (multiple and multiple % lanes == 0 and plan.block % lanes == 0)
            out.append(LaneSegment(at, stop, 1, lanes, masked and lanes > 1, False))
            return out
        if copies > 1:
            mid = fb.add(at, fb.and_(fb.sub(stop, at), -lanes))
            out.append(LaneSegment(at, mid, 1, lanes, False, False))
            at = mid
        out.append(LaneSegment(at, stop, 1, 1, False, False))
        return out

    def _static_segments(self, plan: StagePlan, low: int, high: int) -> list[LaneSegment]:
        out: list[LaneSegment] = []
        for copies, lanes, masked in (
            (plan.unroll, plan.lanes, False),
            (1, plan.lanes, False),
            (1, plan.lanes if plan.tail == "mask" else 1, plan.tail == "mask"),
        ):
            step = copies * lanes
            end = high if masked else low + (high - low) // step * step
            if end > low:
                out.append(LaneSegment(self.i64(low), self.i64(end), copies, lanes, masked, True))
                low = end
        return out

    def lane_loop(self, var: Symbol, segment: LaneSegment, carried: Carried, body: Body) -> Carried:
        """One part of a loop over lanes."""
        with (
            self.fb.for_range(
                segment.start, segment.stop, segment.step, carried, runs=segment.runs, label=var.name
            ) as loop,
            self.bind(var, loop.index),
        ):
            ctxs = self.contexts(var, segment, loop.index)
            loop.set_next(*body(ctxs, loop.carried))
        return loop.results

    def contexts(self, var: Symbol, segment: LaneSegment, index: Value) -> list[Lanes]:
        """The copies of the body at one step of a loop over lanes."""
        mask = self._tail_mask(segment, index) if segment.masked else None
        return [
            Lanes(var, segment.lanes, index, k * segment.lanes, mask, group=segment.step)
            for k in range(segment.copies)
        ]

    def _tail_mask(self, segment: LaneSegment, index: Value) -> Value:
        fb = self.fb
        type = Type("i32", segment.lanes)
        left = fb.trunc(fb.integer_minmax("smin", fb.sub(segment.stop, index), segment.lanes), "i32")
        return fb.icmp("sgt", fb.splat(left, segment.lanes), fb.lane_ids(type))
