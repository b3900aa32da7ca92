"""Run a schedule with the reference interpreter: the oracle for code generation, and the means of bisection.

Kernels run by ``braze.ops.interpreter``, externs as they are. Slow, and right.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from braze._torch.number_functions import NUMBER_FUNCTIONS
from braze.errors import InternalError
from braze.ir.buffers import ConstantBuffer, InputBuffer
from braze.ir.externs import (
    BindSymbol,
    CheckCondition,
    ComputeNumber,
    ConcatKernel,
    ExternKernel,
    ExternKernelAlloc,
    ExternKernelOut,
    ItemRef,
    NumberBuffer,
    TensorRef,
    map_leaves,
)
from braze.ir.graph import Graph
from braze.ops.interpreter import interpret
from braze.ops.kernel import Kernel
from braze.runtime.checks import EXCEPTIONS
from braze.runtime.expr import Expr
from braze.runtime.spec import Layout
from braze.schedule.schedule import Schedule, Segment


class ReferenceRun:
    """One execution: ``storages`` by name (each a tensor whose data begins where the storage begins),
    ``sizes``."""

    def __init__(self, schedule: Schedule, inputs: Sequence[Any]) -> None:
        self.schedule = schedule
        self.graph: Graph = schedule.graph
        self.storages: dict[str, torch.Tensor] = {}
        self.sizes: dict[str, int] = {}
        for item, value in zip(self.graph.inputs, inputs, strict=True):
            if isinstance(item, InputBuffer):
                self.storages[item.name] = value
                for e, n in zip(
                    (*item.layout.sizes, *item.layout.strides), (*value.shape, *value.stride()), strict=True
                ):
                    if e.symbol is not None:
                        self.sizes.setdefault(e.symbol.name, int(n))
            elif item is not None and item.symbol is not None:
                self.sizes[item.symbol.name] = int(value)
        for name, buffer in self.graph.buffers.items():
            if isinstance(buffer, ConstantBuffer):
                assert buffer.value is not None
                self.storages[name] = buffer.value

    def run(self) -> list[Any]:
        """Every step, then the outputs."""
        with torch.no_grad():
            for step in self.schedule.steps:
                if isinstance(step, Segment):
                    for item in step.kernels:
                        self.kernel(item.kernel)
                else:
                    self.operation(step.op)
            return [self._leaf(o) for o in self.graph.outputs]

    def kernel(self, kernel: Kernel) -> None:
        """One kernel, on flat views of its buffers."""
        flat = {}
        for b in kernel.buffers:
            if b.role != "local":
                base = self._storage(b.name)
                flat[b.name] = torch.as_strided(base, (b.numel.evaluate(self.sizes),), (1,))
        interpret(kernel, flat, self.sizes)

    def operation(self, op: object) -> None:
        """One operation that is not loops."""
        if isinstance(op, ConcatKernel):
            self._storage(op.buffer.storage)
        elif isinstance(op, BindSymbol):
            self.sizes[op.symbol] = int(self._leaf(op.source).item())
        elif isinstance(op, ComputeNumber):
            value = NUMBER_FUNCTIONS[op.function](*map_leaves(op.args, self._leaf))
            self._take(op.result.name, value)
        elif isinstance(op, CheckCondition):
            if not op.condition.evaluate(self.sizes):
                raise EXCEPTIONS[op.exception](op.message)
        elif isinstance(op, ExternKernel):
            self._call(op)
        else:
            raise InternalError(f"cannot run a {type(op).__name__}")

    def _call(self, op: ExternKernel) -> None:
        args, kwargs = map_leaves((op.args, op.kwargs), self._leaf)
        if isinstance(op, ExternKernelOut):
            (result,) = op.results
            op.target(*args, **kwargs, out=self._leaf(TensorRef(result, result.layout)))
            return
        self._take(op.pattern, op.target(*args, **kwargs))
        if isinstance(op, ExternKernelAlloc):
            for symbol, name, dim in op.binds:
                self.sizes[symbol] = self.storages[name].shape[dim]

    def _take(self, pattern: Any, value: Any) -> None:
        if isinstance(pattern, str):
            buffer = self.graph.buffers[pattern]
            is_number = isinstance(buffer, NumberBuffer)
            self.storages[pattern] = torch.scalar_tensor(value, dtype=buffer.dtype) if is_number else value
        elif isinstance(pattern, tuple):
            for p, v in zip(pattern, value, strict=True):
                self._take(p, v)

    def _storage(self, name: str) -> torch.Tensor:
        found = self.storages.get(name)
        if found is None:
            layout = self.graph.buffers[name].layout
            found = self.storages[name] = torch.empty_strided(
                self._ints(layout.sizes), self._ints(layout.strides), dtype=layout.dtype
            )
        return found

    def _leaf(self, leaf: Any) -> Any:
        if isinstance(leaf, Expr):
            return leaf.evaluate(self.sizes)
        if isinstance(leaf, ItemRef):
            return self._leaf(leaf.ref).item()
        if not isinstance(leaf, TensorRef):
            return leaf
        base = self._storage(leaf.buffer.storage)
        layout: Layout = leaf.layout
        size, stride = self._ints(layout.sizes), self._ints(layout.strides)
        if tuple(base.shape) == size and base.stride() == stride and layout.offset == 0:
            return base
        offset = base.storage_offset() + layout.offset.evaluate(self.sizes)
        return torch.as_strided(base, size, stride, offset)

    def _ints(self, values: Sequence[Expr]) -> tuple[int, ...]:
        return tuple([e.evaluate(self.sizes) for e in values])
