"""The upfront half of compiling a function: one pass through AOTAutograd for a kind of arguments.

What comes out is either a graph that acts on each element by itself, which serves every rank and shape, or a
callable made of graphs that were compiled for symbolic sizes, with the conditions under which it is right.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import msgspec
import torch
from torch.fx import GraphModule

from braze._torch import shape_envs
from braze._torch.devices import HOST
from braze._torch.joint_floats import float_inputs
from braze._torch.surroundings import FunctionWatch
from braze._torch.tracing import new_trace
from braze.artifact.autograd_call import build_call
from braze.artifact.call_spec import CallSpec, Fresh, Tangent
from braze.artifact.compiled_graph import CompiledFxGraph
from braze.artifact.output_code import BoxedCall, OpaqueCode, OutputCode
from braze.compile.fx_compile import CompileRequest
from braze.compile.guards import GuardWatch
from braze.config import Config
from braze.errors import ExpressionError
from braze.frontend.aot import compile_parts
from braze.frontend.call_capture import CallCapture
from braze.frontend.views import Views
from braze.fuser.accounts import counts
from braze.fuser.arguments import Structure, Unfusable, describe
from braze.fuser.codegen import Generator, compiled
from braze.fuser.edges import Elementwise, elementwise
from braze.fuser.executor import GraphRunner
from braze.fuser.layout_class import Example, is_number, number_symbol, traceable
from braze.fuser.numbers import with_numbers
from braze.runtime.guard import BoolExpr

__all__ = ["Depends", "Traced", "trace"]

Flat = Callable[[Sequence[Any]], Any]
"""A function of a flat list of tensors and numbers."""


class Depends(Exception):
    """The trace depends on the values of the numbers at these positions."""

    def __init__(self, positions: frozenset[int]) -> None:
        super().__init__(f"numbers {sorted(positions)}")
        self.positions = positions


@dataclass(frozen=True)
class Traced:
    """A function for one kind of arguments.

    Attributes:
        results: the structure of what it returns; the leaves are the numbers of results.
        places: for each leaf of ``results`` which result it is.
        graph: the whole function, where it acts on each element by itself and no gradient is asked for.
        call: otherwise; gives the results in a list. Either takes the values of ``sizes`` and the tensors and
            numbers ``live``, one by one.
        live: positions of tensors and numbers.
        sizes: the names of size symbols (see `layout_class.symbols_of`).
        any_shape: it is right for tensors of every rank, shape and layout. Otherwise for those of the layout
            class of the trace whose sizes fulfil ``guards``.
        writes: whether it writes to arguments.
        codes: the compiled graphs that ``call`` is made of.
    """

    results: Structure
    places: tuple[int, ...]
    graph: Elementwise | None
    call: Callable[..., Sequence[Any]] | None
    live: tuple[int, ...]
    sizes: tuple[str, ...]
    any_shape: bool
    guards: tuple[BoolExpr, ...]
    writes: bool
    codes: tuple[CompiledFxGraph, ...]

    def admits(self, sizes: Mapping[str, int]) -> bool:
        """Whether the guards hold for these sizes."""
        return all(guard.evaluate(sizes) for guard in self.guards)


def trace(
    function: Flat, examples: Sequence[Example], gradients: bool, static: frozenset[int], config: Config
) -> Traced:
    """Trace ``function`` for arguments like the ``examples``. ``gradients``: it is to be differentiable.
    ``static``: the positions of numbers that are taken as constants.

    Raises `Depends` for numbers that turn out to matter, `Unfusable`, and whatever ``function`` raises."""
    counts.add("traces")
    recording = torch.is_grad_enabled()
    live = [p for p in range(len(examples)) if p not in static]
    mode, sizes, leaves = traceable(examples, gradients, live)
    inputs = [*sizes.values(), *leaves]
    guards = GuardWatch(mode.shape_env)
    module = _Module(function, len(sizes), {p: examples[p] for p in static})
    with ExitStack() as stack:
        stack.enter_context(new_trace(mode))
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.set_grad_enabled(recording))
        capture = CallCapture(len(inputs), Views((), ()))
        parts = _Parts(config, capture, len(sizes), live)
        wrapper = compile_parts(module, inputs, config, parts, parts, backward_now=True)
    numbers = {number_symbol(p): p for p, e in enumerate(examples) if not isinstance(e, torch.Tensor)}
    matter = {
        numbers[str(symbol)]
        for condition in shape_envs.guards_added(mode.shape_env, 0)
        for symbol in condition.free_symbols
        if str(symbol) in numbers
    }
    if module.watch.exact_numbers:
        matter = set(numbers.values()) & set(live)
    if matter:
        raise Depends(frozenset(matter))
    if module.watch.stateful:
        raise Unfusable(f"it looks at, or changes, the state of a tensor: {min(module.watch.stateful)}")
    try:
        added = guards.added()
    except ExpressionError as error:
        raise Unfusable(f"it depends on sizes in a way that cannot be checked: {error.what}") from None
    spec = capture.spec() if capture.complete else "its backward is compiled when it first runs"
    if isinstance(spec, str) and parts.floats:
        # AOTAutograd's own call around the parts knows nothing of numbers that are kept for the backward
        raise Depends(frozenset(live[p - len(sizes)] for p in parts.floats))
    graph = _whole(parts, spec)
    writes = isinstance(spec, str) or bool(spec.written or spec.copied_back)
    if gradients and not isinstance(spec, str) and writes:
        raise Unfusable("it writes to its arguments, and gradients are recorded")
    any_shape = not (module.watch.others or isinstance(spec, str)) and parts.of_any_shape
    call: Callable[..., Sequence[Any]] | None = None
    if graph is None:
        call = wrapper if isinstance(spec, str) else parts.call(spec, any_shape)
    return Traced(
        module.structure,
        module.places,
        graph,
        call,
        tuple(live),
        tuple(sizes),
        any_shape,
        added,
        writes,
        tuple(parts.codes.values()),
    )


class _Module(torch.nn.Module):
    """The function as AOTAutograd wants it: size symbols, tensors and numbers in, a tuple of tensors out.
    ``static``: numbers that are no inputs, by position."""

    def __init__(self, function: Flat, sizes: int, static: Mapping[int, Any]) -> None:
        super().__init__()
        self.function = function
        self.sizes = sizes
        self.static = static
        self.watch = FunctionWatch(is_number)
        self.structure: Structure = ()
        self.places: tuple[int, ...] = ()

    def forward(self, *values: Any) -> tuple[Any, ...]:
        live = iter(values[self.sizes :])
        count = len(values) - self.sizes + len(self.static)
        arguments = [self.static[p] if p in self.static else next(live) for p in range(count)]
        with self.watch:
            result = self.function(arguments)
        leaves: list[Any] = []
        self.structure = describe(result, "the result", leaves, numbers=False)
        unique: dict[int, Any] = {}
        for leaf in leaves:
            unique.setdefault(id(leaf), leaf)
        order = list(unique)
        self.places = tuple([order.index(id(leaf)) for leaf in leaves])
        return tuple(unique.values())


@dataclass(eq=False)
class _Parts:
    """The compiler that AOTAutograd's parts come to, and what it made of them."""

    config: Config
    capture: CallCapture
    sizes: int
    live: Sequence[int]
    graphs: dict[str, Elementwise] = field(default_factory=dict)
    requests: dict[str, CompileRequest] = field(default_factory=dict)
    runs: dict[str, BoxedCall] = field(default_factory=dict)
    codes: dict[str, CompiledFxGraph] = field(default_factory=dict)
    floats: tuple[int, ...] = ()

    # -- as an observer ---------------------------------------------------------------------------------
    def note(self, kind: Any, part: GraphModule, inputs: Sequence[Any]) -> None:
        """A part is about to be simplified."""
        self.capture.note(kind, part, inputs)
        if kind == "backward":
            self.floats = float_inputs(part)
        else:
            exponents = _exponents(part, self.sizes)
            if exponents:
                raise Depends(frozenset(self.live[k] for k in exponents))

    def compiled(self, kind: Any, code: OutputCode) -> None:
        """A part has been compiled."""

    # -- as a compiler ----------------------------------------------------------------------------------
    def compile(self, request: CompileRequest) -> OutputCode:
        """A part that acts on each element by itself becomes a runner, which takes any strides; others are
        compiled for those of the trace."""
        kind = request.kind
        graph = elementwise(request.gm)
        strides: tuple[tuple[int, ...] | None, ...] = (None,) * len(request.gm.graph.output_node().args[0])  # type: ignore[arg-type]
        if isinstance(graph, Elementwise):
            self.graphs[kind], self.requests[kind] = graph, request
            self.runs[kind] = GraphRunner(graph, request.gm)
        else:
            if kind == "backward" and "forward" in self.graphs:
                # this backward relies on the strides of what the forward keeps for it
                outputs = len(self.requests["forward"].gm.graph.output_node().args[0])  # type: ignore[arg-type]
                self._compile(dataclasses.replace(self.requests["forward"], visible_outputs=outputs))
                del self.graphs["forward"]
            strides = self._compile(request)
        return OpaqueCode(request.name, lambda inputs: self.runs[kind](inputs), strides)

    def _compile(self, request: CompileRequest) -> tuple[tuple[int, ...] | None, ...]:
        request, adapt, strides = with_numbers(request)
        strategy = Generator(HOST).strategy(request.config)
        code = compiled(request, strategy)
        fallbacks = code.info.metrics.fallbacks
        if fallbacks and not code.variant().info.kernels:
            raise Unfusable(f"nothing of it is compiled: {fallbacks[0].op}: {fallbacks[0].reason}")
        counts.add("loaded" if code.report is None else "compiled", len(code.variant().info.kernels))
        self.codes[request.kind] = code
        self.runs[request.kind] = adapt(code.run)
        return strides(code.output_strides)

    # -- afterwards -------------------------------------------------------------------------------------
    @property
    def of_any_shape(self) -> bool:
        """Whether every part acts on each element by itself, and does nothing else."""
        whole = bool(self.runs) and self.graphs.keys() == self.runs.keys()
        return whole and not any(self._reads_sizes(g) for g in self.graphs.values())

    @staticmethod
    def _reads_sizes(function: Elementwise) -> bool:
        symbols = {position for position, name in function.symbols if not is_number(name)}
        return function.has_edges or any(s.position in symbols for s in function.sources)

    def call(self, spec: CallSpec, any_shape: bool) -> Callable[..., list[Any]]:
        """The function of tensors and numbers that ``spec`` describes."""
        spec = msgspec.structs.replace(spec, dynamic=())
        if spec.backward is not None and any_shape:  # a runner takes gradients as they lie in memory
            tangents = tuple([Tangent(t.position) for t in spec.backward.tangents])
            spec = msgspec.structs.replace(
                spec, backward=msgspec.structs.replace(spec.backward, tangents=tangents)
            )
        if spec.backward is None:
            return build_call(spec, self.runs["inference"])
        kept, integers = self.floats, spec.backward.numbers
        if kept:
            numbers = integers + len(kept)
            spec = msgspec.structs.replace(
                spec, backward=msgspec.structs.replace(spec.backward, numbers=numbers)
            )
        return build_call(
            spec, _keeping(self.runs["forward"], kept), _returning(self.runs["backward"], kept, integers)
        )


def _exponents(part: GraphModule, sizes: int) -> set[int]:
    """Which inputs, counted after the size symbols, are numbers that something is raised to the power of:
    code for any power is neither as fast nor as exact as that for the few that people use."""
    inputs = part.graph.find_nodes(op="placeholder")[sizes:]
    found = {
        node.args[1]
        for node in part.graph.find_nodes(op="call_function", target=torch.ops.aten.pow.Tensor_Scalar)
    }
    return {k for k, node in enumerate(inputs) if node in found}


def _keeping(forward: BoxedCall, floats: Sequence[int]) -> BoxedCall:
    """A forward that also returns, after all else, the numbers that its backward takes."""
    if not floats:
        return forward

    def run(inputs: list[Any]) -> list[Any]:
        kept = [inputs[k] for k in floats]
        return [*forward(inputs), *kept]

    return run


def _returning(backward: BoxedCall, floats: Sequence[int], numbers: int) -> BoxedCall:
    """A backward that takes those numbers after the integers that are kept, and not before them."""
    if not floats or not numbers:
        return backward

    def run(inputs: list[Any]) -> Sequence[Any]:
        end = numbers + len(floats)
        inputs[:end] = [*inputs[numbers:end], *inputs[:numbers]]
        return backward(inputs)

    return run


def _whole(parts: _Parts, spec: CallSpec | str) -> Elementwise | None:
    """The only graph of a function that does nothing beside it."""
    graph = parts.graphs.get("inference")
    if graph is None or isinstance(spec, str) or spec.written or spec.copied_back:
        return None
    return graph if all(isinstance(o, Fresh) for o in spec.outputs) and spec.grad_mode is None else None
