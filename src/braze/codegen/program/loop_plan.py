"""The loop plan: how the loops of a kernel become machine loops, decided before any code is written.

A plan is a pure function of a kernel and a vector width, and prints as what it says. For each stage it
names the variable that lies on vector lanes, the order of the others, the copies of the body that run
interleaved, how tails and reductions are done, and what kind of memory access every load and store becomes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from braze.codegen.program.loop_cost import (
    access_kind,
    body_cost,
    choose_vector,
    extent,
    index_uses,
    is_transposed,
    most_copies,
    pressure,
    stage_price,
    tile_variable,
)
from braze.ops.kernel import Kernel, Stage
from braze.runtime.expr import Expr, Symbol, as_expr, maximum, mod, product

__all__ = ["Chunk", "LoopPlan", "StagePlan", "Strip", "plan_kernel"]

Strategy = Literal["pointwise", "row", "column", "scan", "scatter", "tile", "once"]
Tail = Literal["none", "mask", "scalar"]

_STRIP_TRIPS = 128
_WELFORD_STRIP = 4096
_CHUNK_ELEMENTS = 16384
_MAX_CHUNKS = 64
_TILE_BLOCK = 8
_TEMPORARIES = 8
"""Registers that are kept free for what happens inside a math function."""
_MOST_CODE = 2000
"""Vector instructions of all copies of a body, beyond which compiling takes too long."""
_SPLIT_UNITS = 16
_SPLIT_ELEMENTS = 1 << 17


@dataclass(frozen=True)
class Strip:
    """A reduction loop is cut into strips of ``length`` iterations, whose results are added up one by one:
    long sums stay accurate, and a variance finds its strip in the cache for its second pass."""

    var: Symbol
    length: int


@dataclass(frozen=True)
class Chunk:
    """A reduction is split over threads: ``count`` chunks of ``length`` iterations of ``var``, each with a
    partial result, combined in order after a barrier. Neither number depends on the threads."""

    var: Symbol
    length: Expr
    count: Expr


@dataclass(frozen=True)
class StagePlan:
    """One stage. ``loops``: the variables run one by one, outermost first; ``rloops``: the reduction
    variables, the vector one last; ``unroll``: copies of the body; ``block``: elements of the vector
    variable that threads take as one unit (0: whole rows); ``serial``: one thread does everything;
    ``tile``: the variable that makes square tiles with the vector one, in which what lies along it in
    memory is transposed."""

    strategy: Strategy
    loops: tuple[Symbol, ...]
    vector: Symbol | None
    lanes: int
    unroll: int
    tail: Tail
    rloops: tuple[Symbol, ...] = ()
    strip: Strip | None = None
    chunk: Chunk | None = None
    block: int = 0
    serial: bool = False
    tile: Symbol | None = None
    accesses: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """The plan as text, one fact a line."""
        head: str = self.strategy
        if self.vector is not None:
            copies = f", {self.unroll} copies" if self.unroll > 1 else ""
            head += f": {self.vector.name} on {self.lanes} lanes{copies}, tail {self.tail}"
        out: list[str] = [head]
        if self.loops:
            out.append("loops " + ", ".join(v.name for v in self.loops))
        if self.tile is not None:
            out.append(f"tiles of {self.lanes} {self.tile.name} by {self.lanes} {self.vector.name}")  # type: ignore[union-attr]
        if self.rloops:
            out.append("reduces " + ", ".join(v.name for v in self.rloops))
        if self.strip is not None:
            out.append(f"strips of {self.strip.length} {self.strip.var.name}")
        if self.chunk is not None:
            out.append(f"split into {self.chunk.count} chunks of {self.chunk.length} {self.chunk.var.name}")
        if self.block:
            assert self.vector is not None
            out.append(f"threads take blocks of {self.block} {self.vector.name}")
        if self.serial:
            out.append("on one thread")
        out += self.accesses
        return out


@dataclass(frozen=True)
class LoopPlan:
    """A kernel's plan. ``outer`` empty: every stage is a phase of its own, partitioned by itself, with a
    barrier before the next; else threads share out the outer points and run all stages for each.
    ``shared``: how they do where an outer variable lies on lanes throughout all stages."""

    lanes: int
    outer: tuple[Symbol, ...]
    shared: StagePlan | None
    stages: tuple[StagePlan, ...]

    def __str__(self) -> str:
        lines = [f"plan for {self.lanes} lanes:"]
        indent = "  "
        if self.outer:
            lines.append("  threads share " + ", ".join(v.name for v in self.outer) + ":")
            if self.shared is not None:
                lines += ["    " + line for line in self.shared.lines()]
            indent = "    "
        for stage in self.stages:
            own = stage.lines()
            lines.append(indent + own[0])
            lines += [indent + "  " + line for line in own[1:]]
        return "\n".join(lines)


def plan_kernel(kernel: Kernel, lanes: int, masks: bool) -> LoopPlan:
    """The plan of ``kernel`` for vectors of ``lanes`` 32-bit elements; ``masks``: the target has masked
    memory access for all element types (AVX-512)."""
    outer = kernel.outer
    stages = tuple(_plan_stage(s, lanes, masks, partitioned=not outer) for s in kernel.stages)
    vector = _outer_vector(kernel, stages, lanes, masks) if outer and lanes > 1 else None
    if vector is None:
        return LoopPlan(lanes, outer, None, stages)
    tail = _tail(lanes, masks)
    copies = _outer_copies(kernel, vector, lanes)
    shared = StagePlan(
        "once", tuple(v for v in outer if v != vector), vector, lanes, copies, tail, block=lanes * copies
    )
    return LoopPlan(
        lanes, outer, shared, tuple(_plan_under(s, vector, lanes, copies, tail) for s in kernel.stages)
    )


def _outer_vector(kernel: Kernel, stages: tuple[StagePlan, ...], lanes: int, masks: bool) -> Symbol | None:
    """The outer variable to put on lanes throughout, where that is cheaper than lanes within each stage:
    softmax and the like along a dimension that is not the contiguous one."""
    local = {b.name for b in kernel.buffers if b.role == "local"}
    for stage in kernel.stages:
        if any(s.mode != "set" for s in stage.stores) or index_uses(stage, local):
            return None
    best: Symbol | None = None
    price = sum(
        stage_price(stage, plan.vector, lanes, masks, local)
        for stage, plan in zip(kernel.stages, stages, strict=True)
    )
    for var in kernel.outer:
        n = extent(var)
        if n is not None and n < lanes:
            continue
        here = sum(stage_price(stage, var, lanes, masks, local) for stage in kernel.stages)
        if here < price:
            best, price = var, here
    return best


def _outer_copies(kernel: Kernel, vector: Symbol, lanes: int) -> int:
    cost = sum(body_cost(s, None) for s in kernel.stages)
    copies = 4 if cost <= 40 else 2 if cost <= 100 else 1
    n = extent(vector)
    while copies > 1 and n is not None and n < copies * lanes:
        copies //= 2
    for stage in kernel.stages:
        copies = most_copies(stage, vector, lanes, copies)
    return copies


def _plan_under(stage: Stage, vector: Symbol, lanes: int, copies: int, tail: Tail) -> StagePlan:
    """A stage inside a loop over lanes of an outer variable: all its own loops are scalar."""
    strategy: Strategy = "pointwise"
    loops, rloops, strip = stage.vars, stage.rvars, None
    scan = next((n for n in stage.nodes if n.op == "scan"), None)
    if scan is not None:
        along = scan.attrs[1].symbol  # type: ignore[attr-defined]
        strategy, rloops, loops = "scan", (along,), tuple(v for v in loops if v != along)
    elif stage.reductions:
        strategy = "column"
        kinds = {n.attrs[0] for n in stage.reductions}
        strip = _strip(rloops, None, 1, kinds, lanes * copies)
    plan = StagePlan(strategy, loops, vector, lanes, copies, tail, rloops=rloops, strip=strip)
    return _describe(stage, plan)


def _plan_stage(stage: Stage, lanes: int, masks: bool, partitioned: bool) -> StagePlan:
    atomic = any(s.mode != "set" for s in stage.stores)
    if atomic:
        return _describe(stage, _plan_scatter(stage, lanes, masks, partitioned))
    if any(n.op == "scan" for n in stage.nodes):
        return _describe(stage, _plan_scan(stage, lanes, masks, partitioned))
    if stage.rvars and stage.reductions:
        return _describe(stage, _plan_reduction(stage, lanes, masks, partitioned))
    if not stage.vars:
        return _describe(stage, StagePlan("once", (), None, 1, 1, "none"))
    vector = choose_vector(stage, stage.vars, lanes, masks)
    tile = None if vector is None else tile_variable(stage, vector, lanes)
    if tile is not None:
        return _describe(stage, _plan_tile(stage, vector, tile, lanes, masks, partitioned))
    unroll = _unroll(stage, vector, lanes, masks)
    loops = tuple(v for v in stage.vars if v != vector)
    block = _block(loops, vector, lanes, unroll) if partitioned else 0
    return _describe(
        stage, StagePlan("pointwise", loops, vector, lanes, unroll, _tail(lanes, masks), block=block)
    )


def _plan_tile(
    stage: Stage, vector: Symbol | None, tile: Symbol, lanes: int, masks: bool, partitioned: bool
) -> StagePlan:
    loops = tuple(v for v in stage.vars if v not in (vector, tile))
    block = _TILE_BLOCK * lanes if partitioned else 0
    return StagePlan("tile", loops, vector, lanes, 1, _tail(lanes, masks), tile=tile, block=block)


def _tail(lanes: int, masks: bool) -> Tail:
    if lanes == 1:
        return "none"
    return "mask" if masks else "scalar"


def _unroll(stage: Stage, vector: Symbol | None, lanes: int, masks: bool) -> int:
    """Copies that run interleaved. A body is mostly one long chain, each operation of which waits for the one
    before; copies fill the time, as long as their values fit the registers. A few copies of a cheap body pay
    in any case: they save loop overhead."""
    cost = body_cost(stage, vector)
    most = 4 if cost <= 12 else 2 if cost <= 40 else 1
    if vector is not None:
        registers = (32 if masks else 16) - _TEMPORARIES
        copies = 4
        while copies > 1 and (copies * pressure(stage, vector) > registers or copies * cost > _MOST_CODE):
            copies //= 2
        most = max(most, copies)
    n = None if vector is None else extent(vector)
    if n is not None:
        while most > 1 and n < most * lanes:
            most //= 2
    return most if vector is None else most_copies(stage, vector, lanes, most)


def _block(loops: tuple[Symbol, ...], vector: Symbol | None, lanes: int, unroll: int) -> int:
    """Whole rows as units where there are many; else blocks, so that a few long rows are shared out too."""
    rows = product(v.size for v in loops).constant
    if vector is None or (rows is not None and rows >= 64):
        return 0
    group = lanes * unroll
    return max(1, 1024 // group) * group


def _plan_scan(stage: Stage, lanes: int, masks: bool, partitioned: bool) -> StagePlan:
    scan = next(n for n in stage.nodes if n.op == "scan")
    along = scan.attrs[1].symbol  # type: ignore[attr-defined]
    others = tuple(v for v in stage.vars if v != along)
    vector = choose_vector(stage, (*others, along), lanes, masks, scalar_allowed=True, scanned=along)
    loops = tuple(v for v in others if v != vector)
    if vector is None:
        return StagePlan("scan", loops, None, 1, 1, "none", rloops=(along,))
    block = lanes if partitioned and vector != along else 0
    return StagePlan("scan", loops, vector, lanes, 1, _tail(lanes, masks), rloops=(along,), block=block)


def _plan_scatter(stage: Stage, lanes: int, masks: bool, partitioned: bool) -> StagePlan:
    """Additions stay in order, so that results never depend on threads. Where one variable walks through
    neighbouring elements of distinct rows, threads and lanes share out that variable; else one thread does
    all."""
    adds = [s for s in stage.stores if s.mode != "set"]
    for var in reversed(stage.vars):
        if all(_distinct_along(s.index, var) for s in adds):
            others = tuple(v for v in stage.vars if v != var)
            n = extent(var)
            unroll = 4
            while unroll > 1 and n is not None and n < unroll * lanes:
                unroll //= 2
            unroll = most_copies(stage, var, lanes, unroll)
            block = lanes * unroll if partitioned else 0
            return StagePlan(
                "scatter", (), var, lanes, unroll, _tail(lanes, masks), rloops=others, block=block
            )
    return StagePlan("scatter", (), None, 1, 1, "none", rloops=stage.vars, serial=partitioned)


def _distinct_along(e: Expr, var: Symbol) -> bool:
    """Whether ``e`` is ``k * size(var) + var``: different values of ``var`` never meet in one element."""
    split = e.coefficient(var)
    return split is not None and split[0] == 1 and mod(split[1], var.size) == 0


def _plan_reduction(stage: Stage, lanes: int, masks: bool, partitioned: bool) -> StagePlan:
    vector = choose_vector(stage, (*stage.vars, *stage.rvars), lanes, masks)
    row = vector in stage.rvars
    loops = tuple(v for v in stage.vars if v != vector)
    rloops = tuple(v for v in stage.rvars if v != vector)
    cost = body_cost(stage, vector)
    unroll = 4 if cost <= 20 else 2 if cost <= 60 else 1
    if not row and cost <= 8:  # wide: a long walk down a column wants many bytes of each row
        unroll = 16 // len({(n.attrs[0], n.args) for n in stage.reductions})
        unroll = 1 << max(unroll, 2).bit_length() - 1
    n = None if vector is None else extent(vector)
    if n is not None:
        while unroll > 1 and n < unroll * lanes:
            unroll //= 2
    if vector is not None:
        unroll = most_copies(stage, vector, lanes, unroll)
    if row:
        assert vector is not None
        rloops = (*rloops, vector)
    elif vector is None:
        unroll = 1
    group = lanes * unroll if row else 1
    kinds = {n.attrs[0] for n in stage.reductions}
    strip = _strip(rloops, vector if row else None, group, kinds, lanes * unroll)
    block = 0
    if partitioned and not row and vector is not None:
        block = lanes * unroll
    chunk = _chunk(stage, loops, vector, row, rloops, strip, group, block) if partitioned else None
    return StagePlan(
        "row" if row else "column",
        loops,
        vector,
        lanes if vector is not None else 1,
        unroll,
        _tail(lanes, masks),
        rloops=rloops,
        strip=strip,
        chunk=chunk,
        block=block,
    )


def _strip(
    rloops: tuple[Symbol, ...], vector: Symbol | None, group: int, kinds: set[object], width: int
) -> Strip | None:
    if not kinds & {"sum", "prod", "welford"}:
        return None
    most = _STRIP_TRIPS
    if "welford" in kinds:
        most = max(1, min(most, _WELFORD_STRIP // width))
    trips = 1
    for var in reversed(rloops):
        n = extent(var)
        step = group if var == vector else 1
        here = None if n is None else -(-n // step)
        if here is None or trips * here > most:
            return Strip(var, max(1, most // trips) * step)
        trips *= max(1, here)  # none where the loop is empty
    return None


def _chunk(
    stage: Stage,
    loops: tuple[Symbol, ...],
    vector: Symbol | None,
    row: bool,
    rloops: tuple[Symbol, ...],
    strip: Strip | None,
    group: int,
    block: int,
) -> Chunk | None:
    units = product(v.size for v in loops)
    if not row and vector is not None:
        units = units * ((vector.size + block - 1) // block)
    count = units.constant
    if count is None or count >= _SPLIT_UNITS:
        return None
    total = product(v.size for v in (*stage.vars, *rloops)).constant
    if total is not None and total < _SPLIT_ELEMENTS:
        return None
    allowed = rloops if strip is None else rloops[: rloops.index(strip.var) + 1]
    var = max(allowed, key=lambda v: extent(v) or 1 << 62)
    inner = product(v.size for v in stage.vars).constant or 1
    for v in rloops:
        if v != var:
            inner *= extent(v) or 1
    step = group if row and var == vector else 1
    if strip is not None and strip.var == var:
        step = strip.length
    least = -(-max(1, _CHUNK_ELEMENTS // inner) // step) * step
    wanted = maximum(as_expr(least), ((var.size + _MAX_CHUNKS - 1) // _MAX_CHUNKS + step - 1) // step * step)
    return Chunk(var, wanted, (var.size + wanted - 1) // wanted)


def _describe(stage: Stage, plan: StagePlan) -> StagePlan:
    accesses = []
    for node in stage.loads:
        accesses.append(f"load {node.buffer}: {_kind(node.index, plan)}")
    for store in stage.stores:
        word = "store" if store.mode == "set" else store.mode
        accesses.append(f"{word} {store.buffer}: {_kind(store.index, plan)}")
    fields = {**plan.__dict__, "accesses": tuple(dict.fromkeys(accesses))}
    return StagePlan(**fields)


def _kind(e: Expr, plan: StagePlan) -> str:
    if (
        plan.tile is not None
        and plan.vector is not None
        and is_transposed(e, plan.vector, plan.tile, plan.lanes)
    ):
        return "transposed"
    return access_kind(e, plan.vector, plan.lanes)


def feeds_reduction(stage: Stage) -> set[int]:
    """The ids of the nodes that some reduction needs."""
    found: set[int] = set()
    for node in reversed(stage.nodes):
        if node.op == "reduction" or node.id in found:
            found.update(i.id for i in node.inputs)
    return found
