"""Scans: stages in which one loop has to run in order, and carries what came before."""

from __future__ import annotations

import torch

from braze.codegen.program.builder import Builder
from braze.codegen.program.grammar import Along, Var
from braze.codegen.program.lanes import Copy
from braze.codegen.program.reducers import Reducer, State, reducer_of
from braze.codegen.program.stage import Making, emit_ready, emit_stores, lane_parts, prepare, spread
from braze.ops.dag import Node
from braze.runtime.expr import Symbol, as_expr

__all__ = ["emit_row_scan", "emit_scan"]


def _carried(node: Node) -> Reducer:
    """Sums, products and the like of float32 are carried in float64, as eager does."""
    kind, dtype = str(node.attrs[0]), node.args[0].dtype
    wide = dtype is torch.float32 and kind in ("sum", "prod", "logsumexp")
    return reducer_of(kind, torch.float64 if wide else dtype)


def _state(m: Making, reducer: Reducer, value: Var, along: Symbol, copy: Copy) -> State:
    """The state of one value in each lane: with its position along the scan, if the reducer wants it."""
    first = m.b.convert(value, reducer.dtypes[0])
    if len(reducer.dtypes) == 1:
        return [first]
    on_lanes = copy.along if copy.along.symbol == along else Along()
    position = m.b.index(m.resolved(along.expr, copy), torch.int64, on_lanes)
    return [first, m.b.splat(position, first.lanes)]


def emit_scan(m: Making, copies: list[Copy]) -> None:
    """Along the scanned variable, for one group of lanes of the others."""
    b = m.b
    (along,) = m.plan.rloops
    scans = [n for n in m.stage.nodes if n.op == "scan"]
    carried: list[tuple[Node, Copy, Reducer, State]] = []
    for node in scans:
        apart = m.varies(node, copies[0])
        for copy in copies if apart else copies[:1]:
            reducer = _carried(node)
            start = reducer.identity(b, copy.lanes if apart else 1)
            carried.append((node, copy, reducer, [b.accumulator(v) for v in start]))
    prepare(m, copies)
    with b.loop(along, 0, along.size, runs=True):
        for node, copy, reducer, total in carried:
            emit_ready(m, m.stage.nodes, copies)
            value = m.operand(node.args[0], copy, total[0].lanes)
            now = reducer.merge(b, total, _state(m, reducer, value, along, copy))
            for var, new in zip(total, now, strict=True):
                b.assign(var, new)
            apart = m.varies(node, copy)
            b.remember(copy.values if apart else b.values, node.id, b.convert(now[-1], node.dtype))
        for copy in copies:
            emit_ready(m, m.stage.nodes, [copy])
            emit_stores(m, copy)


def emit_row_scan(m: Making) -> None:
    """Along a scanned variable that lies on lanes itself: prefixes within each vector by doubling, then what
    came before added to all lanes."""
    b = m.b
    (along,) = m.plan.rloops
    scans = [n for n in m.stage.nodes if n.op == "scan"]
    carried: list[tuple[Node, Reducer, State]] = []
    for node in scans:
        reducer = _carried(node)
        carried.append((node, reducer, [b.accumulator(v) for v in reducer.identity(b, 1)]))
    spread(m, along, m.plan.lanes)

    def vector(copies: list[Copy]) -> None:
        (copy,) = copies
        for node, reducer, total in carried:
            emit_ready(m, m.stage.nodes, copies)
            own = _state(m, reducer, b.vector(node.args[0], copy), along, copy)
            prefix = _prefixes(b, reducer, own, copy)
            value = reducer.merge(b, [b.splat(v, copy.lanes) for v in total], prefix)
            now = reducer.merge(b, total, [b.slice(v, copy.lanes - 1, 1) for v in prefix])
            b.remember(copy.values, node.id, b.convert(value[-1], node.dtype))
            for var, new in zip(total, now, strict=True):
                b.assign(var, new)
        emit_ready(m, m.stage.nodes, copies)
        emit_stores(m, copy)

    lane_parts(b, m.plan, along, as_expr(0), along.size, vector)


def _prefixes(b: Builder, reducer: Reducer, state: State, copy: Copy) -> State:
    """The scan of each lane and those before it, in one vector."""
    lanes = copy.lanes
    identity = reducer.identity(b, lanes)
    if copy.mask is not None:
        state = [b.op("where", copy.mask, v, none) for v, none in zip(state, identity, strict=True)]
    shift = 1
    while shift < lanes:
        order = [lanes + k - shift if k >= shift else k for k in range(lanes)]
        before = [b.shuffle(none, v, order) for v, none in zip(state, identity, strict=True)]
        state = reducer.merge(b, before, state)
        shift *= 2
    return state
