"""Lower a function and run the IR, operation by operation, by the reference interpreter and eager calls."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch._dispatch.python import enable_python_dispatcher
from torch.func import functionalize
from torch.fx import GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx

import braze.lowering.families  # noqa: F401  fills the registry
from braze._torch.native import reinterpret_bytes
from braze._torch.number_functions import NUMBER_FUNCTIONS
from braze._torch.schema import is_operator, operator_info
from braze.config import Config
from braze.frontend.decompositions import decompositions
from braze.ir.buffers import ComputedBuffer, ConstantBuffer, InputBuffer
from braze.ir.externs import (
    BindSymbol,
    ComputeNumber,
    ConcatKernel,
    ExternKernel,
    ExternKernelAlloc,
    ExternKernelOut,
    ItemRef,
    MultiOutput,
    TensorRef,
    map_leaves,
)
from braze.ir.graph import Graph
from braze.lowering.graph import GraphLowering
from braze.ops.interpreter import interpret
from braze.ops.kernel import BufferArg, Kernel, referenced
from braze.runtime.expr import Expr
from braze.runtime.spec import Layout
from tests.numerics import assert_agrees, in_float64


def trace(fn: Callable[..., Any], *inputs: Any, symbolic: bool = False) -> GraphModule:
    """The functional ATen graph of ``fn``, decomposed as for a compile."""
    mode = "symbolic" if symbolic else "fake"

    def flat(*args: Any) -> Any:
        return _listed(fn(*args))

    traced = functools.partial(make_fx, decomposition_table=decompositions(Config()), tracing_mode=mode)
    with enable_python_dispatcher():  # as AOTAutograd does: what PyTorch composes in Python is taken apart
        gm = traced(functionalize(flat))(*inputs)
        if any(map(_writes, gm.graph.nodes)):  # in what a composition of PyTorch's is taken apart into
            gm = traced(functionalize(gm))(*inputs)
    gm.graph.eliminate_dead_code()
    return gm


def _writes(node: Node) -> bool:
    """Whether a node writes to a tensor that is no input of the graph."""
    if not is_operator(node.target) or not operator_info(node.target).mutates:
        return False
    return isinstance(node.args[0], Node) and node.args[0].op != "placeholder"


def lower(gm: GraphModule, **options: Any) -> tuple[Graph, list[str]]:
    """The IR of a graph and its fallbacks as text."""
    lowering = GraphLowering(gm, Config(**options))
    graph = lowering.run()
    return graph, [f"{origin.operator}: {reason}" for origin, reason in lowering.fallbacks]


class Execution:
    """One run of a graph on real inputs."""

    def __init__(self, graph: Graph, inputs: Sequence[Any]) -> None:
        self.graph = graph
        self.sizes: dict[str, int] = {}
        self.memory: dict[str, torch.Tensor] = {}
        for buffer, value in zip(graph.inputs, inputs, strict=True):
            if isinstance(buffer, Expr) and buffer.symbol is not None:
                self.sizes[buffer.symbol.name] = int(value)
            if isinstance(buffer, InputBuffer):
                pairs = [*zip(buffer.layout.sizes, value.shape), *zip(buffer.layout.strides, value.stride())]
                for e, n in pairs:
                    if e.symbol is not None:
                        self.sizes.setdefault(e.symbol.name, n)
        for buffer, value in zip(graph.inputs, inputs, strict=True):
            if isinstance(buffer, InputBuffer):
                extent = self.number(buffer.layout.extent)
                self.memory[buffer.name] = value.detach().as_strided((extent,), (1,), value.storage_offset())
        for buffer in graph.buffers.values():
            if isinstance(buffer, ConstantBuffer):
                value = buffer.value
                extent = self.number(buffer.layout.extent)
                self.memory[buffer.name] = value.as_strided((extent,), (1,), value.storage_offset())

    def number(self, e: Expr) -> int:
        return e.evaluate(self.sizes)

    def tensor(self, storage: str, layout: Layout) -> torch.Tensor:
        size = [self.number(e) for e in layout.sizes]
        stride = [self.number(e) for e in layout.strides]
        memory = self.memory[storage]
        if layout.dtype is not memory.dtype:
            return reinterpret_bytes(memory, layout.dtype, size, stride, self.number(layout.offset))
        return memory.as_strided(size, stride, memory.storage_offset() + self.number(layout.offset))

    def allocate(self, name: str, layout: Layout) -> None:
        if name not in self.memory:
            garbage = 77 if layout.dtype is not torch.bool else True
            self.memory[name] = torch.full((self.number(layout.extent),), garbage, dtype=layout.dtype)

    def leaf(self, x: Any) -> Any:
        if isinstance(x, ItemRef):
            return self.leaf(x.ref).item()
        if isinstance(x, TensorRef):
            return self.tensor(x.buffer.storage, x.layout)
        return self.number(x) if isinstance(x, Expr) else x

    def run(self) -> list[Any]:
        for op in self.graph.operations:
            if isinstance(op, ComputedBuffer):
                if op.buffer.storage == op.buffer.name:
                    self.allocate(op.buffer.name, op.buffer.layout)
                self.compute(op)
            elif isinstance(op, ConcatKernel):
                self.allocate(op.buffer.name, op.buffer.layout)
            elif isinstance(op, BindSymbol):
                self.sizes[op.symbol] = int(self.leaf(op.source).item())
            elif isinstance(op, ComputeNumber):
                value = NUMBER_FUNCTIONS[op.function](*map_leaves(op.args, self.leaf))
                self.memory[op.result.name] = torch.tensor([value], dtype=op.result.dtype)
            else:
                assert isinstance(op, ExternKernel)
                self.call(op)
        return [map_leaves(x, self.leaf) for x in self.graph.outputs]

    def compute(self, op: ComputedBuffer) -> None:
        read, written = referenced([op.stage])
        args = []
        memories: dict[str, torch.Tensor] = {}
        symbols = set()
        for name in sorted(read | written):
            role = "inout" if name in read and name in written else "out" if name in written else "in"
            memory = memories[name] = _as_numbers(self.memory[name])
            args.append(BufferArg(name, memory.dtype, role, Expr(()) + memory.numel()))
        for v in (*op.stage.vars, *op.stage.rvars):
            symbols |= v.size.free_symbols
        for node in op.stage.nodes:
            symbols |= {s for s in node.symbols if s.name in self.sizes}
        for store in op.stage.stores:
            symbols |= {s for s in store.index.free_symbols if s.name in self.sizes}
        kernel = Kernel(op.name, (), (op.stage,), tuple(args), tuple(sorted(symbols, key=lambda s: s.name)))
        interpret(kernel, memories, self.sizes)

    def call(self, op: ExternKernel) -> None:
        args, kwargs = map_leaves(op.args, self.leaf), map_leaves(op.kwargs, self.leaf)
        if isinstance(op, ExternKernelOut):
            (result,) = op.results
            self.allocate(result.name, result.layout)
            op.target(*args, **kwargs, out=self.tensor(result.name, result.layout))
            return
        value = op.target(*args, **kwargs)
        for result in op.results:
            part = value
            if isinstance(result, MultiOutput):
                for step in result.path:
                    part = part[step]
            if isinstance(op, ExternKernelAlloc):
                for symbol, name, dim in op.binds:
                    if name == result.name:
                        self.sizes[symbol] = part.shape[dim]
            assert [self.number(s) for s in result.layout.strides] == list(part.stride()) or part.numel() < 2
            extent = self.number(result.layout.extent)
            self.memory[result.name] = part.as_strided((extent,), (1,), part.storage_offset())


def _as_numbers(memory: torch.Tensor) -> torch.Tensor:
    """The elements that kernels see in memory: of a complex tensor the parts."""
    return torch.view_as_real(memory).view(-1) if memory.is_complex() else memory


def run(fn: Callable[..., Any], *inputs: Any, symbolic: bool = False, strict: bool = False) -> list[Any]:
    """The results of ``fn`` by lowered IR. With ``strict``, no operator may fall back."""
    graph, fallbacks = lower(trace(fn, *inputs, symbolic=symbolic))
    assert not (strict and fallbacks), fallbacks
    return Execution(graph, inputs).run()


def check(
    fn: Callable[..., Any],
    *inputs: Any,
    symbolic: bool = False,
    strict: bool = True,
    check_strides: bool = True,
) -> None:
    """Assert that lowered IR agrees with eager by the numerical rule, strides included; with ``strict``,
    without falling back."""

    def reference() -> list[Any]:
        return _listed(fn(*in_float64(list(inputs))))

    theirs = _listed(fn(*inputs))
    ours = run(fn, *inputs, symbolic=symbolic, strict=strict)
    assert_agrees(ours, theirs, reference, check_strides=check_strides)


def _listed(result: Any) -> list[Any]:
    return list(result) if isinstance(result, (list, tuple)) else [result]
