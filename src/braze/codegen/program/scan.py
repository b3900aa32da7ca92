"""Scans: stages in which one loop has to run in order, and carries what came before."""

from __future__ import annotations

import torch

from braze.codegen.program.builder import Builder
from braze.codegen.program.grammar import Var
from braze.codegen.program.lanes import Copy
from braze.codegen.program.reducers import Reducer, reducer_of
from braze.codegen.program.stage import Making, emit_ready, emit_stores, lane_parts, prepare, spread
from braze.ops.dag import Node
from braze.runtime.expr import as_expr

__all__ = ["emit_row_scan", "emit_scan"]


def _carried(node: Node) -> Reducer:
    """Sums and products of float32 are carried in float64, as eager does."""
    kind = str(node.attrs[0])
    wide = node.dtype is torch.float32 and kind in ("sum", "prod")
    return reducer_of(kind, torch.float64 if wide else node.dtype)


def emit_scan(m: Making, copies: list[Copy]) -> None:
    """Along the scanned variable, for one group of lanes of the others."""
    b = m.b
    (along,) = m.plan.rloops
    scans = [n for n in m.stage.nodes if n.op == "scan"]
    carried: list[tuple[Node, Copy, Reducer, Var]] = []
    for node in scans:
        apart = m.varies(node, copies[0])
        for copy in copies if apart else copies[:1]:
            reducer = _carried(node)
            (start,) = reducer.identity(b, copy.lanes if apart else 1)
            carried.append((node, copy, reducer, b.accumulator(start)))
    prepare(m, copies)
    with b.loop(along, 0, along.size, runs=True):
        for node, copy, reducer, total in carried:
            emit_ready(m, m.stage.nodes, copies)
            value = b.convert(m.operand(node.args[0], copy, total.lanes), total.dtype)
            (now,) = reducer.merge(b, [total], [value])
            b.assign(total, now)
            apart = m.varies(node, copy)
            b.remember(copy.values if apart else b.values, node.id, b.convert(now, node.dtype))
        for copy in copies:
            emit_ready(m, m.stage.nodes, [copy])
            emit_stores(m, copy)


def emit_row_scan(m: Making) -> None:
    """Along a scanned variable that lies on lanes itself: prefixes within each vector by doubling, then what
    came before added to all lanes."""
    b = m.b
    (along,) = m.plan.rloops
    scans = [n for n in m.stage.nodes if n.op == "scan"]
    carried: list[tuple[Node, Reducer, Var]] = []
    for node in scans:
        reducer = _carried(node)
        (start,) = reducer.identity(b, 1)
        carried.append((node, reducer, b.accumulator(start)))
    spread(m, along, m.plan.lanes)

    def vector(copies: list[Copy]) -> None:
        (copy,) = copies
        for node, reducer, total in carried:
            emit_ready(m, m.stage.nodes, copies)
            prefix = _prefixes(b, reducer, b.convert(b.vector(node.args[0], copy), reducer.dtype), copy)
            (value,) = reducer.merge(b, [b.splat(total, copy.lanes)], [prefix])
            last = b.slice(prefix, copy.lanes - 1, 1)
            (now,) = reducer.merge(b, [total], [last])
            b.remember(copy.values, node.id, b.convert(value, node.dtype))
            b.assign(total, now)
        emit_ready(m, m.stage.nodes, copies)
        emit_stores(m, copy)

    lane_parts(b, m.plan, along, as_expr(0), along.size, vector)


def _prefixes(b: Builder, reducer: Reducer, value: Var, copy: Copy) -> Var:
    """The scan of each lane and those before it, in one vector."""
    lanes = copy.lanes
    (identity,) = reducer.identity(b, lanes)
    if copy.mask is not None:
        value = b.op("where", copy.mask, value, identity)
    shift = 1
    while shift < lanes:
        order = [lanes + k - shift if k >= shift else k for k in range(lanes)]
        (value,) = reducer.merge(b, [b.shuffle(identity, value, order)], [value])
        shift *= 2
    return value
