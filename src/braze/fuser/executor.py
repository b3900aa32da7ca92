"""Running an elementwise graph on arguments: their common shape, the kernel for their kind, outputs with the
strides that eager would give, and the launch.

For arguments of new sizes and strides all of this is worked out once and *prepared*; what a call does then is
in `braze.fuser.kernel`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch

from braze import config as configuration
from braze._torch import native
from braze._torch.devices import HOST
from braze.errors import CodegenError
from braze.fuser.accounts import counts
from braze.fuser.arg_spec import ArgSpec, Operand, iteration, pattern
from braze.fuser.codegen import Generator
from braze.fuser.edges import Elementwise, Given, Joined, Made, Part
from braze.fuser.elementwise import ElementwiseGraph
from braze.fuser.fallback import fall_back
from braze.fuser.generated import Generated
from braze.fuser.kernel import Address, Binding, FusedKernel
from braze.fuser.kernel_cache import spec_for
from braze.fuser.strides import Geometry, Ints

__all__ = [
    "GraphRunner",
    "Launch",
    "Prepared",
    "described",
    "prepare",
    "prepare_into",
    "write_call",
    "write_launches",
]

_MOST_PREPARED = 1024


@dataclass(frozen=True)
class Launch:
    """One launch of a call: the kernel and its binding, for each of its inputs a position among the values of
    the call and an offset in bytes, and for each of its outputs the number of an output of the call and an
    offset."""

    kernel: FusedKernel
    binding: Binding
    inputs: tuple[tuple[int, int], ...]
    outputs: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Prepared:
    """All that is known of a call before its tensors are: the outputs that have to be made (``made``: dtype,
    sizes, strides), the launches, and for each result either the number of an output (``("made", k)``), an
    input (``("given", position)``), or None."""

    made: tuple[tuple[torch.dtype, Geometry], ...]
    launches: tuple[Launch, ...]
    results: tuple[tuple[str, int] | None, ...]


class _Planner:
    """Prepares one call. ``values`` are like those of the call."""

    def __init__(self, function: Elementwise, values: Sequence[Any], device: str) -> None:
        self.function = function
        self.device = device
        self.sizes = {name: values[position] for position, name in function.symbols}
        self.inputs: list[tuple[torch.dtype, Geometry] | None] = []
        self.begins: list[tuple[int, int]] = []
        for source in function.sources:
            value = values[source.position]
            one, begin = described(value), 0
            if one is not None and source.piece is not None:
                geometry, begin = source.piece.evaluate(self.sizes)
                one = one[0], geometry
            self.inputs.append(one)
            self.begins.append((source.position, begin * one[0].itemsize if one is not None else 0))

    def layouts(self) -> list[Geometry]:
        """Of the graph's outputs, as eager would have them. Raises ``ValueError`` where shapes do not fit."""
        given = [None if one is None else one[1] for one in self.inputs]
        return list(self.function.graph.layouts(given))

    def _parts(self, layouts: Sequence[Geometry]) -> Sequence[Part]:
        """The graphs to launch: one for all, or several where the outputs have no common shape, or some of
        them have no elements."""
        if len({0 in sizes for sizes, _ in layouts}) > 1:
            return self.function.singles
        try:
            self.function.graph.shape(layouts)
        except ValueError:
            return self.function.parts
        return [_whole(self.function)]

    def launches(
        self, layouts: Sequence[Geometry], places: Sequence[tuple[int, int]]
    ) -> tuple[Launch, ...] | str:
        """The launches that write the graph's outputs, which are laid out so, to their places; or why there
        can be none. Compiles kernels that are not there yet."""
        found: list[Launch] = []
        for part in self._parts(layouts):
            here = [layouts[k] for k in part.outputs]
            if any(0 in sizes for sizes, _ in here):
                counts.add("empty")
                continue
            ready = _ready(part.graph, [self.inputs[k] for k in part.inputs], here, self.device)
            if isinstance(ready, str):
                return ready
            begins = tuple([self.begins[k] for k in part.inputs])
            found.append(Launch(*ready, begins, tuple([places[k] for k in part.outputs])))
        counts.add("bound")
        return tuple(found)


def _whole(function: Elementwise) -> Part:
    everything = tuple(range(len(function.graph.outputs))), tuple(range(len(function.sources)))
    return Part(function.graph, *everything)


def prepare(function: Elementwise, values: Sequence[Any], *, device: str = HOST) -> Prepared | str:
    """Prepare calls with values like these, compiling kernels if need be; or say why there can be none.

    Raises ``ValueError`` where the shapes have nothing in common."""
    planner = _Planner(function, values, device)
    graph = function.graph
    layouts = planner.layouts()
    made: list[tuple[torch.dtype, Geometry]] = []
    places: dict[int, tuple[int, int]] = {}
    results: list[tuple[str, int] | None] = []
    for result in function.results:
        if result is None:
            results.append(None)
        elif isinstance(result, Given):
            results.append(("given", result.position))
        elif isinstance(result, Joined):
            whole, _ = result.layout.evaluate(planner.sizes)
            for number, piece in result.pieces:
                layouts[number], begin = piece.evaluate(planner.sizes)
                places[number] = len(made), begin * result.dtype.itemsize
            results.append(("made", len(made)))
            made.append((result.dtype, whole))
        else:
            if result.number not in places:
                places[result.number] = len(made), 0
                made.append((graph.dtypes[result.number], layouts[result.number]))
            results.append(("made", places[result.number][0]))
    launches = planner.launches(layouts, [places[k] for k in range(len(layouts))])
    return launches if isinstance(launches, str) else Prepared(tuple(made), launches, tuple(results))


def prepare_into(
    function: Elementwise, values: Sequence[Any], outputs: Sequence[torch.Tensor], *, device: str = HOST
) -> tuple[Launch, ...] | str:
    """Prepare launches that write to tensors like ``outputs``, one for each result; or say why that cannot
    be: they are of other types or sizes than the results, or these are not computed one by one.

    Raises ``ValueError`` where the shapes of the values have nothing in common."""
    planner = _Planner(function, values, device)
    layouts = planner.layouts()
    graph = function.graph
    if [r.number if isinstance(r, Made) else None for r in function.results] != list(range(len(layouts))):
        return "its results are not computed one by one"
    for output, (sizes, _), dtype in zip(outputs, layouts, graph.dtypes, strict=True):
        if output.dtype is not dtype or tuple(output.shape) != sizes:
            return "a result has another type or other sizes"
    given = [(tuple(t.shape), t.stride()) for t in outputs]
    return planner.launches(given, [(k, 0) for k in range(len(layouts))])


def _ready(
    graph: ElementwiseGraph,
    tensors: Sequence[tuple[torch.dtype, Geometry] | None],
    layouts: Sequence[Geometry],
    device: str,
) -> tuple[FusedKernel, Binding] | str:
    """The kernel for such inputs and outputs, compiled if need be, and its binding; or why there is none."""
    operands: list[Geometry] = []
    dtypes: list[torch.dtype] = []
    for one in tensors:
        if one is not None:
            dtypes.append(one[0])
            operands.append(one[1])
    operands += layouts
    shape = graph.shape(layouts)
    loops = iteration(shape, operands, _leader(shape, layouts))
    patterns = [pattern(strides, len(own)) for strides, (own, _) in zip(loops.strides, operands)]
    ins = iter([Operand(d, p) for d, p in zip(dtypes, patterns)])
    arg_spec = ArgSpec(
        device,
        len(loops.sizes),
        tuple([next(ins) if kind == "tensor" else kind for kind in graph.kinds]),
        tuple([Operand(d, p) for d, p in zip(graph.dtypes, patterns[len(dtypes) :], strict=True)]),
        Generator(device).index_bits(max([_extent(g) for g in operands], default=0)),
    )
    kernel = spec_for(graph).kernel(arg_spec)
    if isinstance(kernel, str):
        return kernel
    binding = kernel.bind(loops)
    if binding is None:
        return f"its kernel was compiled for other sizes: {kernel.code.guards[0]}"
    return kernel, binding


def _leader(shape: Ints, layouts: Sequence[Geometry]) -> Ints:
    """The strides, along ``shape``, of the output that is most of it: the loops run in its order."""
    best = max(layouts, key=lambda g: sum(n != 1 for n in g[0]))
    lead = len(shape) - len(best[0])
    largest = max(best[1], default=1)
    return (largest + 1,) * lead + best[1]


def _extent(geometry: Geometry) -> int:
    """Elements from the first to the last."""
    return 1 + sum([(n - 1) * step for n, step in zip(*geometry)])


Key: TypeAlias = tuple[object, ...]


class GraphRunner:
    """Runs an elementwise function on lists of arguments, as a part of one that autograd sees. May be called
    from several threads at once."""

    def __init__(self, function: Elementwise, eager: Callable[..., Any] | None = None) -> None:
        """``eager``: what to call with the inputs one by one where there is no kernel for them."""
        self._function = function
        self._eager = eager
        self._config = configuration.current()  # which hold in the backward as well, wherever it runs
        # sizes matter where pieces are cut by them
        self._sizes = frozenset(p for p, _ in function.symbols) if function.has_edges else frozenset()
        self._prepared: dict[Key, Callable[..., list[Any]]] = {}

    def __call__(self, values: list[Any]) -> list[Any]:
        """The results for these inputs; the list is emptied. Raises ``CodegenError`` where there is neither a
        kernel for them nor anything else to call."""
        sizes = self._sizes
        key = tuple(
            [
                (v.dtype, v.shape, v.stride())
                if isinstance(v, torch.Tensor)
                else v
                if k in sizes
                else type(v)
                for k, v in enumerate(values)
            ]
        )
        run = self._prepared.get(key)
        if run is None:
            run = self._prepare(values)
            if len(self._prepared) >= _MOST_PREPARED:
                self._prepared.clear()
            self._prepared[key] = run
        results = run(*values)
        values.clear()
        return results

    def _prepare(self, values: Sequence[Any]) -> Callable[..., list[Any]]:
        relaid = self._relaid(values)
        if relaid:
            inner = self._prepare([_relay(v, relaid.get(p)) for p, v in enumerate(values)])
            return lambda *given: inner(*[_relay(v, relaid.get(p)) for p, v in enumerate(given)])
        with configuration.using(self._config):
            prepared = prepare(self._function, values)
        if isinstance(prepared, str):
            if self._eager is None:
                raise CodegenError(prepared)
            return functools.partial(self._eagerly, prepared)
        names = [f"in{k}" for k in range(len(values))]
        text = Generated(f"run_{self._function.graph.key}", names)
        results = write_call(text, prepared, names)
        text.line(f"return [{', '.join(results)}]")
        return text.function()

    def _eagerly(self, reason: str, *values: Any) -> list[Any]:
        """The results by eager operators. Raises ``FallbackError`` in strict mode."""
        eager = self._eager
        assert eager is not None
        with configuration.using(self._config):
            return list(fall_back(lambda: eager(*values), self._function.graph.key, reason))

    def _relaid(self, values: Sequence[Any]) -> dict[int, Ints]:
        """The strides of inputs that pieces are taken of and that lie in memory otherwise than in the
        trace."""
        found: dict[int, Ints] = {}
        sizes = {name: values[position] for position, name in self._function.symbols}
        for source in self._function.sources:
            if source.whole is not None:
                (shape, strides), _ = source.whole.evaluate(sizes)
                tensor = values[source.position]
                pairs = zip(shape, strides, tensor.stride(), strict=True)
                if any(n != 1 and want != have for n, want, have in pairs):
                    found[source.position] = strides
        return found


def _relay(value: Any, strides: Ints | None) -> Any:
    """A tensor with these strides; itself where none are asked for."""
    if strides is None:
        return value
    return native.empty_strided_here(tuple(value.shape), strides, value.dtype).copy_(value)


def write_call(text: Generated, prepared: Prepared, values: Sequence[str], indent: str = "") -> list[str]:
    """Statements that make the outputs of a prepared call and launch its kernels; expressions for its
    results. ``values``: expressions for the function's inputs."""
    names = [f"_out{k}" for k in range(len(prepared.made))]
    text.constant("_empty", native.empty_strided_here)
    for name, (dtype, (sizes, strides)) in zip(names, prepared.made, strict=True):
        shape, steps, kind = (f"{name}_{word}" for word in ("shape", "strides", "dtype"))
        text.names.update({shape: sizes, steps: strides, kind: dtype})
        text.line(f"{indent}{name} = _empty({shape}, {steps}, {kind})")
    write_launches(text, prepared.launches, values, names, indent)
    where = {"made": names, "given": values}
    return ["None" if result is None else where[result[0]][result[1]] for result in prepared.results]


def write_launches(
    text: Generated,
    launches: Sequence[Launch],
    values: Sequence[str],
    outputs: Sequence[str],
    indent: str = "",
) -> None:
    """Statements that launch kernels on tensors that are there."""
    for number, launch in enumerate(launches):
        mark = str(number) if number else ""
        inputs = [_address(text, values[p], at, f"_in{mark}_{k}") for k, (p, at) in enumerate(launch.inputs)]
        outs = [_address(text, outputs[p], at, f"_to{mark}_{k}") for k, (p, at) in enumerate(launch.outputs)]
        source = launch.kernel.launch(inputs, outs, launch.binding.how, mark)
        text.names.update(source.bound(launch.binding))
        for line in source.lines:
            text.line(indent + line)
    if not launches:
        text.line(f"{indent}{text.constant('_count', counts.add)}('empty')")


def _address(text: Generated, tensor: str, offset: int, name: str) -> Address:
    return Address(tensor, text.constant(f"{name}_at", offset) if offset else "")


def described(value: Any) -> tuple[torch.dtype, Geometry] | None:
    """A tensor's type, sizes and strides; None for a number."""
    if isinstance(value, torch.Tensor):
        return value.dtype, (tuple(value.shape), value.stride())
    return None
