"""From a schedule, and the native code of its segments, to the launch plan.

A *storage* of the schedule is one name in the plan: an input, a constant, a tensor allocated because it
leaves the graph, a result of an extern, or a range of the workspace. Externs see tensors: views of storages
are made where they are first needed and kept until their storage dies.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from msgspec.structs import replace

from braze._torch.devices import is_host
from braze._torch.schema import foreign_signature, is_operator
from braze.codegen.backend import THREADS, Call, KernelCall, SegmentCall
from braze.codegen.backends import Code
from braze.errors import CodegenError
from braze.ir.buffers import ConstantBuffer, InputBuffer
from braze.ir.externs import (
    BindSymbol,
    CheckCondition,
    ComputeNumber,
    ConcatKernel,
    ExternKernel,
    ExternKernelOut,
    FallbackKernel,
    ItemRef,
    NumberBuffer,
    TensorRef,
    leaves,
    map_leaves,
)
from braze.ir.graph import Graph
from braze.runtime.expr import ZERO, Expr, Symbol, Unknown
from braze.runtime.guard import BoolExpr
from braze.runtime.plan import (
    ARG_LEAVES,
    Allocate,
    Assert,
    BindItem,
    BindSize,
    BindStream,
    BindThreads,
    BufferArg,
    CallExtern,
    CheckSizes,
    CheckTensor,
    Compute,
    Free,
    Hold,
    Instruction,
    Launch,
    LoadConstant,
    Plan,
    Ref,
    Restride,
    Return,
    RunSegment,
    Slice,
    TensorProperty,
    View,
    Workspace,
    range_check,
)
from braze.runtime.spec import Layout, TensorSpec
from braze.schedule.limits import Limits
from braze.schedule.memory import aligned
from braze.schedule.schedule import ExternStep, Schedule, Segment, work_of

WORKSPACE = "workspace"
SCRATCH = "scratch"
ROW_MAJOR = frozenset(
    {
        "aten.mm.default",
        "aten.addmm.default",
        "aten.bmm.default",
        "aten.baddbmm.default",
        "mkldnn._linear_pointwise.default",
    }
)
"""Operators whose results are row-major whatever their arguments are. Those of others are looked at: an
operator may give other strides than its fake version says, or than it would give for the arguments of the
trace."""
_Given: TypeAlias = tuple[Expr, str, int, TensorProperty]
"""An integer that a call brings: its expression, a tensor, a dimension, which property of it."""


@dataclass(frozen=True)
class BuiltPlan:
    """A plan, with the tensors and callables that it names."""

    plan: Plan
    constants: dict[str, torch.Tensor]
    externs: dict[str, Callable[..., Any]]


def build_plan(
    schedule: Schedule,
    code: Code,
    limits: Callable[[str], Limits],
    name: str,
    symbols: Mapping[str, Symbol],
    conditions: Sequence[BoolExpr],
) -> BuiltPlan:
    """The launch plan of ``schedule``, for the code that the backends made; ``limits``: those of the backend
    for a type of device.

    The bounds of ``symbols``, and ``conditions``, are what the trace assumed of sizes: the plan checks each
    as soon as it knows these. Raises ``CodegenError`` where a size cannot be found among the inputs."""
    return _Builder(schedule, code, limits, name, symbols, list(conditions)).build()


@dataclass(eq=False)
class _Builder:
    schedule: Schedule
    code: Code
    limits: Callable[[str], Limits]
    name: str
    symbols: Mapping[str, Symbol]
    conditions: list[BoolExpr]
    out: list[Instruction] = field(default_factory=list)
    constants: dict[str, torch.Tensor] = field(default_factory=dict)
    externs: dict[str, Callable[..., Any]] = field(default_factory=dict)
    known: set[str] = field(default_factory=set)
    tensors: set[str] = field(default_factory=set)
    views: dict[tuple[str, object], str] = field(default_factory=dict)
    layouts: list[tuple[str, TensorSpec[Expr]]] = field(default_factory=list)
    numbers: dict[str, str] = field(default_factory=dict)
    taken: set[str] = field(default_factory=set)
    areas: dict[tuple[str, str], str] = field(default_factory=dict)
    late: set[int] = field(default_factory=set)
    streams: dict[str, str] = field(default_factory=dict)

    @property
    def graph(self) -> Graph:
        return self.schedule.graph

    def build(self) -> BuiltPlan:
        self.taken.update(self.graph.buffers, self.symbols, self.graph.known_symbols)
        inputs, numbers = self._inputs()
        self._constants()
        self._threads()
        waiting = list(self._wanted_areas())
        segments = iter(zip(self.code.calls, self.code.kinds, strict=True))
        counted = itertools.count()
        last = self._last_uses()
        for k, step in enumerate(self.schedule.steps):
            for area in [a for a in waiting if self._known_size(a.nbytes)]:
                waiting.remove(area)
                self.out.append(Workspace(area.name, area.nbytes, area.device))
            if isinstance(step, Segment):
                calls, kind = next(segments)
                for call in calls:
                    self._call_kernels(step, call, kind, next(counted))
            else:
                self._extern(step)
            self._free(last.get(k, ()))
        self.out.append(Return(tuple(self._output(o) for o in self.graph.outputs)))
        plan = Plan(
            self.name,
            tuple(inputs),
            tuple(self.out),
            self.code.errors,
            tuple(numbers),
            tuple(self.layouts),
        )
        return BuiltPlan(plan, self.constants, self.externs)

    # -- memory that the call lends ---------------------------------------------------------------------
    def _threads(self) -> None:
        """Where scratch memory depends on how many threads there are, that has to be known first."""
        every = [size for calls in self.code.calls for call in calls for size in call.scratch]
        if any(THREADS in size.free_symbols for size in every):
            self.out.append(BindThreads(THREADS.name))
            self.known.add(THREADS.name)

    def _wanted_areas(self) -> Iterator[Area]:
        """On each device the workspace, and one area of scratch memory, which serves all calls but those
        whose need is known only later: these get one of their own."""
        memory = self.schedule.memory
        needed: dict[str, list[Expr]] = {}
        for segment, calls in zip(self.schedule.segments, self.code.calls, strict=True):
            for call in calls:
                size = sum_sizes(call.scratch, self.limits(segment.device).alignment)
                if not self._known_size(size):
                    self.late.add(id(call))
                elif call.scratch:
                    needed.setdefault(segment.device, []).append(size)
        for device in dict.fromkeys([*memory.sizes, *needed]):
            if device in memory.sizes:
                yield Area(self._area(WORKSPACE, device), device, memory.sizes[device])
            if device in needed:
                yield Area(self._area(SCRATCH, device), device, max_size(needed[device]))

    def _area(self, stem: str, device: str) -> str:
        """The name of the workspace, or of the scratch memory, on a device."""
        if (stem, device) not in self.areas:
            self.areas[stem, device] = stem if is_host(device) else self._fresh(stem)
        return self.areas[stem, device]

    # -- the beginning ----------------------------------------------------------------------------------
    def _inputs(self) -> tuple[list[str], list[str]]:
        names: list[str] = []
        numbers: list[str] = []
        for k, item in enumerate(self.graph.inputs):
            if isinstance(item, InputBuffer):
                names.append(item.name)
                self.tensors.add(item.name)
                continue
            symbol = item.symbol if item is not None else None
            if symbol is not None and symbol.name not in names:
                names.append(symbol.name)
                numbers.append(symbol.name)
                self.known.add(symbol.name)
            else:
                names.append(self._fresh(f"unused{k}"))
        buffers = [b for b in self.graph.inputs if isinstance(b, InputBuffer)]
        given = [
            (e, buffer.name, dim, kind)
            for buffer in buffers
            for kind, values in _geometry(buffer.layout)
            for dim, e in enumerate(values)
        ]
        # What is there by itself is read first, and then what follows from sums and multiples; strides of a
        # dimension of size 1, which may be any, last.
        idle = {
            (buffer.name, dim)
            for buffer in buffers
            for dim, size in enumerate(buffer.layout.sizes)
            if size.constant == 1
        }
        given.sort(key=lambda one: (one[3] == "stride" and one[1:3] in idle, one[0].symbol is None))
        while (found := self._first_unknown(given)) is not None:
            (symbol, factor, rest), (_, tensor, dim, kind) = found
            self.known.add(symbol.name)
            self.out.append(BindSize(symbol.name, tensor, dim, kind, factor, rest))
        self._relied_on()
        for buffer in buffers:
            layout = buffer.layout
            for e in (*layout.sizes, *layout.strides):
                if not self._known_size(e):
                    raise CodegenError(f"the size {e} of input {buffer.name} follows from no input")
            self.out.append(CheckTensor(buffer.name, layout))
        return names, numbers

    def _first_unknown(self, given: Sequence[_Given]) -> tuple[Unknown, _Given] | None:
        """The first of the integers at hand that tells of one more symbol."""
        for one in given:
            unknown = one[0].unknown(self.known)
            if unknown is not None:
                return unknown, one
        return None

    def _relied_on(self) -> None:
        """Check the bounds of the inputs' symbols, and what the trace assumed of them."""
        for symbol in self.symbols.values():
            if symbol.name in self.known:
                self._check_range(symbol)
        self.out += map(CheckSizes, self._decidable())

    def _check_range(self, symbol: Symbol) -> None:
        check = range_check(symbol)
        if check is not None:
            self.out.append(check)

    def _decidable(self) -> list[BoolExpr]:
        """The conditions that were not checked so far, and whose symbols all have a value now."""
        found = [c for c in self.conditions if self._known_size(c)]
        self.conditions = [c for c in self.conditions if c not in found]
        return found

    def _known_size(self, e: Expr | BoolExpr) -> bool:
        return all(s.name in self.known for s in e.free_symbols)

    def _constants(self) -> None:
        used = self._used_storages()
        for name, buffer in self.graph.buffers.items():
            if isinstance(buffer, ConstantBuffer) and name in used:
                assert buffer.value is not None
                self.constants[name] = buffer.value
                self.tensors.add(name)
                self.out.append(LoadConstant(name, name))
                self._describe(name, buffer.layout)

    def _describe(self, name: str, layout: Layout) -> None:
        """Note what a tensor is that no instruction describes."""
        self.layouts.append((name, layout))

    def _used_storages(self) -> set[str]:
        used = self.graph.output_storages()
        for step in self.schedule.steps:
            used |= self._touched(step)
        return used

    def _touched(self, step: Segment | ExternStep) -> set[str]:
        if isinstance(step, ExternStep):
            return step.op.reads() | step.op.writes()
        return {b.name for k in step.kernels for b in k.kernel.buffers if b.role != "local"}

    def _last_uses(self) -> dict[int, list[str]]:
        """By step: storages with a tensor of their own that nobody uses afterwards."""
        kept = self.graph.output_storages()
        last: dict[str, int] = {}
        for k, step in enumerate(self.schedule.steps):
            for storage in self._touched(step):
                last[storage] = k
        by_step: dict[int, list[str]] = {}
        for storage, k in last.items():
            if storage not in kept and storage not in self.schedule.memory.offsets:
                by_step.setdefault(k, []).append(storage)
        return {k: sorted(v) for k, v in by_step.items()}

    # -- the steps --------------------------------------------------------------------------------------
    def _allocate(self, storage: str) -> None:
        """Make the tensor of a storage that leaves the graph, before it is first written; that of a number
        before it is first read."""
        if storage in self.tensors or storage in self.schedule.memory.offsets:
            return
        layout = self.graph.buffers[storage].layout
        self.tensors.add(storage)
        if storage in self.numbers:
            self.out.append(Hold(storage, self.numbers[storage], layout.dtype))
            return
        self.out.append(Allocate(storage, layout))

    def _pointer(self, storage: str) -> BufferArg:
        offset = self.schedule.memory.offsets.get(storage)
        if offset is None:
            return BufferArg(storage)
        return BufferArg(self._area(WORKSPACE, self._device(storage)), offset)

    def _device(self, storage: str) -> str:
        return self.graph.buffers[storage].layout.device

    def _call_kernels(self, segment: Segment, call: Call, kind: str, number: int) -> None:
        device = segment.device
        alignment = self.limits(device).alignment
        late = id(call) in self.late
        scratch = f"{SCRATCH}{number}" if late else self._area(SCRATCH, device)
        places: list[Expr] = []
        running = ZERO
        for size in call.scratch:
            places.append(running)
            running = running + aligned(size, alignment)
        pointers: list[BufferArg] = []
        for item in call.buffers:
            if isinstance(item, int):
                pointers.append(BufferArg(scratch, places[item]))
            else:
                self._allocate(item)
                pointers.append(self._pointer(item))
        if late:
            self.out.append(Workspace(scratch, running, device))
        if isinstance(call, SegmentCall):
            self.out.append(self._run(segment, call, tuple(pointers)))
        else:
            self.out.append(self._launch(call, tuple(pointers), kind))
        if late:
            self.out.append(Free((scratch,)))

    def _run(self, segment: Segment, call: SegmentCall, pointers: tuple[BufferArg, ...]) -> RunSegment:
        return RunSegment(
            call.entry,
            pointers,
            tuple(s.expr for s in call.sizes),
            segment.work,
            call.kernels,
            call.checked,
            THREADS.name if THREADS.name in self.known else None,
        )

    def _launch(self, call: KernelCall, pointers: tuple[BufferArg, ...], kind: str) -> Launch:
        if call.streamed and kind not in self.streams:
            self.streams[kind] = self._fresh("stream")
            self.out.append(BindStream(self.streams[kind], kind))
        return Launch(
            kind,
            call.entry,
            call.kernel.name,
            pointers,
            call.sizes,
            work_of(call.kernel),
            call.grid,
            self.streams[kind] if call.streamed else None,
            call.checked,
        )

    def _extern(self, step: ExternStep) -> None:
        op = step.op
        if isinstance(op, ConcatKernel):
            self._allocate(op.buffer.storage)
        elif isinstance(op, BindSymbol):
            number = self.numbers.get(op.source.buffer.storage)
            self.out.append(BindItem(op.symbol, number or self._tensor(op.source)))
            self._learned(op.symbol)
        elif isinstance(op, ComputeNumber):
            args = tuple(map(_as_arg, map_leaves(op.args, self._leaf)))
            self.out.append(Compute(self._number(op.result), op.function, args))
        elif isinstance(op, CheckCondition):
            self._assert(op.condition, op.message, op.exception)
        elif isinstance(op, ExternKernel):
            self._call(op)
        else:
            raise CodegenError(f"no instruction for {type(op).__name__}")

    def _learned(self, symbol: str) -> None:
        """A number came out of the data: check what was assumed of it before anything relies on that."""
        self.known.add(symbol)
        if symbol in self.symbols:
            self._check_range(self.symbols[symbol])
        steps = [s.op for s in self.schedule.steps if isinstance(s, ExternStep)]
        said = {op.condition: (op.message, op.exception) for op in steps if isinstance(op, CheckCondition)}
        for condition in self._decidable():
            unsaid = f"this data does not fulfil {condition}", "RuntimeError"
            self._assert(condition, *said.get(condition, unsaid))

    def _assert(self, condition: BoolExpr, message: str, exception: str) -> None:
        made = Assert(condition, message, exception)
        if made not in self.out:
            self.out.append(made)

    def _call(self, op: ExternKernel) -> None:
        outs: Any = op.pattern
        kwargs = dict(op.kwargs)
        if isinstance(op, ExternKernelOut):
            (result,) = op.results
            self._allocate(result.storage)
            kwargs["out"] = TensorRef(result, result.layout)
            outs = None
        else:
            for r in op.results:
                if isinstance(r, NumberBuffer):
                    self._number(r)
                else:
                    self.tensors.add(r.name)
                    self._describe(r.name, r.layout)
            outs = map_leaves(outs, lambda name: self.numbers.get(name, name))
        args, kwargs = map_leaves((op.args, kwargs), self._leaf)
        target = self._target(op)
        if any(not _storable(x) for x in leaves((args, kwargs))):
            key = f"call{len(self.externs)}"
            self.externs[key], args = _closed_over(op.target, args, kwargs)
            target, kwargs = f"python::{key}", {}
        where = op.origins[0].source if op.origins else None
        self.out.append(
            CallExtern(
                target,
                tuple(map(_as_arg, args)),
                tuple((k, _as_arg(v)) for k, v in kwargs.items()),
                outs,
                where or None,
            )
        )
        if isinstance(op, FallbackKernel):
            for symbol, result_name, dim in op.binds:
                self.out.append(BindSize(symbol, result_name, dim))
                self._learned(symbol)
        if not isinstance(op, ExternKernelOut) and op.qualified_name not in ROW_MAJOR:
            for result in op.results:
                if not isinstance(result, NumberBuffer):
                    self._look_at(op, result.name, result.layout)

    def _look_at(self, op: ExternKernel, name: str, layout: Layout) -> None:
        """Compare a result with what its trace says of it."""
        if not is_operator(op.target) or foreign_signature(op.target) is not None:
            sizes = tuple(e if self._known_size(e) else None for e in layout.sizes)
            kind = TensorSpec(layout.dtype, sizes, (None,) * len(sizes), device=layout.device)
            self.out.append(CheckTensor(name, kind, op.qualified_name))
        fallback = isinstance(op, FallbackKernel) and layout.sizes
        if (fallback or len(layout.sizes) > 1) and all(map(self._known_size, layout.numbers)):
            self.out.append(Restride(name, layout, op.qualified_name))

    def _target(self, op: ExternKernel) -> str:
        schema = getattr(op.target, "_schema", None)
        if schema is not None:
            overload = f".{schema.overload_name}" if schema.overload_name else ""
            return f"{schema.name}{overload}"
        key = f"{getattr(op.target, '__name__', 'call')}{len(self.externs)}"
        self.externs[key] = op.target
        return f"python::{key}"

    def _leaf(self, leaf: Any) -> Any:
        if isinstance(leaf, ItemRef):
            return Ref(self._item(leaf.ref))
        return Ref(self._tensor(leaf)) if isinstance(leaf, TensorRef) else leaf

    def _fresh(self, like: str) -> str:
        """A name that nothing in the plan has, or will have: buffers and symbols have theirs before it is
        built."""
        numbered = (f"{like}_{n}" for n in itertools.count())
        name = next(name for name in numbered if name not in self.taken)
        self.taken.add(name)
        return name

    def _number(self, buffer: NumberBuffer) -> str:
        """The name of the number that a buffer stands for; its tensor is made only if somebody wants it."""
        known = self.numbers.get(buffer.name)
        if known is None:
            known = self.numbers[buffer.name] = self._fresh(f"{buffer.name}_number")
        return known

    def _item(self, ref: TensorRef) -> str:
        """The name of a number that a tensor holds at this moment."""
        known = self.numbers.get(ref.buffer.storage)
        if known is not None:
            return known
        source = self._tensor(ref)
        name = self._fresh(f"{source}_item")
        self.out.append(BindItem(name, source, as_int=False))
        return name

    def _tensor(self, ref: TensorRef) -> str:
        """The name of a tensor with the geometry of ``ref``; made now if there is none."""
        storage = ref.buffer.storage
        if storage in self.numbers:
            self._allocate(storage)
        base = self.graph.buffers[storage].layout
        offset = self.schedule.memory.offsets.get(storage)
        layout = ref.layout
        if offset is None and _same_geometry(layout, base):
            return storage
        key = (storage, (layout.sizes, layout.strides, layout.offset, layout.dtype))
        found = self.views.get(key)
        if found is not None:
            return found
        name = self.views[key] = self._fresh(storage)
        if offset is None:
            self.out.append(View(name, storage, layout, layout.dtype is not base.dtype))
        else:
            begin = offset + layout.offset * layout.dtype.itemsize
            area = self._area(WORKSPACE, base.device)
            self.out.append(Slice(name, area, begin, replace(layout, offset=ZERO)))
        return name

    def _free(self, storages: Sequence[str]) -> None:
        names = [s for s in storages if s in self.tensors]
        gone = set(storages)
        for key in [k for k in self.views if k[0] in gone]:
            names.append(self.views.pop(key))
        if names:
            self.tensors.difference_update(names)
            self.out.append(Free(tuple(names)))

    # -- the end ----------------------------------------------------------------------------------------
    def _output(self, value: Any) -> Any:
        if isinstance(value, TensorRef):
            self._allocate(value.buffer.storage)
        return _as_arg(self._leaf(value))


def _geometry(layout: Layout) -> tuple[tuple[TensorProperty, tuple[Expr, ...]], ...]:
    return ("size", layout.sizes), ("stride", layout.strides)


def _same_geometry(a: Layout, b: Layout) -> bool:
    """Whether a tensor of one layout can stand for one of the other; strides that don't count show, too."""
    return (a.sizes, a.strides, a.offset, a.dtype) == (b.sizes, b.strides, b.offset, b.dtype)


def _storable(leaf: Any) -> bool:
    return isinstance(leaf, ARG_LEAVES)


def _as_arg(value: Any) -> Any:
    return tuple(map(_as_arg, value)) if isinstance(value, (tuple, list)) else value


def _closed_over(
    target: Any, args: Any, kwargs: dict[str, Any]
) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """``target`` with those arguments that a plan cannot hold (graphs, generators, ...) bound in a function
    of the others."""
    passed = [x for x in leaves((args, kwargs)) if isinstance(x, (Ref, Expr))]

    def call(*values: Any) -> Any:
        given = iter(values)
        new_args, new_kwargs = map_leaves(
            (args, kwargs), lambda x: next(given) if isinstance(x, (Ref, Expr)) else x
        )
        return target(*new_args, **new_kwargs)

    return call, tuple(passed)


@dataclass(frozen=True)
class Area:
    """A workspace that the plan is to have, of so many bytes."""

    name: str
    device: str
    nbytes: Expr


def max_size(sizes: Sequence[Expr]) -> Expr:
    """The greatest of some sizes in bytes; their sum where they cannot be compared."""
    constants = [s.constant for s in sizes if s.constant is not None]
    total = Expr(()) + (max(constants) if constants else 0)
    for s in dict.fromkeys(s for s in sizes if s.constant is None):
        total = total + s
    return total


def sum_sizes(sizes: Sequence[Expr], alignment: int) -> Expr:
    """The bytes that areas of these sizes take one after another."""
    total = ZERO
    for s in sizes:
        total = total + aligned(s, alignment)
    return total
