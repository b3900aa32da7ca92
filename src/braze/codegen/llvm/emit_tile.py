"""Square tiles: what lies in memory along the other of two variables is loaded that way and transposed.

A tile has as many rows (values of the tile variable) as a vector has lanes. Transposed loads go through a
small stack buffer, one vector for each row of the tile; then the rows run one after another; transposed
stores are collected the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from braze.codegen.llvm.builder import FunctionBuilder, Value
from braze.codegen.llvm.emit_convert import convert
from braze.codegen.llvm.emit_scan import ScanEmitter
from braze.codegen.llvm.emit_scope import Lanes
from braze.codegen.llvm.plan_cost import is_transposed
from braze.ops.kernel import Store
from braze.runtime.expr import Expr, Symbol

__all__ = ["TileEmitter", "transpose"]


def transpose(fb: FunctionBuilder, rows: Sequence[Value]) -> list[Value]:
    """A square of n vectors with n lanes transposed, n a power of two, in n log2(n) shuffles."""
    n = len(rows)
    values = list(rows)
    width = n // 2
    while width:
        out = list(values)
        for first in range(n):
            if first & width:
                continue
            a, b = values[first], values[first + width]
            low = [i if not i & width else n + i - width for i in range(n)]
            high = [i + width if not i & width else n + i for i in range(n)]
            out[first], out[first + width] = fb.shuffle(a, b, low), fb.shuffle(a, b, high)
        values = out
        width //= 2
    return values


class TileEmitter(ScanEmitter):
    """Emits stages with square tiles."""

    def emit_tiles(
        self, start: Value | None, stop: Value | None, point: Callable[[list[Lanes]], None]
    ) -> None:
        """One row of tiles (the tile symbol is bound): full tiles, then what is left of it row by row."""
        fb = self.fb
        plan = self.plan
        vector, tile = plan.vector, plan.tile
        assert vector is not None and tile is not None
        if start is None or stop is None:
            start, stop = self.i64(0), self.scalar(vector.size)
        lanes = plan.lanes
        low = fb.mul(self.scalar(self.tile_number.expr), lanes)
        high = fb.integer_minmax("smin", fb.add(low, lanes), self.scalar(tile.size))
        is_full = fb.icmp("eq", fb.sub(high, low), lanes)
        whole = fb.add(start, fb.and_(fb.sub(stop, start), -lanes))
        mid = fb.select(is_full, whole, start)
        with fb.for_range(start, mid, lanes, label="tile") as loop, self.scope():
            self._one_tile(vector, tile, low, loop.index)

        def body(ctxs: list[Lanes], _carried: list[Value]) -> list[Value]:
            point(ctxs)
            return []

        with (
            fb.if_then(fb.icmp("slt", mid, stop), "edge"),
            self.scope(),
            fb.for_range(low, high, 1, runs=True, label="row") as rows,
            self.bind(tile, rows.index),
        ):
            self.prepare([Lanes()])
            for segment in self.lane_segments(plan, mid, stop):
                self.lane_loop(vector, segment, [], body)

    def _one_tile(self, vector: Symbol, tile: Symbol, low: Value, base: Value) -> None:
        fb = self.fb
        lanes = self.plan.lanes
        loads = [n for n in self.stage.loads if n.mask is None and self._transposes(n.index)]
        stores = [s for s in self.stage.stores if s.mask is None and self._transposes(s.index)]
        buffers: dict[int, Value] = {}
        with self.bind_all([(tile, low), (vector, base)]):
            for node in loads:
                rows = []
                for address in self._column_addresses(node.buffer, node.index, vector):
                    rows.append(fb.load(address, Lanes(None, lanes).type(self.memory_elem(node.buffer))))
                buffers[node.id] = self._square(rows[0])
                for k, row in enumerate(transpose(fb, rows)):
                    fb.store(row, self._row(buffers[node.id], row, self.i64(k)), row.type.align * lanes)
        pending: dict[int, Value] = {}
        with (
            fb.for_range(self.i64(0), self.i64(lanes), 1, runs=True, label="tilerow") as loop,
            self.bind_all([(tile, fb.add(low, loop.index)), (vector, base)]),
        ):
            ctx = Lanes(vector, lanes, base, 0, None, group=lanes)
            for node in loads:
                type = ctx.type(self.memory_elem(node.buffer))
                at = fb.gep(buffers[node.id], fb.mul(loop.index, lanes), type.elem)
                value = self.from_memory(fb.load(at, type, type.align * lanes), node.dtype)
                self.remember(ctx.values, node.id, value)
            self.emit_ready(self.stage.nodes, [ctx])
            for k, store in enumerate(self.stage.stores):
                if store in stores:
                    value = self._stored(store, ctx)
                    if k not in pending:
                        pending[k] = self._square(value)
                    fb.store(value, self._row(pending[k], value, loop.index), value.type.align * lanes)
                else:
                    self.emit_store(store, ctx)
        with self.bind_all([(tile, low), (vector, base)]):
            for k, square in pending.items():
                store = self.stage.stores[k]
                type = Lanes(None, lanes).type(self.memory_elem(store.buffer))
                rows = [
                    fb.load(fb.gep(square, self.i64(r * lanes), type.elem), type, type.align * lanes)
                    for r in range(lanes)
                ]
                addresses = self._column_addresses(store.buffer, store.index, vector)
                for row, address in zip(transpose(fb, rows), addresses, strict=True):
                    fb.store(row, address)

    def _transposes(self, e: Expr) -> bool:
        assert self.plan.vector is not None and self.plan.tile is not None
        return is_transposed(e, self.plan.vector, self.plan.tile, self.plan.lanes)

    def _stored(self, store: Store, ctx: Lanes) -> Value:
        value = convert(
            self.fb, self.vector(store.value, ctx), store.value.dtype, self.dtype_of(store.buffer)
        )
        return self.to_memory(value)

    def _square(self, row: Value) -> Value:
        return self.fb.alloca(row.type, row.type.lanes, align=64)

    def _row(self, square: Value, row: Value, number: Value) -> Value:
        return self.fb.gep(square, self.fb.mul(number, row.type.lanes), row.type.elem)

    def _column_addresses(self, buffer: str, e: Expr, vector: Symbol) -> list[Value]:
        """The address at which each lane's run along the tile variable starts."""
        split = e.coefficient(vector)
        assert split is not None
        first = self.pointer(buffer, e)
        step = self.scalar(split[0])
        elem = self.memory_elem(buffer)
        return [
            self.fb.gep(first, self.fb.mul(step, k), elem) if k else first for k in range(self.plan.lanes)
        ]

    tile_number: Symbol

    def emit_store(self, store: Store, ctx: Lanes) -> None:
        """Convert and write one store."""
        raise NotImplementedError
