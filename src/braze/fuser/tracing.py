"""The upfront half of compiling a function: one pass through AOTAutograd for a kind of arguments.

What comes out is either a graph that acts on each element by itself, which serves every rank and shape, or a
callable made of graphs that were compiled for symbolic sizes, with the conditions under which it is right.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import msgspec
import sympy
import torch
from torch.fx import GraphModule, Node

from braze._torch import shape_envs
from braze._torch.fakes import make_fake, new_fake_mode
from braze._torch.joint_floats import float_inputs
from braze._torch.shape_envs import SymbolFacts
from braze._torch.surroundings import FunctionWatch
from braze._torch.tracing import keep_promised_strides, new_trace, promised_strides, set_promised_strides
from braze.artifact.autograd_call import build_call
from braze.artifact.call_spec import CallSpec, Fresh, Tangent
from braze.artifact.compiled_graph import CompiledFxGraph
from braze.artifact.output_code import BoxedCall, OpaqueCode, OutputCode
from braze.compile.fx_compile import CompileRequest
from braze.compile.guards import GuardWatch
from braze.config import Config
from braze.errors import ExpressionError, Refused
from braze.frontend.aot import compile_parts
from braze.frontend.call_capture import CallCapture
from braze.frontend.views import Views
from braze.fuser.arguments import Structure, describe
from braze.fuser.elementwise import ElementwiseFunction, elementwise
from braze.fuser.fallback import count
from braze.fuser.kernel import compile_request
from braze.fuser.launch import GraphRunner
from braze.runtime.guard import BoolExpr
from braze.runtime.spec import contiguous_strides, is_dense

__all__ = ["Depends", "Traced", "layout_class", "symbols_of", "trace"]

Flat: TypeAlias = Callable[[Sequence[Any]], Any]
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
        sizes: the names of size symbols (see `symbols_of`).
        any_shape: it is right for tensors of every rank, shape and layout. Otherwise for those of the layout
            class of the trace whose sizes fulfil ``guards``.
        writes: whether it writes to arguments.
        codes: the compiled graphs that ``call`` is made of.
    """

    results: Structure
    places: tuple[int, ...]
    graph: ElementwiseFunction | None
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
    function: Flat, examples: Sequence[Any], gradients: bool, static: frozenset[int], config: Config
) -> Traced:
    """Trace ``function`` for arguments like the ``examples``. ``gradients``: it is to be differentiable.
    ``static``: the positions of numbers that are taken as constants.

    Raises `Depends` for numbers that turn out to matter, `Refused`, and whatever ``function`` raises."""
    count("traces")
    recording = torch.is_grad_enabled()
    live = [p for p in range(len(examples)) if p not in static]
    mode, sizes, leaves = _stand_ins(examples, gradients, live)
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
    numbers = {f"number{p}": p for p, e in enumerate(examples) if not isinstance(e, torch.Tensor)}
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
        raise Refused(f"it looks at, or changes, the state of a tensor: {min(module.watch.stateful)}")
    try:
        added = guards.added()
    except ExpressionError as error:
        raise Refused(f"it depends on sizes in a way that cannot be checked: {error.what}") from None
    spec = _spec(capture)
    if spec is None and parts.floats:
        # AOTAutograd's own call around the parts knows nothing of numbers that are kept for the backward
        raise Depends(frozenset(live[p - len(sizes)] for p in parts.floats))
    graph = _whole(parts, spec)
    writes = spec is None or bool(spec.written or spec.copied_back)
    if gradients and spec is not None and writes:
        raise Refused("it writes to its arguments, and gradients are recorded")
    any_shape = spec is not None and not module.watch.others and parts.of_any_shape
    call: Callable[..., Sequence[Any]] | None = None
    if graph is None:
        call = wrapper if spec is None else parts.call(spec, any_shape)
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


# -- arguments ----------------------------------------------------------------------------------------------
def layout_class(tensor: torch.Tensor) -> tuple[Any, ...]:
    """How a tensor lies in memory, less its sizes: what a trace of a function that looks at shapes is for.
    Which sizes are 1; the order of the other dimensions, outermost first; whether it is dense in it, or with
    which strides."""
    sizes, strides = tuple(tensor.shape), tensor.stride()
    ones = tuple([n == 1 for n in sizes])
    kept = [d for d, one in enumerate(ones) if not one]
    wanted = contiguous_strides(sizes)
    if 0 in sizes or all(strides[d] == wanted[d] for d in kept):
        return ones, "contiguous", tuple(kept)
    order = tuple(sorted(kept, key=lambda d: (-strides[d], d)))
    if is_dense(sizes, strides):
        return ones, "dense", order
    return ones, "strided", order, tuple([min(strides[d], 2) for d in kept])


def symbols_of(position: int, tensor: torch.Tensor) -> dict[str, int]:
    """The values that the symbols of input ``position`` have for this tensor."""
    found = {f"s{position}_{d}": n for d, n in enumerate(tensor.shape)}
    return found | {f"t{position}_{d}": n for d, n in enumerate(tensor.stride())}


def _is_number(symbol: str) -> bool:
    """Whether a symbol is that of a number, and not that of a size."""
    return symbol.startswith("number")


def _stand_ins(
    examples: Sequence[Any], gradients: bool, live: Sequence[int]
) -> tuple[Any, dict[str, Any], list[Any]]:
    """A fake mode; the size symbols by name, as symbolic integers; and fake tensors and symbolic numbers like
    the ``examples`` at the positions ``live``.

    Every size but 1 is a symbol of its own, as are strides that do not follow from sizes. ``gradients``:
    tensors that require gradients in the examples do so here."""
    taken = {n for e in examples if isinstance(e, torch.Tensor) for n in e.shape}
    # what is traced must not depend on there being no element: a size that no tensor has stands for 0
    free = next(n for n in range(7, 8 + len(taken)) if n not in taken)
    facts: list[SymbolFacts] = []
    shapes: dict[int, tuple[list[Any], list[Any]]] = {}
    for position in live:
        example = examples[position]
        if isinstance(example, torch.Tensor):
            shapes[position] = _symbolic_shape(position, example, free, facts)
        else:
            is_float = isinstance(example, float)
            hint = example if not is_float or abs(example) < 1e300 else 0.5  # NaN and infinity are no hints
            facts.append(SymbolFacts(f"number{position}", hint=hint, is_float=is_float))
    env, symbols = shape_envs.new_shape_env(facts)
    mode = new_fake_mode(env)
    named = {sympy.Symbol(name): symbol for name, symbol in symbols.items()}

    def number(expression: Any) -> Any:
        known = sympy.sympify(expression).subs(named)
        return int(known) if known.is_Integer else shape_envs.symbolic(env, known, int)

    def stand_in(position: int) -> Any:
        example = examples[position]
        if position not in shapes:
            kind = float if isinstance(example, float) else int
            return shape_envs.symbolic(env, symbols[f"number{position}"], kind)
        sizes, strides = (list(map(number, values)) for values in shapes[position])
        return make_fake(
            mode,
            example.dtype,
            sizes,
            strides,
            requires_grad=gradients and example.requires_grad,
            parameter=isinstance(example, torch.nn.Parameter),
        )

    sizes = {f.name: number(sympy.Symbol(f.name)) for f in facts if not _is_number(f.name)}
    return mode, sizes, [stand_in(position) for position in live]


def _symbolic_shape(
    position: int, example: torch.Tensor, free: int, facts: list[SymbolFacts]
) -> tuple[list[Any], list[Any]]:
    """Sizes and strides of the stand-in for a tensor; their symbols are added to ``facts``."""

    def fresh(name: str, value: int) -> sympy.Symbol:
        facts.append(SymbolFacts(name, 2, None, value, positive=True))
        return sympy.Symbol(name)

    sizes = [1 if n == 1 else fresh(f"s{position}_{d}", n or free) for d, n in enumerate(example.shape)]
    strides: list[Any] = [1] * len(sizes)
    _, kind, order = layout_class(example)[:3]
    running: Any = 1
    for d in reversed(range(len(sizes)) if kind == "contiguous" else order):
        if kind == "strided":
            step = example.stride(d)
            strides[d] = fresh(f"t{position}_{d}", step) if step > 1 else step
        else:
            strides[d] = running
            running = running * sizes[d]
    return sizes, strides


# -- the trace ----------------------------------------------------------------------------------------------
class _Module(torch.nn.Module):
    """The function as AOTAutograd wants it: size symbols, tensors and numbers in, a tuple of tensors out.
    ``static``: numbers that are no inputs, by position."""

    def __init__(self, function: Flat, sizes: int, static: Mapping[int, Any]) -> None:
        super().__init__()
        self.function = function
        self.sizes = sizes
        self.static = static
        self.watch = FunctionWatch(_is_number)
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
    graphs: dict[str, ElementwiseFunction] = field(default_factory=dict)
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
        if graph is not None:
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
        request, adapt, strides = _with_numbers(request)
        code = compile_request(request)
        fallbacks = code.info.metrics.fallbacks
        if fallbacks and not code.variant().info.kernels:
            raise Refused(f"nothing of it is compiled: {fallbacks[0].op}: {fallbacks[0].reason}")
        count("loaded" if code.report is None else "compiled", len(code.variant().info.kernels))
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
    def _reads_sizes(function: ElementwiseFunction) -> bool:
        symbols = {position for position, name in function.symbols if not _is_number(name)}
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


def _spec(capture: CallCapture) -> CallSpec | None:
    """The call around the parts; None where AOTAutograd's own is kept: a backward may be compiled when it
    first runs."""
    try:
        return capture.spec() if capture.complete else None
    except Refused:
        return None


def _whole(parts: _Parts, spec: CallSpec | None) -> ElementwiseFunction | None:
    """The only graph of a function that does nothing beside it."""
    graph = parts.graphs.get("inference")
    if graph is None or spec is None or spec.written or spec.copied_back:
        return None
    return graph if all(isinstance(o, Fresh) for o in spec.outputs) and spec.grad_mode is None else None


# -- numbers ------------------------------------------------------------------------------------------------
# Compiled code takes a floating-point number as a tensor of one element, and returns tensors only; functions
# pass Python's numbers, and keep them for their backward. Tracing sees nothing but tensors, thanks to these.
def _with_numbers(
    request: CompileRequest,
) -> tuple[CompileRequest, Callable[[BoxedCall], BoxedCall], Callable[[Sequence[Any]], tuple[Any, ...]]]:
    """A request without outputs that are numbers of the inputs; how its code is called with Python's
    numbers; and its output strides, widened by those outputs again."""
    examples = request.example_inputs
    floats = [k for k, value in enumerate(examples) if isinstance(value, torch.SymFloat)]
    inputs: list[Node] = request.gm.graph.find_nodes(op="placeholder")
    numbers = {n: k for k, n in enumerate(inputs) if isinstance(examples[k], (torch.SymFloat, torch.SymInt))}
    output = request.gm.graph.output_node()
    values: Sequence[Any] = output.args[0]  # type: ignore[assignment]
    given = {k: numbers[v] for k, v in enumerate(values) if isinstance(v, Node) and v in numbers}
    if given:
        kept = [k for k in range(len(values)) if k not in given]
        keep_promised_strides(request.gm)
        promised = promised_strides(request.gm)
        output.args = (tuple([values[k] for k in kept]),)
        set_promised_strides(request.gm, [promised[k] for k in kept])
        visible = sum(k < request.visible_outputs for k in kept)
        request = dataclasses.replace(request, visible_outputs=visible)

    def widened(results: Sequence[Any], known: Mapping[int, Any]) -> list[Any]:
        rest = iter(results)
        return [known.get(k) if k in given else next(rest) for k in range(len(values))]

    def adapt(run: BoxedCall) -> BoxedCall:
        def call(arguments: list[Any]) -> Sequence[Any]:
            known = {k: arguments[position] for k, position in given.items()}
            for position in floats:
                arguments[position] = torch.scalar_tensor(arguments[position], dtype=torch.float64)
            results = run(arguments)
            return widened(results, known) if given else results

        return call if floats or given else run

    return request, adapt, lambda strides: tuple(widened(strides, {}))
