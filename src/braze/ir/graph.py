"""The IR of one graph: inputs, buffers, operations in order, outputs. Lowering fills it, the scheduler reads
it."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from braze._torch.devices import HOST
from braze.ir.boxes import ReinterpretView, StorageBox, TensorBox
from braze.ir.buffers import Buffer, ComputedBuffer, ConstantBuffer, InputBuffer, Operation, Origin
from braze.ir.externs import ItemRef, MutationOutput, TensorRef, tensor_of
from braze.ir.loops import Loops, Pointwise, Scatter, Sizes, loop_indices
from braze.ir.views import BaseView, PermuteView, SqueezeView, UnfoldView, UnsqueezeView, View
from braze.ops.dag import Dag, Node
from braze.ops.dtypes import PARTS
from braze.runtime.expr import Expr
from braze.runtime.spec import Layout, TensorSpec, tensor_spec

REARRANGING = (View, PermuteView, SqueezeView, UnsqueezeView, UnfoldView)
"""Views with (nearly) all elements of what they look at, and no other ones: in memory they cost no more than
a look at that."""

GraphOutput = TensorRef | ItemRef | Expr | None | bool | float | torch.dtype | Any


class MixedDevicesError(Exception):
    """Loops that would read the memory of several devices."""


@dataclass(eq=False)
class Graph:
    """One graph. ``inputs`` are in calling order: tensors, integers (as expressions), or ``None``.
    ``known_symbols``: the names of the size symbols that have a value when the graph runs so far. ``device``:
    where loops run that are made now.

    ``operations`` is a valid order of execution: an operation comes after those whose results it reads, and
    writes to one storage keep their order.
    """

    dag: Dag = field(default_factory=Dag)
    inputs: list[InputBuffer | Expr | None] = field(default_factory=list)
    operations: list[Operation] = field(default_factory=list)
    buffers: dict[str, Buffer] = field(default_factory=dict)
    outputs: list[GraphOutput] = field(default_factory=list)
    known_symbols: set[str] = field(default_factory=set)
    current: Origin | None = None
    device: str = HOST
    _shared: dict[str, set[str]] = field(default_factory=dict, repr=False)
    _given: list[Expr] = field(default_factory=list, repr=False)
    _pending: dict[str, weakref.WeakSet[StorageBox]] = field(default_factory=dict, repr=False)
    _reads: dict[int, frozenset[str]] = field(default_factory=dict, repr=False)

    # -- names ------------------------------------------------------------------------------------------
    def buffer_name(self, beyond: int = 0) -> str:
        """A name for a new buffer; ``beyond``: how many others got theirs and are not declared yet."""
        return f"buf{len(self.buffers) + beyond}"

    def _declare(self, buffer: Buffer) -> Buffer:
        self.buffers[buffer.name] = buffer
        return buffer

    def add_input(self, name: str, layout: Layout, static: bool) -> TensorBox:
        """Declare a tensor input."""
        buffer = InputBuffer(name, layout, static)
        self._declare(buffer)
        self.inputs.append(buffer)
        self._given += (*layout.sizes, *layout.strides)
        while found := next(filter(None, (e.unknown(self.known_symbols) for e in self._given)), None):
            self.know(found.symbol.expr)
        return TensorBox.of(buffer)

    def add_constant(self, value: torch.Tensor, layout: Layout) -> TensorBox:
        """Declare a tensor that the graph holds."""
        buffer = ConstantBuffer(f"const{len(self.buffers)}", layout, value)
        self._declare(buffer)
        return TensorBox.of(buffer)

    def new_buffer(self, layout: Layout) -> Buffer:
        """Declare a buffer with memory of its own."""
        return self._declare(Buffer(self.buffer_name(), layout))

    def alias_buffer(self, layout: Layout, storage: str) -> Buffer:
        """Declare a name for (a part of) another buffer's storage."""
        return self._declare(MutationOutput(self.buffer_name(), layout, home=storage))

    def know(self, e: Expr) -> None:
        """An integer of value ``e`` is at hand when the graph runs: if ``e`` is a symbol, it is known from
        here on."""
        if e.symbol is not None:
            self.known_symbols.add(e.symbol.name)

    def add_operation(self, operation: Operation) -> None:
        """Append an operation; its results are declared."""
        self.operations.append(operation)
        for buffer in operation.outputs:
            self._declare(buffer)

    def share(self, results: Sequence[str], storages: Iterable[str]) -> None:
        """Any of ``results``, storages that an operator returned, may lie in the memory of ``storages``."""
        group = set(results).union(*map(self.sharing, storages))
        for name in group:
            self._shared[name] = group

    def sharing(self, storage: str) -> Set[str]:
        """The storages that may share memory with ``storage``, itself among them."""
        return self._shared.get(storage) or {storage}

    def operation_name(self) -> str:
        """A name for the next operation."""
        return f"op{len(self.operations)}"

    # -- loops and boxes --------------------------------------------------------------------------------
    def box(self, loops: Loops, stride_hint: Sizes | None = None) -> TensorBox:
        """A tensor made of ``loops``, where what they read lies. All but pointwise loops are stored at once.
        Raises ``MixedDevicesError``."""
        device = self.device_of(loops)
        if loops.device != device:
            loops = replace(loops, device=device)
        storage = StorageBox(loops, stride_hint, origins=[self.current] if self.current else [])
        box = TensorBox(storage)
        if isinstance(loops, Pointwise):
            for name in self._storages_read(loops.value):
                self._pending.setdefault(name, weakref.WeakSet()).add(storage)
        else:
            self.realize(box)
        return box

    def device_of(self, loops: Loops) -> str:
        """Where loops have to run: where what they read lies, or, where they read nothing, at `device`.
        Raises ``MixedDevicesError`` where there is no such place."""
        devices = {self.buffers[name].layout.device for name in self._storages_read(loops.value)}
        if len(devices) > 1:
            raise MixedDevicesError(f"it reads memory of {' and '.join(sorted(devices))}")
        return devices.pop() if devices else self.device

    def _storages_read(self, root: Node) -> frozenset[str]:
        """The storages that ``root`` loads from; each node is looked at once in the graph's life."""
        known = self._reads
        stack = [root]
        while stack:
            node = stack[-1]
            unknown = [i for i in node.inputs if i.id not in known]
            if unknown:
                stack.extend(unknown)
                continue
            stack.pop()
            if node.id not in known:
                below = [known[i.id] for i in node.inputs]
                if node.op == "load":
                    below.append(frozenset((node.buffer,)))
                known[node.id] = below[0] if len(below) == 1 else frozenset().union(*below)
        return known[root.id]

    def realize(self, box: TensorBox) -> Buffer | ReinterpretView:
        """Make sure that the tensor is in memory; loops become a computed buffer."""
        storage = box.data
        if isinstance(storage, ReinterpretView):
            return storage
        if isinstance(storage.data, (Buffer, ReinterpretView)):
            return storage.data
        of_base = self._realize_base(storage)
        if of_base is not None:
            storage.data = of_base
            return of_base
        loops = storage.data
        layout = self._layout_for(loops, storage.stride_hint)
        buffer = self.new_buffer(layout)
        self.operations.append(
            ComputedBuffer(self.operation_name(), buffer, loops, self.dag, origins=list(storage.origins))
        )
        storage.data = buffer
        return buffer

    def _realize_base(self, storage: StorageBox) -> ReinterpretView | None:
        """Where ``storage`` only rearranges the elements of another pending tensor: store that one, once for
        all its views, and look at its memory. ``None`` where strides cannot say it."""
        if storage.base is None:
            return None
        base, view = storage.base
        if (
            isinstance(base.data, Loops)
            and view.layout(self._layout_for(base.data, base.stride_hint)) is None
        ):
            return None
        content = self.realize(TensorBox(base))
        buffer = content if isinstance(content, Buffer) else content.buffer
        layout = view.layout(content.layout)
        return None if layout is None else ReinterpretView(buffer, layout)

    def realize_into(self, box: TensorBox, target: Layout, storage: str, *, moves: bool = False) -> Buffer:
        """Compute the tensor into (a part of) an existing storage, described by ``target``.

        With ``moves`` the tensor lives there from now on, if it is pending and each of its elements depends
        on no other element of the storage than the one that it replaces.
        """
        moved = self._movable(box, target, storage) if moves else None
        if moved is not None:
            self._pending.get(storage, weakref.WeakSet()).discard(moved)
        self.flush(storage)
        value = box.load(self.dag, loop_indices(box.size))
        loops = Pointwise(target.dtype, box.size, value, device=target.device)
        buffer = self.alias_buffer(target, storage)
        origins = [*(box.data.origins if isinstance(box.data, StorageBox) else [])]
        if self.current is not None and self.current not in origins:
            origins.append(self.current)
        self.operations.append(
            ComputedBuffer(self.operation_name(), buffer, loops, self.dag, origins=origins)
        )
        if moved is not None:
            moved.data = buffer
        return buffer

    def _movable(self, box: TensorBox, target: Layout, storage: str) -> StorageBox | None:
        own = box.data
        if not isinstance(own, StorageBox) or not isinstance(own.data, Pointwise):
            return None
        if own.data.dtype is not target.dtype or own.data.size != target.sizes:
            return None
        at = target.index(loop_indices(target.sizes))
        here = (at * 2, at * 2 + 1) if target.dtype in PARTS else (at,)
        stack, seen = [own.data.value], {own.data.value.id}
        if not self._storages_read(own.data.value).isdisjoint(self.sharing(storage) - {storage}):
            return None
        while stack:
            node = stack.pop()
            if node.op == "load" and node.buffer == storage and node.index not in here:
                return None
            for i in node.inputs:
                if i.id not in seen and storage in self._reads[i.id]:
                    seen.add(i.id)
                    stack.append(i)
        return own

    def scatter_into(self, loops: Scatter, target: Layout, storage: str) -> Buffer:
        """Scatter ``loops`` into an existing storage, described by ``target``."""
        self.flush(storage)
        buffer = self.alias_buffer(target, storage)
        origins = [self.current] if self.current else []
        self.operations.append(
            ComputedBuffer(self.operation_name(), buffer, loops, self.dag, origins=origins)
        )
        return buffer

    def flush(self, storage: str) -> None:
        """Store every pending tensor that reads the memory of ``storage``: it is about to be written."""
        readers = {id(s): s for name in self.sharing(storage) for s in self._pending.pop(name, ())}
        pending = [s for s in readers.values() if isinstance(s.data, Loops)]
        for box in sorted(pending, key=lambda s: s.data.value.id if isinstance(s.data, Loops) else -1):
            self.realize(TensorBox(box))

    def _layout_for(self, loops: Loops, hint: Sizes | None) -> Layout:
        size = loops.size
        if hint is not None:
            candidate = TensorSpec(loops.dtype, size, hint, device=loops.device)
            if candidate.is_dense or candidate.is_injective:
                return candidate
        return tensor_spec(loops.dtype, size, device=loops.device)

    def view(self, box: TensorBox, view: BaseView) -> TensorBox:
        """A view: of the memory where strides can express it, else of the values."""
        content = box.content
        if isinstance(content, (Buffer, ReinterpretView)):
            layout = view.layout(content.layout)
            if layout is not None:
                buffer = content if isinstance(content, Buffer) else content.buffer
                return TensorBox(ReinterpretView(buffer, layout))
        elif not isinstance(content, Pointwise):
            self.realize(box)
            return self.view(box, view)
        value = box.load(self.dag, view.indices(loop_indices(view.size)))
        result = self.box(Pointwise(box.dtype, view.size, value, device=box.device))
        if (
            isinstance(view, REARRANGING)
            and isinstance(box.data, StorageBox)
            and isinstance(content, Pointwise)
        ):
            assert isinstance(result.data, StorageBox)
            result.data.base = (box.data, view)
        return result

    def ref(self, box: TensorBox) -> TensorRef:
        """The tensor as an extern's argument or a graph's output, in memory."""
        content = self.realize(box)
        if isinstance(content, Buffer):
            return TensorRef(content, content.layout)
        return TensorRef(content.buffer, content.layout)

    def given_symbols(self) -> set[str]:
        """The names of the symbols that the inputs give a value, before anything has run."""
        given: list[Expr] = []
        for item in self.inputs:
            if isinstance(item, InputBuffer):
                given += [*item.layout.sizes, *item.layout.strides]
            elif item is not None:
                given.append(item)
        return {s.name for e in given for s in e.free_symbols}

    def output_storages(self) -> set[str]:
        """The storages that a call returns, or returns numbers from."""
        return {t.buffer.storage for t in map(tensor_of, self.outputs) if t is not None}

    # -- printing ---------------------------------------------------------------------------------------
    def __str__(self) -> str:
        lines = ["graph("]
        for item in self.inputs:
            if isinstance(item, InputBuffer):
                lines.append(f"  {item}{'  (static)' if item.static else ''},")
            else:
                lines.append(f"  {item}: {'unused' if item is None else 'int'},")
        lines.append("):")
        for op in self.operations:
            lines.extend("  " + line for line in str(op).splitlines())
        lines.append("  return " + ", ".join(map(str, self.outputs)))
        return "\n".join(lines)
