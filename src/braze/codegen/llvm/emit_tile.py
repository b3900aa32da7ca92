"""Square tiles: what lies in memory along the other of two variables is loaded that way and transposed.

A tile has as many rows (values of the tile variable) as a vector has lanes. Transposed loads go through a
small stack buffer, one vector for each row of the tile; then the rows run one after another; transposed
stores are collected the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from braze.codegen.llvm.builder import FunctionBuilder, Type, Value
from braze.codegen.llvm.emit_convert import convert
from braze.codegen.llvm.emit_scan import ScanEmitter
from braze.codegen.llvm.emit_scope import Lanes
from braze.codegen.llvm.plan_cost import body_cost, is_transposed
from braze.ops.dag import Node, indirect_nodes
from braze.ops.kernel import Store
from braze.runtime.expr import Expr, Symbol

__all__ = ["TILE_ROWS", "TileEmitter", "transpose"]

_UNROLLED_COST = 16
TILE_ROWS = 4
"""Rows of tiles in a band: neighbouring lines of memory are visited one soon after the other."""


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
        """A band of tiles, some rows of them: full tiles, then what is left, row by row."""
        fb = self.fb
        plan = self.plan
        vector, tile = plan.vector, plan.tile
        assert vector is not None and tile is not None
        if start is None or stop is None:
            start, stop = self.i64(0), self.scalar(vector.size)
        lanes = plan.lanes
        first = fb.mul(self.scalar(self.tile_band.expr), lanes * TILE_ROWS)
        last = fb.integer_minmax("smin", fb.add(first, lanes * TILE_ROWS), self.scalar(tile.size))

        def body(ctxs: list[Lanes], _carried: list[Value]) -> list[Value]:
            point(ctxs)
            return []

        with fb.for_range(first, last, lanes, runs=True, label="tiles") as loop, self.scope():
            low = loop.index
            high = fb.integer_minmax("smin", fb.add(low, lanes), last)
            is_full = fb.icmp("eq", fb.sub(high, low), lanes)
            whole = fb.add(start, fb.and_(fb.sub(stop, start), -lanes))
            mid = fb.select(is_full, whole, start)
            with fb.for_range(start, mid, lanes, label="tile") as across, self.scope():
                self._one_tile(vector, tile, low, across.index)
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
        """A full tile: transposed loads, its rows, transposed stores."""
        loads = [n for n in self.stage.loads if n.mask is None and self._transposes(n.index)]
        crossed = {k for k, s in enumerate(self.stage.stores) if s.mask is None and self._transposes(s.index)}
        with self.bind_all([(tile, low), (vector, base)]):
            columns = {n.id: self._load_columns(n, vector) for n in loads}
        simple = body_cost(self.stage, None) <= _UNROLLED_COST and not any(
            s.mask is not None or indirect_nodes(s.index) for s in self.stage.stores
        )
        rows = self._unrolled_rows if simple else self._looped_rows
        stored = rows((tile, low), (vector, base), loads, columns, crossed)
        with self.bind_all([(tile, low), (vector, base)]):
            for k, values in stored.items():
                store = self.stage.stores[k]
                addresses = self._column_addresses(store.buffer, store.index, vector)
                for value, address in zip(transpose(self.fb, values), addresses, strict=True):
                    self.fb.store(value, address)

    def _load_columns(self, node: Node, vector: Symbol) -> list[Value]:
        """A transposed load: one vector for each row of the tile, in memory form."""
        type = Lanes(None, self.plan.lanes).type(self.memory_elem(node.buffer))
        addresses = self._column_addresses(node.buffer, node.index, vector)
        return transpose(self.fb, [self.fb.load(address, type) for address in addresses])

    def _unrolled_rows(
        self,
        tile: tuple[Symbol, Value],
        vector: tuple[Symbol, Value],
        loads: Sequence[Node],
        columns: dict[int, list[Value]],
        crossed: set[int],
    ) -> dict[int, list[Value]]:
        """All rows' values, then all their stores: rows often lie a multiple of a page apart, where a load
        behind a store to another row waits for it."""
        lanes = self.plan.lanes
        values: list[list[Value]] = []
        for k in range(lanes):
            with self.bind_all([(tile[0], self.fb.add(tile[1], k)), vector]):
                ctx = Lanes(vector[0], lanes, vector[1], group=lanes)
                for node in loads:
                    self.remember(ctx.values, node.id, self.from_memory(columns[node.id][k], node.dtype))
                self.emit_ready(self.stage.nodes, [ctx])
                values.append([self._stored(s, ctx) for s in self.stage.stores])
        for k in range(lanes):
            with self.bind_all([(tile[0], self.fb.add(tile[1], k)), vector]):
                ctx = Lanes(vector[0], lanes, vector[1], group=lanes)
                for number, store in enumerate(self.stage.stores):
                    if number not in crossed:
                        self.store(store.buffer, store.index, values[k][number], None, ctx)
        return {number: [row[number] for row in values] for number in sorted(crossed)}

    def _looped_rows(
        self,
        tile: tuple[Symbol, Value],
        vector: tuple[Symbol, Value],
        loads: Sequence[Node],
        columns: dict[int, list[Value]],
        crossed: set[int],
    ) -> dict[int, list[Value]]:
        """A loop over the rows; what is transposed passes through squares on the stack."""
        fb = self.fb
        lanes = self.plan.lanes
        squares: dict[int, Value] = {}
        for node in loads:
            squares[node.id] = self._square(columns[node.id][0])
            for k, row in enumerate(columns[node.id]):
                fb.store(row, self._row(squares[node.id], row, self.i64(k)), row.type.align * lanes)
        pending: dict[int, Value] = {}
        types: dict[int, Type] = {}
        with (
            fb.for_range(self.i64(0), self.i64(lanes), 1, runs=True, label="tilerow") as loop,
            self.bind_all([(tile[0], fb.add(tile[1], loop.index)), vector]),
        ):
            ctx = Lanes(vector[0], lanes, vector[1], group=lanes)
            for node in loads:
                type = ctx.type(self.memory_elem(node.buffer))
                at = fb.gep(squares[node.id], fb.mul(loop.index, lanes), type.elem)
                value = self.from_memory(fb.load(at, type, type.align * lanes), node.dtype)
                self.remember(ctx.values, node.id, value)
            self.emit_ready(self.stage.nodes, [ctx])
            for k, store in enumerate(self.stage.stores):
                if k not in crossed:
                    self.emit_store(store, ctx)
                    continue
                value = self._stored(store, ctx)
                pending[k], types[k] = self._square(value), value.type
                fb.store(value, self._row(pending[k], value, loop.index), value.type.align * lanes)
        return {
            k: [
                fb.load(fb.gep(square, self.i64(r * lanes), types[k].elem), types[k], types[k].align * lanes)
                for r in range(lanes)
            ]
            for k, square in pending.items()
        }

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

    tile_band: Symbol

    def emit_store(self, store: Store, ctx: Lanes) -> None:
        """Convert and write one store."""
        raise NotImplementedError
