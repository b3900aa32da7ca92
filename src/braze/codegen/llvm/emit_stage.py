"""One stage of a kernel: its nodes in the loops that they belong to, its reductions, its stores."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from braze.codegen.llvm.builder import Value
from braze.codegen.llvm.emit_convert import convert
from braze.codegen.llvm.emit_scope import Lanes
from braze.codegen.llvm.emit_tile import TILE_ROWS, TileEmitter
from braze.codegen.llvm.plan import StagePlan
from braze.ops.dag import Node
from braze.ops.kernel import Stage, Store
from braze.runtime.expr import Expr, Symbol

__all__ = ["StageEmitter"]


class StageEmitter(TileEmitter):
    """Emits stages.

    ``scalar_locals`` are the local buffers that live in registers; ``locals`` their values, by name and copy.
    """

    scalar_locals: frozenset[str]
    locals: dict[tuple[str, int], Value]

    def local_index(self, buffer: str, e: Expr) -> Expr:
        """An index as it addresses the buffer's memory."""
        raise NotImplementedError

    def begin_stage(self, stage: Stage, plan: StagePlan) -> None:
        """Take up a stage: nothing of it is emitted yet."""
        self.stage = stage
        self.plan = plan
        self.find_users(stage)

    def prepare(self, ctxs: Sequence[Lanes]) -> None:
        """Emit, at this level, every node whose variables are all bound, and as much of every address."""
        held = self.held_back
        self.emit_ready([n for n in self.stage.nodes if n.id not in held] if held else self.stage.nodes, ctxs)
        self.prepare_addresses()

    def emit_ready(self, nodes: Sequence[Node], ctxs: Sequence[Lanes]) -> None:
        """Emit those of ``nodes`` whose variables are bound and whose inputs are there."""
        bound = self.bound.keys()
        for node in nodes:
            if node.id in self.values or not node.free <= bound or node.op in ("reduction", "scan"):
                continue
            for ctx in ctxs if self.varies_any(node, ctxs) else ctxs[:1]:
                if node.id not in ctx.values and self._has_inputs(node, ctx):
                    self.emit_node(node, ctx)

    def varies_any(self, node: Node, ctxs: Sequence[Lanes]) -> bool:
        """Whether the copies of an unrolled body compute different values."""
        return bool(ctxs) and self.varies(node, ctxs[0])

    def _has_inputs(self, node: Node, ctx: Lanes) -> bool:
        return all(i.id in self.values or i.id in ctx.values for i in node.inputs)

    def prepare_addresses(self) -> None:
        """Partial addresses of all accesses, at the level where they stop changing."""
        for node in self.stage.loads:
            if node.buffer not in self.scalar_locals:
                self.prepare_pointer(node.buffer, self.local_index(node.buffer, node.index))
        for store in self.stage.stores:
            if store.buffer not in self.scalar_locals:
                self.prepare_pointer(store.buffer, self.local_index(store.buffer, store.index))

    def prepare_splats(self, var: Symbol, lanes: int) -> None:
        """Uniform operands of what runs on lanes, spread before the loop."""
        if lanes == 1:
            return
        point = Lanes(var, lanes)
        for node in self.stage.nodes:
            if var in node.free and node.op != "load":
                for arg in node.args:
                    if arg.id in self.values and arg.op != "constant":
                        self.vector(arg, point)

    # -- running ----------------------------------------------------------------------------------------
    def emit_partitioned(self, stage: Stage, plan: StagePlan) -> None:
        """The share of one thread of a stage that is partitioned by itself."""
        self.begin_stage(stage, plan)
        point = [Lanes()]
        with self.unless_empty(stage.vars), self.scope():
            self.prepare(point)

            def rows(start: Value | None, stop: Value | None) -> None:
                self.prepare(point)
                self.emit_row(start, stop)

            self.shared_loop(self.scalar_loops(), plan, rows)

    def emit_nested(self, stage: Stage, plan: StagePlan, ctxs: list[Lanes] | None = None) -> None:
        """A whole stage, for one point of the kernel's outer loops, or a group of lanes of one of them."""
        self.begin_stage(stage, plan)
        with self.unless_empty(stage.vars), self.scope():
            if ctxs is not None:
                self.prepare(ctxs)
                self.nest(plan.loops, ctxs, lambda: self.emit_point(ctxs))
                return
            point = [Lanes()]
            self.prepare(point)
            self.nest(self.scalar_loops(), point, lambda: self.emit_row(None, None))

    def scalar_loops(self) -> tuple[Symbol, ...]:
        """The loops around the one over lanes; of a tile variable, its tiles."""
        if self.plan.tile is None:
            return self.plan.loops
        rows = self.plan.lanes * TILE_ROWS
        self.tile_band = Symbol("band", 0, (self.plan.tile.size + rows - 1) // rows - 1)
        return (*self.plan.loops, self.tile_band)

    def emit_row(self, start: Value | None, stop: Value | None) -> None:
        """What runs inside the scalar loops: a loop over lanes, or a single point."""
        if self.plan.strategy == "scan" and self.plan.vector in self.plan.rloops:
            self.emit_row_scan()
            return
        if self.plan.tile is not None:
            self.emit_tiles(start, stop, self.emit_point)
            return
        self.over_lanes(start, stop, self.emit_point)

    def over_lanes(
        self, start: Value | None, stop: Value | None, point: Callable[[list[Lanes]], None]
    ) -> None:
        """``point`` for each group of lanes of the stage's vector variable, or once if none of its
        variables is."""
        plan = self.plan
        if plan.vector is None or plan.vector not in self.stage.vars:
            point([Lanes()])
            return
        self.prepare_splats(plan.vector, plan.lanes)
        if start is None or stop is None:
            start, stop = self.i64(0), self.scalar(plan.vector.size)

        def body(ctxs: list[Lanes], carried: list[Value]) -> list[Value]:
            point(ctxs)
            return []

        for segment in self.lane_segments(plan, start, stop):
            self.lane_loop(plan.vector, segment, [], body)

    def emit_point(self, ctxs: list[Lanes]) -> None:
        """One point of the stage's variables (a group of lanes): nodes, reductions, stores."""
        with self.scope():
            if self.plan.strategy == "scan":
                self.emit_scans(ctxs)
                return
            if self.plan.strategy == "scatter":
                self.prepare(ctxs)
                self.nest(self.plan.rloops, ctxs, lambda: self.emit_copies(ctxs))
                return
            if self.reductions:
                self.emit_reductions(ctxs)
            self.emit_copies(ctxs)

    def emit_copies(self, ctxs: Sequence[Lanes]) -> None:
        """The copies' remaining nodes, one by one for all of them, so that while one waits for a result the
        others go on; then their stores."""
        self.emit_ready(self.after_nodes, ctxs)
        for ctx in ctxs:
            self.emit_stores(ctx)

    def emit_after_reduction(self, ctx: Lanes) -> None:
        """What the stores need and is not emitted yet, then the stores."""
        self.emit_ready(self.after_nodes, [ctx])
        self.emit_stores(ctx)

    def emit_stores(self, ctx: Lanes) -> None:
        """The stores of one copy, in order."""
        for store in self.stage.stores:
            self.emit_store(store, ctx)

    def emit_store(self, store: Store, ctx: Lanes) -> None:
        """Convert to the buffer's type and write."""
        target = self.dtype_of(store.buffer)
        node = store.value
        value = convert(self.fb, self.get(node, ctx), node.dtype, target)
        if store.buffer in self.scalar_locals:
            self.locals[store.buffer, ctx.offset] = value
            return
        value = self.to_memory(value)
        if ctx.lanes > 1 and value.type.lanes == 1:
            value = self.fb.splat(value, ctx.lanes)
        if store.mode == "atomic_add":
            self.add_to(store.buffer, store.index, value, store.mask, ctx)
            return
        self.store(store.buffer, self.local_index(store.buffer, store.index), value, store.mask, ctx)
