"""What the loop plan knows about cost: kinds of memory access, the price of a body, the best vector
variable."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from braze.codegen.program.steps import lane_step
from braze.ops.dag import IndirectSymbol, Node, topological
from braze.ops.kernel import Stage
from braze.ops.vocabulary import OPS
from braze.runtime.expr import Expr, Symbol

__all__ = ["access_kind", "body_cost", "choose_vector", "extent"]

_ASSUMED_EXTENT = 1024
_HORIZONTAL_COST = 24
_SCAN_COST = 20


def extent(var: Symbol) -> int | None:
    """A loop's extent if it is a number, else None."""
    return var.size.constant


def access_kind(e: Expr, var: Symbol | None, lanes: int) -> str:
    """What a memory access at ``e`` becomes when ``var`` lies on ``lanes`` lanes."""
    if var is None or lanes == 1:
        return "scalar"
    step = lane_step(e, var, lanes)
    if step is None:
        return "gather"
    named = {0: "uniform", 1: "contiguous", -1: "reversed"}
    return named.get(step.constant if step.constant is not None else 2, f"stride {step}")


def body_cost(stage: Stage, var: Symbol | None) -> int:
    """The price of one copy of the innermost body in vector instructions, without memory access."""
    inner = innermost(stage)
    return sum(OPS[n.op].cost for n in inner if n.op != "load" and (var is None or var in n.symbols))


def pressure(stage: Stage, var: Symbol) -> int:
    """How many registers one copy of the innermost body needs at most for values that differ along ``var``,
    where its nodes are computed in order. Elements of 64 bits take two; masks have registers of their own."""
    nodes = [n for n in innermost(stage) if var in n.symbols]
    last = {i.id: k for k, n in enumerate(nodes) for i in n.inputs}
    for store in stage.stores:
        last[store.value.id] = len(nodes)
    held: dict[int, int] = {}
    most = 0
    for k, node in enumerate(nodes):
        held[node.id] = 0 if node.dtype is torch.bool else max(1, node.dtype.itemsize // 4)
        most = max(most, sum(held.values()))
        for i in (node, *node.inputs):
            if last.get(i.id, -1) <= k:
                held.pop(i.id, None)
    return most


def innermost(stage: Stage) -> list[Node]:
    """The nodes that run most often: those below the reductions, if there are any."""
    if not stage.reductions:
        return list(stage.nodes)
    return topological(stage.reductions)


def _memory_cost(e: Expr, var: Symbol, lanes: int, store: bool) -> float:
    kind = access_kind(e, var, lanes)
    if kind == "uniform":
        return 0.3
    if kind in ("contiguous", "reversed"):
        return 2.0 if store else 1.0
    step = lane_step(e, var, lanes)
    if not store and step is not None and step.constant in (2, 3, 4):
        return 2.0 * step.constant
    return lanes * (2.0 if store else 1.5) + (6.0 if kind == "gather" else 0.0)


def _cost(stage: Stage, var: Symbol, lanes: int, masks: bool) -> float:
    total = float(body_cost(stage, var))
    for node in innermost(stage):
        if node.op == "load" and var in node.free:
            total += _memory_cost(node.index, var, lanes, store=False)
    for store in () if stage.reductions else stage.stores:
        total += _memory_cost(store.index, var, lanes, store=True)
    n = extent(var) or _ASSUMED_EXTENT
    if masks:
        steps = -(-n // lanes)
    else:
        steps = n // lanes + n % lanes
    price = total * steps / max(n, 1)
    if var in stage.rvars:
        price += _HORIZONTAL_COST * len(stage.reductions) / max(n, 1)
    return price


def choose_vector(
    stage: Stage,
    candidates: Sequence[Symbol],
    lanes: int,
    masks: bool,
    scalar_allowed: bool = False,
    scanned: Symbol | None = None,
) -> Symbol | None:
    """The variable to put on vector lanes: the one with the least estimated price for an element; a later
    one wins a tie. With ``scalar_allowed``, None where scalar code is estimated to be cheaper."""
    if not candidates:
        return None
    best, price = None, float("inf")
    for var in candidates:
        here = _cost(stage, var, lanes, masks)
        if var == scanned:
            here += _SCAN_COST / lanes
        if here <= price:
            best, price = var, here
    if scalar_allowed:
        scalar = body_cost(stage, None) + len(stage.loads) + len(stage.stores)
        if scalar < price:
            return None
    return best


def most_copies(stage: Stage, var: Symbol, lanes: int, copies: int) -> int:
    """At most ``copies``, and so many that every index that is linear within one vector is linear within
    all."""
    while copies > 1 and any(
        lane_step(e, var, lanes * copies) is None and lane_step(e, var, lanes) is not None
        for e in indices(stage)
    ):
        copies //= 2
    return copies


def indices(stage: Stage) -> list[Expr]:
    """Every index expression of a stage."""
    return [n.index for n in stage.nodes if n.op in ("load", "index_expr")] + [s.index for s in stage.stores]


def is_transposed(e: Expr, var: Symbol, other: Symbol, lanes: int) -> bool:
    """Whether an access strides along ``var`` and walks through neighbours along ``other``."""
    if any(isinstance(s, IndirectSymbol) for s in e.free_symbols):
        return False
    along, across = e.coefficient(other), e.coefficient(var)
    if along is None or across is None or along[0] != 1:
        return False
    k = across[0].constant
    return k is None or abs(k) > 4


def tile_variable(stage: Stage, var: Symbol, lanes: int) -> Symbol | None:
    """The variable along which most accesses that stride along ``var`` are contiguous; None if a
    transposition would gain nothing."""
    if lanes == 1 or any(s.mode != "set" for s in stage.stores):
        return None
    best, most = None, 0
    for other in stage.vars:
        n, m = extent(other), extent(var)
        if other == var or (n is not None and n < lanes) or (m is not None and m < lanes):
            continue
        count = sum(n.mask is None and is_transposed(n.index, var, other, lanes) for n in stage.loads)
        count += sum(s.mask is None and is_transposed(s.index, var, other, lanes) for s in stage.stores)
        if count > most:
            best, most = other, count
    return best


def stage_price(stage: Stage, var: Symbol | None, lanes: int, masks: bool, local: set[str]) -> float:
    """The estimated price of a whole stage with ``var`` on lanes, for one outer point; buffers in ``local``
    cost as much as a contiguous access, whatever the variable."""
    points = 1.0
    for v in (*stage.vars, *stage.rvars):
        points *= extent(v) or _ASSUMED_EXTENT
    if var is None:
        return points * (body_cost(stage, None) + 1)
    total = float(sum(OPS[n.op].cost for n in stage.nodes if n.op != "load"))
    for buffer, e in [(n.buffer, n.index) for n in stage.loads] + [(s.buffer, s.index) for s in stage.stores]:
        total += 1.0 if buffer in local else _memory_cost(e, var, lanes, store=False)
    n = extent(var) or _ASSUMED_EXTENT
    steps = -(-n // lanes) if masks else n // lanes + n % lanes
    return points * total * steps / max(n, 1)


def index_uses(stage: Stage, local: set[str]) -> bool:
    """Whether an index is computed from what lies in a local buffer, or a local buffer is read or written at
    a place that a tensor says: rows of outer points that lie side by side have one place for all of them."""
    nodes = [s.node for e in indices(stage) for s in e.free_symbols if isinstance(s, IndirectSymbol)]
    accesses = [(n.buffer, n.index) for n in stage.loads] + [(s.buffer, s.index) for s in stage.stores]
    return any(n.op == "load" and n.buffer in local for n in topological(nodes)) or any(
        buffer in local and any(isinstance(s, IndirectSymbol) for s in e.free_symbols)
        for buffer, e in accesses
    )
