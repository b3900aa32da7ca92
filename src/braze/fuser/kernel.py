"""The kernels of elementwise graphs: what they are specialised by, how they are compiled, and how launched.

A kernel is specialised by how arguments lie in memory (`ArgSpec`), and never by how large they are. The graph
is compiled over symbolic sizes of just the rank that is needed, and writes its results to tensors that it is
given. All of lowering, scheduling and emission is that of `torch.compile`'s pipeline, and the backend is that
of the device.

Kernels are kept by graph, then by `ArgSpec` and options. Both tables are thread-safe, and what several
threads ask for at once is compiled once. Behind them lies the cache on disk, so a second process finds its
kernels compiled.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

import torch
from torch.fx import Graph, GraphModule, Node

from braze import config as configuration
from braze._torch import shape_envs
from braze._torch.fakes import make_fake, new_fake_mode
from braze._torch.shape_envs import SymbolFacts
from braze.artifact.compiled_graph import CompiledFxGraph
from braze.compile.cached import CachedFxCompile
from braze.compile.fx_compile import CompileRequest
from braze.compile.modes import strategy
from braze.config import Config
from braze.errors import BrazeError, CodegenError, ConfigError, Refused
from braze.frontend.aot import next_graph_id
from braze.fuser.elementwise import ElementwiseGraph
from braze.fuser.fallback import count
from braze.fuser.strides import Ints
from braze.ops.dtypes import short_name
from braze.runtime.call_checks import fails
from braze.runtime.callgen import TINY_WORK
from braze.runtime.ending import busy
from braze.runtime.engines import check_options, engine, kind_for
from braze.runtime.expr import Expr, Symbol, as_expr
from braze.runtime.plan import (
    SEGMENTS,
    BindSize,
    BufferArg,
    CheckRange,
    CheckSizes,
    CheckTensor,
    Free,
    Instruction,
    KernelEntry,
    Return,
    RunSegment,
    Workspace,
)
from braze.runtime.spec import contiguous_strides

__all__ = [
    "ArgSpec",
    "FusedKernel",
    "KernelSpec",
    "OperandSpec",
    "SingleFlight",
    "compile_request",
    "index_bits",
    "kernel_specs",
    "reason_of",
    "source_of",
    "symbol",
]

_EXAMPLE_SIZE = 64
_EXAMPLE_STRIDE = 4096

K = TypeVar("K")
V = TypeVar("V")


class SingleFlight(dict[K, V], Generic[K, V]):
    """A table whose values are made once, whoever asks first: other threads wait for the one that makes a
    value, and no other lock is held meanwhile. A refusal is kept like a value; where making one fails
    otherwise, the next one tries again. ``refused``: the reasons of refusals."""

    def __init__(self) -> None:
        self.refused: dict[K, str] = {}
        self._locks: dict[K, threading.RLock] = {}

    def knows(self, key: K) -> bool:
        """Whether there is a value or a refusal."""
        return key in self or key in self.refused

    def get_or_make(self, key: K, make: Callable[[], V]) -> V:
        """The value, made by ``make`` if it is not there. Raises what ``make`` raises."""
        if not self.knows(key):
            with self._locks.setdefault(key, threading.RLock()):
                if not self.knows(key):
                    try:
                        self[key] = make()
                    except Refused as refusal:
                        self.refused[key] = refusal.reason
            self._locks.pop(key, None)
        if key in self.refused:
            raise Refused(self.refused[key])
        return self[key]


# -- what a kernel is specialised by ------------------------------------------------------------------------
@dataclass(frozen=True)
class OperandSpec:
    """A tensor that a kernel reads or writes: its element type and its pattern."""

    dtype: torch.dtype
    pattern: str

    def __str__(self) -> str:
        return f"{short_name(self.dtype)}({self.pattern})"


@dataclass(frozen=True)
class ArgSpec:
    """One kind of arguments. ``inputs`` are tensors and numbers in the order of the graph's inputs; numbers
    are passed at run time. ``index_bits``: whether positions are computed in 32 or 64 bits."""

    device: str
    rank: int
    inputs: tuple[OperandSpec | Literal["float", "int"], ...]
    outputs: tuple[OperandSpec, ...]
    index_bits: int = 64

    def __str__(self) -> str:
        space = ", ".join(f"n{d}" for d in range(self.rank))
        inputs, outputs = ", ".join(map(str, self.inputs)), ", ".join(map(str, self.outputs))
        bits = "" if self.index_bits == 64 else f" in {self.index_bits} bits"
        return f"{self.device} [{space}] {inputs} -> {outputs}{bits}"

    @property
    def operands(self) -> dict[str, OperandSpec]:
        """The tensors, by the names that they have in the graph that is compiled."""
        found = {f"in{k}": one for k, one in enumerate(self.inputs) if isinstance(one, OperandSpec)}
        return found | {f"out{k}": one for k, one in enumerate(self.outputs)}


def _strides_of(name: str, pattern: str) -> list[str | None]:
    """For each loop the symbol of an operand's stride, where that is known at run time only."""
    return [f"{name}_stride{d}" if c == "s" else None for d, c in enumerate(pattern)]


# -- compiling ----------------------------------------------------------------------------------------------
def index_bits(device: str, extent: int) -> int:
    """32 or 64: in how many bits a kernel computes positions for tensors that reach over ``extent``
    elements."""
    kind = kind_for(device)
    return 64 if kind is None else engine(kind).index_bits(extent)


@busy()
def compile_request(request: CompileRequest) -> CompiledFxGraph:
    """The code for ``request``, through the cache, by the strategy of its options; modes that answer with
    eager operators first are compiled here and now, since a fused call is there to be launched. Raises
    ``CodegenError`` where there is no code, and ``ConfigError``."""
    config = request.config
    check_options(config)
    if config.fx_compile_mode in ("async", "progressive"):
        config = config.replace(fx_compile_mode="in-process")
    code = CachedFxCompile(strategy(config)).compile(request)
    if not isinstance(code, CompiledFxGraph):
        raise CodegenError(f"{request.name} was not compiled: {code.reason or 'it has no code'}")
    return code


def reason_of(error: BaseException) -> str:
    """An exception as a reason that people are shown, in one line."""
    if isinstance(error, Refused):
        text = error.reason
    else:
        text = error.what if isinstance(error, BrazeError) else f"{type(error).__name__}: {error}"
    return text.strip().split("\n", 1)[0]


def source_of(code: CompiledFxGraph) -> str:
    """What the code for this machine was made of: LLVM IR, for a CPU."""
    return "\n".join([bytes(module.ir).decode() for module in code.variant().modules])


def _request(graph: ElementwiseGraph, spec: ArgSpec, config: Config) -> CompileRequest:
    """The compilation of ``graph`` for arguments of the kind ``spec``, in which nothing depends on sizes."""
    operands = spec.operands
    facts = [SymbolFacts(f"n{d}", 2, None, _EXAMPLE_SIZE + d, positive=True) for d in range(spec.rank)]
    for name, operand in operands.items():
        facts += [
            SymbolFacts(stride, 2, None, _EXAMPLE_STRIDE >> d, positive=True)
            for d, stride in enumerate(_strides_of(name, operand.pattern))
            if stride is not None
        ]
    for k, given in enumerate(spec.inputs):
        if given == "float":
            facts.append(SymbolFacts(f"number{k}", hint=0.5, is_float=True))
        elif given == "int":
            facts.append(SymbolFacts(f"number{k}", None, None, 3))
    env, symbols = shape_envs.new_shape_env(facts)
    mode = new_fake_mode(env)

    def number(name: str, kind: type = int) -> Any:
        return shape_envs.symbolic(env, symbols[name], kind)

    def tensor(name: str, operand: OperandSpec) -> torch.Tensor:
        sizes = [1 if c == "b" else number(f"n{d}") for d, c in enumerate(operand.pattern)]
        strides = [1 if stride is None else number(stride) for stride in _strides_of(name, operand.pattern)]
        return make_fake(mode, operand.dtype, sizes, strides)

    examples = [
        tensor(f"in{k}", one)
        if isinstance(one, OperandSpec)
        else number(f"number{k}", float if one == "float" else int)
        for k, one in enumerate(spec.inputs)
    ]
    examples += [tensor(f"out{k}", one) for k, one in enumerate(spec.outputs)]
    gm = _writing(graph)
    _describe(
        gm, examples, lambda dtype, sizes: make_fake(mode, dtype, sizes, list(contiguous_strides(sizes)))
    )
    return CompileRequest(
        gm=gm,
        shape_env=env,
        static_inputs=frozenset(),
        visible_outputs=0,
        config=config,
        kind="inference",
        graph_id=next_graph_id(),
    )


def _writing(graph: ElementwiseGraph) -> GraphModule:
    """The graph with its outputs as further inputs, which it writes to."""
    new = Graph()
    nodes: dict[Node, Node] = {}
    for k, node in enumerate(graph.graph.find_nodes(op="placeholder")):
        nodes[node] = new.placeholder(f"in{k}")
    targets = [new.placeholder(f"out{k}") for k in range(len(graph.outputs))]
    made: dict[str, Node] = {}
    for node in graph.graph.nodes:
        if node.op == "call_function":
            nodes[node] = made[node.name] = new.node_copy(node, nodes.__getitem__)
    for target, name in zip(targets, graph.outputs, strict=True):
        new.call_function(torch.ops.aten.copy_.default, (target, made[name]))
    new.output(())
    return GraphModule(torch.nn.Module(), new)


def _describe(
    gm: GraphModule, examples: Sequence[Any], make: Callable[[torch.dtype, list[Any]], Any]
) -> None:
    """Give each node the value of a trace over the sizes of ``examples``. What a pointwise operator returns
    is known without running it: the common sizes of its operands, and the type that it had in the first
    trace. To run its shape function might tie the code to the sizes that stand here as examples."""
    inputs = iter(examples)
    for node in gm.graph.nodes:
        if node.op == "placeholder":
            node.meta["val"] = next(inputs)
        elif node.op == "call_function":
            dtype = node.meta.get("dtype")
            values = [a.meta["val"] if isinstance(a, Node) else a for a in node.args]
            if node.target is torch.ops.aten.copy_.default:
                node.meta["val"] = values[0]
            elif dtype is not None:
                operands = [n.meta["val"] for n in node.all_input_nodes]
                shapes = [list(v.shape) for v in operands if isinstance(v, torch.Tensor)]
                node.meta["val"] = make(dtype, _common(shapes))
            else:  # numbers, of numbers
                node.meta["val"] = node.target(*values)


def _common(shapes: Sequence[list[Any]]) -> list[Any]:
    """The common sizes of operands; those along one loop are 1 or the loop's own."""
    rank = max(map(len, shapes), default=0)
    sizes: list[Any] = [1] * rank
    for shape in shapes:
        for d, n in enumerate(shape, rank - len(shape)):
            if isinstance(n, torch.SymInt):
                sizes[d] = n
    return sizes


# -- launching ----------------------------------------------------------------------------------------------
def symbol(name: str) -> Expr:
    """A number in a plan that a variable, or a global, of the function around it holds."""
    return as_expr(Symbol(name))


class FusedKernel:
    """One compiled kernel. Raises ``CodegenError`` where its plan does more than run machine code.

    Its own plan knows sizes by symbols. A launch knows their values beforehand: `bind` evaluates what
    `instructions` names.
    """

    def __init__(
        self, graph: ElementwiseGraph, spec: ArgSpec, code: CompiledFxGraph, min_parallel_work: int
    ) -> None:
        self.graph = graph
        self.spec = spec
        self.code = code
        self.min_parallel_work = min_parallel_work
        variant = code.variant()
        plan = variant.info.plan
        for one in plan.instructions:
            if not isinstance(
                one, (BindSize, CheckRange, CheckSizes, CheckTensor, Free, Return, RunSegment, Workspace)
            ):
                raise CodegenError(f"the kernel needs more than a launch: {one}")
        self._runs = [one for one in plan.instructions if isinstance(one, RunSegment)]
        self._spaces = {one.out: one.nbytes for one in plan.instructions if isinstance(one, Workspace)}
        self._checks = [one for one in plan.instructions if isinstance(one, (CheckRange, CheckSizes))]
        words = [word for run in self._runs for kernel in run.kernels for word in kernel.name.split("_")]
        words = [word for word in words if not word.isdigit() and word not in ("fused", "copy")]
        self.name = "_".join(["fused", *dict.fromkeys(words)])
        self.errors = plan.errors
        linked = code.loaded(variant).get(SEGMENTS)
        if linked is None:
            raise CodegenError("the kernel has no code")
        self.linked = linked
        self._late = {f"number{k}": k for k, kind in enumerate(graph.kinds) if kind == "int"}
        sizes = [e for run in self._runs for e in run.sizes if not self._is_late(e)]
        offsets = [b.offset for run in self._runs for b in run.buffers if b.name in self._spaces]
        self._known = {e: f"size{k}" for k, e in enumerate([*sizes, *self._spaces.values(), *offsets])}

    def _is_late(self, e: Expr) -> bool:
        """Whether a size is a number that each call brings."""
        return e.symbol is not None and e.symbol.name in self._late

    def bind(self, sizes: Ints, strides: Sequence[Ints]) -> tuple[int, dict[str, int]]:
        """What is known of a launch over loops of these sizes, along which the operands have these strides:
        its work, in steps that decide how it is launched, and the values of the numbers that `instructions`
        names. Raises `Refused` where the code is not right for them."""
        values = {f"n{d}": n for d, n in enumerate(sizes)}
        for (name, operand), steps in zip(self.spec.operands.items(), strides, strict=True):
            named = zip(_strides_of(name, operand.pattern), steps)
            values.update({symbol: step for symbol, step in named if symbol is not None})
        if not self.code.admits(values) or any(fails(check, values) for check in self._checks):
            raise Refused(f"its kernel was compiled for other sizes: {self.code.guards[0]}")
        work = sum(run.work.evaluate(values) for run in self._runs)
        if work >= self.min_parallel_work:
            step = max(self.min_parallel_work, TINY_WORK)
        else:
            step = 0 if work < TINY_WORK else TINY_WORK
        return step, {name: e.evaluate(values) for e, name in self._known.items()}

    def instructions(
        self, inputs: Sequence[BufferArg], outputs: Sequence[BufferArg], work: int
    ) -> list[Instruction]:
        """The instructions of a launch of so much work on these buffers; an ``int`` is a variable. Tiny work
        keeps the interpreter's lock, since letting go of it costs as much."""
        where = {f"in{k}": buffer for k, buffer in enumerate(inputs)}
        where |= {f"out{k}": buffer for k, buffer in enumerate(outputs)}

        def number(e: Expr) -> Expr:
            if self._is_late(e):
                assert e.symbol is not None
                return symbol(inputs[self._late[e.symbol.name]].name)
            return symbol(self._known[e])

        def buffer(one: BufferArg) -> BufferArg:
            if one.name in self._spaces:
                return BufferArg(f"space_{one.name}", number(one.offset))
            return where[one.name]

        found: list[Instruction] = [
            Workspace(f"space_{name}", number(nbytes)) for name, nbytes in self._spaces.items()
        ]
        found += [
            RunSegment(
                run.entry,
                tuple(map(buffer, run.buffers)),
                tuple(map(number, run.sizes)),
                as_expr(work),
                (KernelEntry(self.name, run.entry),),
                run.checked,
            )
            for run in self._runs
        ]
        return found


# -- the table of kernels -----------------------------------------------------------------------------------
@dataclass(eq=False)
class KernelSpec:
    """One elementwise graph and its compiled kernels. A kernel that could not be compiled is kept as the
    reason why, so that it is tried once."""

    graph: ElementwiseGraph
    kernels: SingleFlight[tuple[object, ...], FusedKernel] = field(default_factory=SingleFlight)

    @property
    def key(self) -> str:
        """What equal graphs share."""
        return self.graph.key

    def kernel(self, spec: ArgSpec) -> FusedKernel:
        """The kernel for arguments of this kind and the options that hold, compiled if need be. Raises
        `Refused` where there is none, and ``ConfigError``."""
        config = configuration.current()

        def make() -> FusedKernel:
            try:
                # a kernel that has to call an eager operator is an error: the function is better run as it is
                code = compile_request(_request(self.graph, spec, config.replace(strict=True)))
                kernel = FusedKernel(self.graph, spec, code, config.min_parallel_work)
            except ConfigError:
                raise
            except Exception as error:  # a defect of ours must not stand between people and their results
                raise Refused(f"its kernel was not compiled: {reason_of(error)}") from None
            count("loaded" if code.report is None else "compiled")
            return kernel

        return self.kernels.get_or_make((spec, *config.compile_key()), make)

    def __str__(self) -> str:
        lines = [self.key, *("  " + line for line in self.graph.text.splitlines())]
        return "\n".join([*lines, *(f"  kernel {k.spec}" for k in list(self.kernels.values()))])


kernel_specs: dict[str, KernelSpec] = {}
"""Every elementwise graph of this process, by its text: equal graphs share an entry."""
