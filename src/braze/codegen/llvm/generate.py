"""From a kernel to LLVM IR text: one module for each kernel, with names that depend on nothing but its
content.

Native interface of every function that is emitted here (a *phase* of a kernel)::

    void @<name>(ptr %err, ptr %b0, ptr %b1, ..., i64 %s0, ..., ptr %scratch, i64 %errbase, i64 %tid, i64 %nt)

with the kernel's buffers that are not local, in order, its sizes, in order, its scratch memory (64-byte
aligned), the number that is added to a failed check's id, and which thread of how many this is. Phases of
one kernel run one after another with a barrier between them.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch

from braze.codegen.llvm.builder import I64, PTR, FunctionBuilder, ModuleBuilder, Type, Value
from braze.codegen.llvm.emit_memory import MEMORY
from braze.codegen.llvm.emit_scope import Lanes
from braze.codegen.llvm.emit_stage import StageEmitter
from braze.codegen.llvm.plan import LoopPlan, StagePlan, plan_kernel
from braze.errors import CodegenError
from braze.ops.dag import Node
from braze.ops.dtypes import SHORT
from braze.ops.kernel import BufferArg, Kernel, Stage
from braze.runtime.expr import ZERO, Expr, Symbol, as_expr, product
from braze.runtime.target import Target

__all__ = ["KernelCode", "generate"]

_ERROR_FUNCTION = "braze_record_failure"
_PLACEHOLDER = "braze_kernel"
_ROW_ALIGN = 64


@dataclass(frozen=True)
class KernelCode:
    """The code of one kernel.

    ``functions``: the phases' symbols, each of the interface above. ``text``: the module. ``buffers`` and
    ``sizes``: the kernel's own names, in argument order; ``itemsizes``: for each buffer the bytes of an
    element, a multiple of which its address has to be. ``scratch_shared + nt * scratch_thread`` bytes of
    scratch are needed (expressions over the sizes). ``checks[k]`` is the check whose failure is reported as
    id ``errbase + k + 1``. ``parallel``: more than one thread can be of use.
    """

    name: str
    functions: tuple[str, ...]
    text: str
    plan: LoopPlan
    buffers: tuple[str, ...]
    itemsizes: tuple[int, ...]
    sizes: tuple[str, ...]
    scratch_shared: Expr
    scratch_thread: Expr
    checks: tuple[str, ...]
    parallel: bool


def _rounded(e: Expr, to: int) -> Expr:
    return (e + (to - 1)) // to * to


class KernelEmitter(StageEmitter):
    """Emits the phases of one kernel into one module."""

    def __init__(self, kernel: Kernel, plan: LoopPlan, module: ModuleBuilder) -> None:
        super().__init__()
        self.kernel = kernel
        self.loop_plan = plan
        self.module = module
        self.args = tuple(b for b in kernel.buffers if b.role != "local")
        self.number = {b.name: k for k, b in enumerate(self.args)}
        self.dtypes = {b.name: b.dtype for b in kernel.buffers}
        self.checks: list[str] = []
        self.functions: list[str] = []
        self.scratch_shared: Expr = ZERO
        self.scratch_thread: Expr = ZERO
        self.scratch_at: dict[str, tuple[Expr, str, bool]] = {}
        self.scalar_locals = self._place_locals()
        self.locals: dict[tuple[str, int], Value] = {}

    # -- locals -------------------------------------------------------------------------------------------
    def _place_locals(self) -> frozenset[str]:
        """Locals that are one value for each outer point stay in registers; the others get rows of
        scratch."""
        inner: set[Symbol] = {v for s in self.kernel.stages for v in s.vars}
        used: dict[str, bool] = {}
        for stage in self.kernel.stages:
            for name, index in [(n.buffer, n.index) for n in stage.loads] + [
                (s.buffer, s.index) for s in stage.stores
            ]:
                used[name] = used.get(name, False) or not index.free_symbols.isdisjoint(inner)
        in_registers = set()
        shared = not self.loop_plan.outer
        for b in self.kernel.buffers:
            if b.role != "local" or b.name not in used:
                continue
            if not used[b.name] and not shared:
                in_registers.add(b.name)
                continue
            row = b.numel if shared else self._row_extent(b)
            size = _rounded(row * b.dtype.itemsize, _ROW_ALIGN)
            if shared:
                self.scratch_at[b.name] = (self.scratch_shared, MEMORY[b.dtype], True)
                self.scratch_shared = self.scratch_shared + size
            else:
                self.scratch_at[b.name] = (self.scratch_thread, MEMORY[b.dtype], False)
                self.scratch_thread = self.scratch_thread + size
        return frozenset(in_registers)

    def _row_extent(self, b: BufferArg) -> Expr:
        """One more than the greatest index into a row."""
        greatest: Expr | None = None
        for stage in self.kernel.stages:
            for store in stage.stores:
                if store.buffer == b.name:
                    index = self.local_index(b.name, store.index)
                    top = index.substitute({v: v.size - 1 for v in stage.vars})
                    greatest = top if greatest is None or top != greatest else greatest
        if greatest is None:
            raise CodegenError(f"local buffer {b.name} is never written", node=self.kernel.name)
        return greatest + self.lane_group()

    def lane_group(self) -> int:
        """How many outer points run together: so many elements lie side by side at each place of a row."""
        shared = self.loop_plan.shared
        return 1 if shared is None else shared.lanes * shared.unroll

    def local_index(self, buffer: str, e: Expr) -> Expr:
        """Inside a row of a thread's own scratch: the index without its outer part."""
        if self.loop_plan.outer and buffer in self.dtypes and self._role(buffer) == "local":
            return e.substitute(dict.fromkeys(self.kernel.outer, 0)) * self.lane_group()
        return e

    def _role(self, buffer: str) -> str:
        return self.kernel.buffer(buffer).role

    # -- memory -------------------------------------------------------------------------------------------
    def dtype_of(self, buffer: str) -> torch.dtype:
        """A buffer's element type."""
        return self.dtypes[buffer]

    def memory_elem(self, buffer: str) -> str:
        """The LLVM type of a buffer's elements in memory."""
        if buffer in self.scratch_at:
            return self.scratch_at[buffer][1]
        return MEMORY[self.dtypes[buffer]]

    def base_pointer(self, buffer: str) -> Value:
        """The address of a buffer's first element."""
        if buffer not in self.scratch_at:
            return self.fb.params[f"b{self.number[buffer]}"]
        return self.scratch_pointers[buffer]

    def load(self, buffer: str, e: Expr, mask: Node | None, ctx: Lanes, varies: bool) -> Value:
        """As in memory; a local that lives in a register is just its value."""
        if buffer in self.scalar_locals:
            # one for all copies of a body, unless the copies are outer points
            return self.locals[buffer, 0 if self.loop_plan.shared is None else ctx.offset]
        e = self.local_index(buffer, e)
        if not self._is_lane_row(buffer):
            return super().load(buffer, e, mask, ctx, varies)
        address, type = self.pointer(buffer, e, ctx.offset), ctx.type(self.memory_elem(buffer))
        if mask is None:
            return self.fb.load(address, type)
        return self.fb.masked_load(address, type, self.vector(mask, ctx))

    def store(self, buffer: str, e: Expr, value: Value, mask: Node | None, ctx: Lanes) -> None:
        """As in memory; rows of several outer points lie side by side."""
        if not self._is_lane_row(buffer):
            super().store(buffer, e, value, mask, ctx)
            return
        address = self.pointer(buffer, e, ctx.offset)
        if mask is None:
            self.fb.store(value, address)
        else:
            self.fb.masked_store(value, address, self.vector(mask, ctx))

    def _is_lane_row(self, buffer: str) -> bool:
        """Whether a buffer holds rows of several outer points, one on each lane."""
        return self.loop_plan.shared is not None and buffer in self.dtypes and self._role(buffer) == "local"

    def begin_stage(self, stage: Stage, plan: StagePlan) -> None:
        """Take up a stage; with an outer variable on lanes, whatever comes from a local differs between
        lanes."""
        super().begin_stage(stage, plan)
        if self.loop_plan.shared is None:
            return
        found: set[int] = set()
        for node in stage.nodes:
            local = node.op == "load" and self._role(node.buffer) == "local"
            if local or any(i.id in found for i in node.inputs):
                found.add(node.id)
        self.on_lanes = frozenset(found)

    # -- functions ----------------------------------------------------------------------------------------
    def begin_function(self) -> None:
        """Open the next phase: its parameters, and the sizes as bound variables."""
        name = f"{_PLACEHOLDER}_{len(self.functions)}"
        self.functions.append(name)
        params: list[tuple[str, Type]] = [("err", PTR)]
        params += [(f"b{k}", PTR) for k in range(len(self.args))]
        params += [(f"s{k}", I64) for k in range(len(self.kernel.sizes))]
        params += [("scratch", PTR), ("errbase", I64), ("tid", I64), ("nt", I64)]
        self.fb = FunctionBuilder(self.module, name, params)
        self.err, self.err_base = self.fb.params["err"], self.fb.params["errbase"]
        self.tid, self.nthreads = self.fb.params["tid"], self.fb.params["nt"]
        for table in (self.bound, self.values, self.node_levels, self.scalars, self.pointers, self.splats):
            table.clear()
        self._log.clear()
        self.level = 0
        for k, s in enumerate(self.kernel.sizes):
            self.bound[s] = (0, self.fb.params[f"s{k}"])
        self.scratch_pointers: dict[str, Value] = {}

    def bind_scratch(self) -> None:
        """Addresses of scratch rows, at the head of the function."""
        own: Value | None = None
        for name, (offset, _, shared) in self.scratch_at.items():
            base = self.fb.params["scratch"]
            if not shared:
                if own is None:
                    start = self.fb.mul(self.tid, self.scalar(self.scratch_thread))
                    own = self.fb.gep(base, self.fb.add(start, self.scalar(self.scratch_shared)), "i8")
                base = own
            at = self.scalar(offset)
            self.scratch_pointers[name] = self.fb.gep(base, at, "i8") if offset.terms else base

    def _error_function(self) -> None:
        """``void (ptr err, i64 id, i64 value, i64 bound)``: the first failure wins."""
        if self.module.is_defined(_ERROR_FUNCTION):
            return
        fb = FunctionBuilder(
            self.module,
            _ERROR_FUNCTION,
            [("err", PTR), ("id", I64), ("value", I64), ("bound", I64)],
            attributes=("nounwind", "noinline", "cold"),
            linkage="internal",
        )
        first = fb.replace_if(fb.params["err"], 0, fb.params["id"])
        with fb.if_then(first):
            fb.store(fb.params["value"], fb.gep(fb.params["err"], self.i64(1), "i64"))
            fb.store(fb.params["bound"], fb.gep(fb.params["err"], self.i64(2), "i64"))
        fb.ret()

    # -- phases -------------------------------------------------------------------------------------------
    def emit(self) -> None:
        """Emit all phases."""
        if self.loop_plan.outer:
            self._emit_outer()
            return
        chunks: list[Symbol | None] = []
        for stage, plan in zip(self.kernel.stages, self.loop_plan.stages, strict=True):
            chunk = None
            if plan.chunk is not None:
                chunk = Symbol(f"c{len(chunks)}", 0, plan.chunk.count - 1)
                self.partial_prefix = chunk.name
                self._place_partials(stage, plan, plan.chunk.count)
            chunks.append(chunk)
        for stage, plan, chunk in zip(self.kernel.stages, self.loop_plan.stages, chunks, strict=True):
            self._begin_phase()
            if chunk is None:
                self.emit_partitioned(stage, plan)
            else:
                self.partial_prefix = chunk.name
                self._emit_chunks(stage, plan, chunk)
                self.fb.ret()
                self._begin_phase()
                self._emit_merge(stage, plan, chunk)
            self.fb.ret()

    def _begin_phase(self) -> None:
        self.begin_function()
        self.bind_scratch()

    def _emit_outer(self) -> None:
        self._begin_phase()
        stages = list(zip(self.kernel.stages, self.loop_plan.stages, strict=True))
        shared = self.loop_plan.shared
        if shared is None:

            def point(_start: Value | None, _stop: Value | None) -> None:
                for stage, plan in stages:
                    self.emit_nested(stage, plan)

            self.shared_loop(self.loop_plan.outer, StagePlan("once", (), None, 1, 1, "none"), point)
            self.fb.ret()
            return
        vector = shared.vector
        assert vector is not None

        def group(ctxs: list[Lanes], _: list[Value]) -> list[Value]:
            for stage, plan in stages:
                self.emit_nested(stage, plan, ctxs)
            return []

        def block(start: Value | None, stop: Value | None) -> None:
            assert start is not None and stop is not None
            for segment in self.lane_segments(shared, start, stop):
                self.lane_loop(vector, segment, [], group)

        with self.unless_empty(self.loop_plan.outer):
            self.shared_loop(shared.loops, shared, block)
        self.fb.ret()

    # -- split reductions ---------------------------------------------------------------------------------
    def _place_partials(self, stage: Stage, plan: StagePlan, count: Expr) -> None:
        self.begin_stage(stage, plan)
        kept = product(v.size for v in stage.vars)
        lanes = plan.lanes if plan.strategy != "row" else 1
        for red in self.reductions:
            for component, type in enumerate(red.reducer.types(lanes)):
                elem = "i8" if type.elem == "i1" else type.elem
                name = self.partial_name(red, component)
                self.scratch_at[name] = (self.scratch_shared, elem, True)
                size = _rounded(kept * count * Type(elem).align, _ROW_ALIGN)
                self.scratch_shared = self.scratch_shared + size

    def _emit_chunks(self, stage: Stage, plan: StagePlan, chunk: Symbol) -> None:
        """Phase one of a split reduction: this thread's chunks."""
        assert plan.chunk is not None
        split = plan.chunk
        self.begin_stage(stage, plan)
        point = [Lanes()]
        with self.unless_empty(stage.vars), self.scope():
            self.prepare(point)

            def group(ctxs: list[Lanes]) -> None:
                with self.scope():
                    self.prepare(ctxs)
                    low = self.fb.mul(self.scalar(chunk.expr), self.scalar(split.length))
                    high = self.fb.integer_minmax(
                        "smin", self.fb.add(low, self.scalar(split.length)), self.scalar(split.var.size)
                    )
                    states = self.reduced(ctxs, {split.var: (low, high)})
                    self.store_partials(ctxs, chunk.expr, states)

            def rows(start: Value | None, stop: Value | None) -> None:
                self.prepare(point)
                self.over_lanes(start, stop, group)

            self.shared_loop((*plan.loops, chunk), plan, rows)

    def _emit_merge(self, stage: Stage, plan: StagePlan, chunk: Symbol) -> None:
        """Phase two: merge the chunks' results, then what follows the reduction."""
        assert plan.chunk is not None
        count = plan.chunk.count
        self.begin_stage(stage, plan)
        with self.unless_empty(stage.vars), self.scope():

            def group(ctxs: list[Lanes]) -> None:
                with self.scope():
                    states = self.merge_partials(ctxs, chunk, self.scalar(count))
                    self.remember_results(ctxs, states)
                    for ctx in ctxs:
                        self.emit_after_reduction(ctx)

            def rows(start: Value | None, stop: Value | None) -> None:
                self.over_lanes(start, stop, group)

            self.shared_loop(plan.loops, plan, rows)


def generate(kernel: Kernel, target: Target | int, masks: bool | None = None) -> KernelCode:
    """The code of ``kernel`` for a target (or a number of 32-bit lanes; ``masks`` then says whether all
    element types have masked access). Raises ``CodegenError`` for what has no machine form."""
    lanes = target if isinstance(target, int) else target.lanes
    if masks is None:
        masks = lanes >= 16 and (isinstance(target, int) or target.has("avx512bw"))
    for b in kernel.buffers:
        if b.dtype not in SHORT:
            raise CodegenError(f"no machine code for elements of {b.dtype}", node=kernel.name)
    plan = plan_kernel(kernel, lanes, masks)
    module = ModuleBuilder(_PLACEHOLDER, vector_bits=max(128, 32 * lanes))
    emitter = KernelEmitter(kernel, plan, module)
    emitter.emit()
    text = module.text()
    name = "k_" + hashlib.sha256(text.encode()).hexdigest()[:20]
    text = text.replace(_PLACEHOLDER, name)
    return KernelCode(
        kernel.name,
        tuple(f.replace(_PLACEHOLDER, name) for f in emitter.functions),
        text,
        plan,
        tuple(b.name for b in emitter.args),
        tuple(b.dtype.itemsize for b in emitter.args),
        tuple(s.name for s in kernel.sizes),
        emitter.scratch_shared,
        emitter.scratch_thread,
        tuple(emitter.checks),
        any(not s.serial for s in plan.stages),
    )


def scratch_bytes(code: KernelCode, sizes: dict[str, int], nthreads: int) -> int:
    """Bytes of scratch for a call with these sizes."""
    shared = as_expr(code.scratch_shared).evaluate(sizes)
    return shared + nthreads * as_expr(code.scratch_thread).evaluate(sizes)
