"""From a kernel and its loop plan to the program that every thread runs."""

from __future__ import annotations

from collections.abc import Sequence

from braze.codegen.program import reduce, scan, tile
from braze.codegen.program.builder import Builder
from braze.codegen.program.grammar import LANE, Barrier
from braze.codegen.program.lanes import Copy
from braze.codegen.program.loop_plan import LoopPlan, StagePlan
from braze.codegen.program.program import Program, Scratch
from braze.codegen.program.stage import (
    Frame,
    Making,
    emit_copies,
    lane_parts,
    maybe_empty,
    nest,
    over_lanes,
    prepare,
    shared_loop,
)
from braze.errors import CodegenError
from braze.ops.kernel import BufferArg, Kernel, Stage
from braze.runtime.expr import Expr, Symbol

__all__ = ["build_program"]

_ONE_BY_ONE = StagePlan("once", (), None, 1, 1, "none")


def build_program(kernel: Kernel, plan: LoopPlan) -> Program:
    """The program of ``kernel``: its stages one after another with barriers between them, or, where the
    kernel has outer loops, all stages for each of their points. Raises ``CodegenError`` for what has no
    program."""
    b = Builder()
    rows = frozenset(x.name for x in kernel.buffers if x.role == "local")
    frame = Frame(b, kernel, plan, {x.name: x.dtype for x in kernel.buffers}, rows)
    for symbol in (*kernel.sizes, LANE):
        b.bound[symbol] = None
    _place_locals(frame)
    if plan.outer:
        _outer(frame)
    else:
        _stages(frame)
    arguments = tuple(x for x in kernel.buffers if x.role != "local")
    return Program(
        kernel.name, plan.lanes, arguments, kernel.sizes, tuple(frame.scratch), tuple(b.checks), b.body
    )


def _place_locals(frame: Frame) -> None:
    """Locals that are one value for each outer point stay in registers; the others get rows of scratch."""
    kernel, shared = frame.kernel, not frame.plan.outer
    inner: set[Symbol] = {v for s in kernel.stages for v in s.vars}
    used: dict[str, bool] = {}
    for stage in kernel.stages:
        accesses = [(n.buffer, n.index) for n in stage.loads] + [(s.buffer, s.index) for s in stage.stores]
        for name, index in accesses:
            used[name] = used.get(name, False) or not index.free_symbols.isdisjoint(inner)
    registers = set()
    for x in kernel.buffers:
        if x.role != "local" or x.name not in used:
            continue
        if not used[x.name] and not shared:
            registers.add(x.name)
            continue
        size = x.numel if shared else _row_extent(frame, x)
        frame.scratch.append(Scratch(x.name, x.dtype, size, "shared" if shared else "thread"))
    frame.registers = frozenset(registers)


def _row_extent(frame: Frame, x: BufferArg) -> Expr:
    """One more than the greatest index into a row."""
    greatest: Expr | None = None
    for stage in frame.kernel.stages:
        for store in stage.stores:
            if store.buffer == x.name:
                index = frame.local_index(x.name, store.index)
                top = index.substitute({v: v.size - 1 for v in stage.vars})
                greatest = top if greatest is None or top != greatest else greatest
    if greatest is None:
        raise CodegenError(f"local buffer {x.name} is never written", node=frame.kernel.name)
    return greatest + frame.lane_group


def _making(frame: Frame, stage: Stage, plan: StagePlan) -> Making:
    """A stage at its beginning; with an outer variable on lanes, whatever comes from a local differs between
    lanes."""
    m = Making(frame, stage, plan)
    reduce.reduces(m)
    if frame.plan.shared is not None:
        found: set[int] = set()
        for node in stage.nodes:
            local = node.op == "load" and node.buffer in frame.rows
            if local or any(i.id in found for i in node.inputs):
                found.add(node.id)
        m.on_lanes = frozenset(found)
    return m


# -- stages by themselves ------------------------------------------------------------------------------
def _stages(frame: Frame) -> None:
    """Each stage is shared out by itself, behind the one before."""
    b = frame.b
    makings: list[tuple[Making, Symbol | None]] = []
    chunks = 0
    for stage, plan in zip(frame.kernel.stages, frame.plan.stages, strict=True):
        m, chunk = _making(frame, stage, plan), None
        if plan.chunk is not None:
            chunk = Symbol(f"c{chunks}", 0, plan.chunk.count - 1)
            reduce.place_partials(m, chunk)
            chunks += 1
        makings.append((m, chunk))
    for position, (m, chunk) in enumerate(makings):
        if position:
            b.body.append(Barrier())
        if chunk is None:
            _partitioned(m)
            continue
        reduce.emit_chunks(m, chunk)
        b.body.append(Barrier())
        reduce.emit_merge(m, chunk)


def _partitioned(m: Making) -> None:
    """The share of one thread of a stage."""
    point = [Copy()]
    band = None if m.plan.tile is None else tile.band_of(m)

    def rows(start: Expr | None, stop: Expr | None) -> None:
        prepare(m, point)
        _row(m, band, start, stop)

    with m.b.when(maybe_empty(m.stage.vars)), m.b.scope():
        prepare(m, point)
        shared_loop(m.b, _scalar_loops(m, band), m.plan, rows)


def _scalar_loops(m: Making, band: Symbol | None) -> tuple[Symbol, ...]:
    """The loops around the one over lanes; of a tile variable, its bands."""
    return m.plan.loops if band is None else (*m.plan.loops, band)


def _row(m: Making, band: Symbol | None, start: Expr | None, stop: Expr | None) -> None:
    """What runs inside the scalar loops: a loop over lanes, or a single point."""
    if m.plan.strategy == "scan" and m.plan.vector in m.plan.rloops:
        scan.emit_row_scan(m)
    elif band is not None:
        tile.emit_tiles(m, band, start, stop)
    else:
        over_lanes(m, start, stop, lambda copies: _point(m, copies))


def _point(m: Making, copies: list[Copy]) -> None:
    """One point of the stage's variables (a group of lanes): nodes, reductions, stores."""
    with m.b.scope():
        if m.plan.strategy == "scan":
            scan.emit_scan(m, copies)
        elif m.plan.strategy == "scatter":
            prepare(m, copies)
            nest(m, m.plan.rloops, copies, lambda: emit_copies(m, copies))
        else:
            if m.reductions:
                reduce.emit_reductions(m, copies)
            emit_copies(m, copies)


# -- stages inside outer loops -------------------------------------------------------------------------
def _outer(frame: Frame) -> None:
    """Threads share out the outer points, and run all stages for each."""
    b, shared = frame.b, frame.plan.shared
    stages = [
        _making(frame, stage, plan)
        for stage, plan in zip(frame.kernel.stages, frame.plan.stages, strict=True)
    ]
    if shared is None:

        def point(_start: Expr | None, _stop: Expr | None) -> None:
            for m in stages:
                _nested(m)

        shared_loop(b, frame.plan.outer, _ONE_BY_ONE, point)
        return
    vector = shared.vector
    assert vector is not None

    def group(copies: list[Copy]) -> None:
        for m in stages:
            _nested_on_lanes(m, copies)

    def block(start: Expr | None, stop: Expr | None) -> None:
        assert start is not None and stop is not None
        lane_parts(b, shared, vector, start, stop, group)

    with b.when(maybe_empty(frame.plan.outer)), b.scope():
        shared_loop(b, shared.loops, shared, block)


def _nested(m: Making) -> None:
    """A whole stage, for one point of the kernel's outer loops."""
    point: Sequence[Copy] = [Copy()]
    band = None if m.plan.tile is None else tile.band_of(m)
    with m.b.when(maybe_empty(m.stage.vars)), m.b.scope():
        prepare(m, point)
        nest(m, _scalar_loops(m, band), point, lambda: _row(m, band, None, None))


def _nested_on_lanes(m: Making, copies: list[Copy]) -> None:
    """A whole stage, for a group of lanes of one of the kernel's outer loops."""
    with m.b.when(maybe_empty(m.stage.vars)), m.b.scope():
        prepare(m, copies)
        nest(m, m.plan.loops, copies, lambda: _point(m, copies))
