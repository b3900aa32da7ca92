"""Square tiles: what lies in memory along the other of two variables is loaded that way and transposed.

A tile has as many rows (values of the tile variable) as a vector has lanes. Where its body is small, all rows
are computed side by side; else one after another, and what is transposed passes through squares near the
thread.
"""

from __future__ import annotations

from collections.abc import Sequence

from braze.codegen.program.builder import Builder
from braze.codegen.program.grammar import LANE, Along, Var
from braze.codegen.program.lanes import Copy
from braze.codegen.program.loop_cost import body_cost, is_transposed
from braze.codegen.program.program import Scratch
from braze.codegen.program.stage import (
    Making,
    emit_copies,
    emit_ready,
    emit_store,
    lane_parts,
    prepare,
    stored,
)
from braze.ops.dag import Node, indirect_nodes
from braze.runtime.expr import Expr, Symbol, as_expr, minimum

__all__ = ["TILE_ROWS", "band_of", "emit_tiles", "transpose"]

_UNROLLED_COST = 16
TILE_ROWS = 4
"""Rows of tiles in a band: neighbouring lines of memory are visited one soon after the other."""


def transpose(b: Builder, rows: Sequence[Var]) -> list[Var]:
    """A square of n vectors with n lanes transposed, n a power of two, in n log2(n) shuffles."""
    n = len(rows)
    values = list(rows)
    width = n // 2
    while width:
        out = list(values)
        for first in range(n):
            if first & width:
                continue
            upper, lower = values[first], values[first + width]
            low = [i if not i & width else n + i - width for i in range(n)]
            high = [i + width if not i & width else n + i for i in range(n)]
            out[first], out[first + width] = b.shuffle(upper, lower, low), b.shuffle(upper, lower, high)
        values = out
        width //= 2
    return values


def band_of(m: Making) -> Symbol:
    """The loop over bands of tiles."""
    assert m.plan.tile is not None
    rows = m.plan.lanes * TILE_ROWS
    return Symbol("band", 0, (m.plan.tile.size + rows - 1) // rows - 1)


def emit_tiles(m: Making, band: Symbol, start: Expr | None, stop: Expr | None) -> None:
    """A band of tiles, some rows of them: full tiles, what is left beside them, and what is left below, row
    by row."""
    b, plan = m.b, m.plan
    vector, tile = plan.vector, plan.tile
    assert vector is not None and tile is not None
    if start is None or stop is None:
        start, stop = as_expr(0), vector.size
    lanes = plan.lanes
    first = b.bind("first", band.expr * (lanes * TILE_ROWS))
    last = b.bind("last", minimum(first + lanes * TILE_ROWS, tile.size))
    below = b.bind("below", first + (last - first) // lanes * lanes)
    beside = b.bind("beside", start + (stop - start) // lanes * lanes)

    def rows(top: Expr, bottom: Expr, left: Expr) -> None:
        with b.loop(tile, top, bottom):
            prepare(m, [Copy()])
            lane_parts(b, plan, vector, left, stop, lambda copies: emit_copies(m, copies))

    top = b.symbol("top")
    with b.loop(top, first, below, lanes):
        with b.loop(vector, start, beside, lanes):
            _tile(m, vector, tile, top)
        if not _is_whole(vector.size, lanes):
            with b.when([stop - beside]):
                rows(top.expr, top.expr + lanes, beside)
    if not _is_whole(tile.size, lanes):
        rows(below, last, start)


def _is_whole(size: Expr, lanes: int) -> bool:
    return size.constant is not None and size.constant % lanes == 0


def _tile(m: Making, vector: Symbol, tile: Symbol, top: Symbol) -> None:
    """A full tile: transposed loads, its rows, transposed stores."""
    b, lanes = m.b, m.plan.lanes
    loads = [n for n in m.stage.loads if n.mask is None and _crosses(m, n.index)]
    crossed = {k for k, s in enumerate(m.stage.stores) if s.mask is None and _crosses(m, s.index)}
    columns = {n.id: _columns(m, n, vector, tile, top) for n in loads}
    simple = body_cost(m.stage, None) <= _UNROLLED_COST and not any(
        s.mask is not None or indirect_nodes(s.index) for s in m.stage.stores
    )
    rows = _unrolled_rows if simple else _looped_rows
    values = rows(m, vector, tile, top, loads, columns, crossed)
    for k, own in values.items():
        store = m.stage.stores[k]
        for value, (e, along) in zip(
            transpose(b, own), _column_places(store.index, vector, tile, top, lanes), strict=True
        ):
            b.store(store.buffer, e, value, along)


def _crosses(m: Making, e: Expr) -> bool:
    assert m.plan.vector is not None and m.plan.tile is not None
    return is_transposed(e, m.plan.vector, m.plan.tile, m.plan.lanes)


def _column_places(
    e: Expr, vector: Symbol, tile: Symbol, top: Symbol, lanes: int
) -> list[tuple[Expr, Along]]:
    """The run of neighbours along the tile variable, for each lane of the vector one."""
    split = e.coefficient(vector)
    assert split is not None
    first = e.substitute({tile: top.expr})
    return [(first + split[0] * k, Along(top, lanes, 0, lanes)) for k in range(lanes)]


def _columns(m: Making, node: Node, vector: Symbol, tile: Symbol, top: Symbol) -> list[Var]:
    """A transposed load: one vector for each row of the tile."""
    places = _column_places(node.index, vector, tile, top, m.plan.lanes)
    return transpose(m.b, [m.b.load(node.buffer, e, node.dtype, along) for e, along in places])


def _row(m: Making, vector: Symbol, tile: Symbol, at: Expr) -> Copy:
    """The copy of the body that is one row of a tile."""
    lanes = m.plan.lanes
    return Copy(Along(vector, lanes, 0, lanes), shift={tile: at})


def _unrolled_rows(
    m: Making,
    vector: Symbol,
    tile: Symbol,
    top: Symbol,
    loads: Sequence[Node],
    columns: dict[int, list[Var]],
    crossed: set[int],
) -> dict[int, list[Var]]:
    """All rows' values, then all their stores: rows often lie a multiple of a page apart, where a load
    behind a store to another row waits for it."""
    b = m.b
    values: list[list[Var]] = []
    copies: list[Copy] = []
    for k in range(m.plan.lanes):
        with b.scope(tile):
            copy = _row(m, vector, tile, top.expr + k)
            for node in loads:
                copy.values[node.id] = columns[node.id][k]
            emit_ready(m, m.stage.nodes, [copy])
            values.append([b.splat(stored(m, s, copy), copy.lanes) for s in m.stage.stores])
        copies.append(copy)
    for k, copy in enumerate(copies):
        for number, store in enumerate(m.stage.stores):
            if number not in crossed:
                emit_store(m, store, copy, values[k][number])
    return {number: [row[number] for row in values] for number in sorted(crossed)}


def _looped_rows(
    m: Making,
    vector: Symbol,
    tile: Symbol,
    top: Symbol,
    loads: Sequence[Node],
    columns: dict[int, list[Var]],
    crossed: set[int],
) -> dict[int, list[Var]]:
    """A loop over the rows; what is transposed passes through squares."""
    b, lanes = m.b, m.plan.lanes
    side = Along(LANE, lanes, 0, lanes)
    squares = {n.id: _square(m, columns[n.id][0]) for n in loads}
    for node in loads:
        for k, value in enumerate(columns[node.id]):
            b.store(squares[node.id], LANE.expr + k * lanes, value, side)
    pending: dict[int, tuple[str, Var]] = {}
    row = Symbol("row", 0, lanes - 1)
    at = row.expr * lanes + LANE.expr
    with b.loop(row, 0, lanes, runs=True), b.scope(tile):
        copy = _row(m, vector, tile, top.expr + row.expr)
        for node in loads:
            copy.values[node.id] = b.load(squares[node.id], at, node.dtype, side)
        emit_ready(m, m.stage.nodes, [copy])
        for k, store in enumerate(m.stage.stores):
            if k not in crossed:
                emit_store(m, store, copy)
                continue
            value = b.splat(stored(m, store, copy), lanes)
            pending[k] = _square(m, value), value
            b.store(pending[k][0], at, value, side)
    return {
        k: [b.load(square, LANE.expr + r * lanes, value.dtype, side) for r in range(lanes)]
        for k, (square, value) in pending.items()
    }


def _square(m: Making, row: Var) -> str:
    """A square of elements near the thread."""
    name = f"square{len(m.frame.scratch)}"
    m.frame.scratch.append(Scratch(name, row.dtype, as_expr(row.lanes * row.lanes), "stack"))
    return name
