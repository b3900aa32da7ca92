"""Calls of elementwise functions: the common shape of their arguments, the kernel for their kind, outputs
with the strides that eager would give, and the launch.

For arguments of new sizes and strides all of this is worked out once and *prepared*. What is left for a call
is a launch plan, whose statements `braze.runtime.callgen` writes; sizes are globals of the function that
holds them, so that calls of other sizes share its code.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import CodeType
from typing import Any, NamedTuple, TypeAlias

import torch

from braze import config as configuration
from braze._torch import native
from braze._torch.devices import HOST
from braze.errors import Refused
from braze.fuser.elementwise import Concat, ElementwiseFunction, ElementwiseGraph, evaluated
from braze.fuser.fallback import count, fall_back
from braze.fuser.kernel import ArgSpec, FusedKernel, KernelSpec, OperandSpec, index_bits, kernel_specs, symbol
from braze.fuser.strides import Geometry, Ints, merged_loops, pattern
from braze.runtime.callgen import Instrument, compile_source, record, statements
from braze.runtime.plan import Allocate, BufferArg, Instruction, Plan
from braze.runtime.spec import restrided, same_strides, span, tensor_spec

__all__ = ["Body", "GraphRunner", "PreparedCall", "define", "launcher", "prepare"]

_MOST_PREPARED = 1024

Body: TypeAlias = tuple[list[str], dict[str, Any]]
"""Statements, and the globals that they use."""

Operand: TypeAlias = tuple[torch.dtype, Geometry]

Place: TypeAlias = tuple[int, int]
"""The number of a tensor, and how many bytes after its begin."""


# -- functions that are written -----------------------------------------------------------------------------
@functools.lru_cache(maxsize=1024)
def _compiled(source: str, name: str) -> CodeType:
    return compile_source(source, name)


def define(name: str, parameters: Sequence[str], lines: Sequence[str], names: Mapping[str, Any]) -> Any:
    """A function of these statements, which use ``names`` as globals. Equal sources are compiled once."""
    body = "\n".join(f"    {line}" for line in lines)
    space = dict(names)
    exec(_compiled(f"def {name}({', '.join(parameters)}):\n{body}\n", name), space)
    return space[name]


def launcher(name: str, parameters: Sequence[str], write: Callable[[Instrument | None], Body]) -> Body:
    """The statements that ``write`` gives, for a function of these parameters, behind a look whether a
    profiler is on: then the same function shows its kernels by name."""
    shown: list[Callable[..., Any]] = []

    def profiled(*values: Any) -> Any:
        if not shown:
            shown.append(define(name, parameters, *write(record)))
        return shown[0](*values)

    lines, names = write(None)
    head = ["if _profiling():", f"    return _profiled({', '.join(parameters)})"]
    return [*head, *lines], {**names, "_profiling": native.profiler_enabled, "_profiled": profiled}


# -- what is known of a call --------------------------------------------------------------------------------
class _Launch(NamedTuple):
    """``inputs``, ``outputs``: where those of the graph are, among the values and among the outputs of the
    call, and whether they begin later than these. ``values``: of the numbers that the statements name."""

    kernel: FusedKernel
    work: int
    inputs: tuple[tuple[int, bool], ...]
    outputs: tuple[tuple[int, bool], ...]
    values: dict[str, int]

    @property
    def variables(self) -> list[str]:
        """The variables that it uses."""
        found = [f"in{k}" for k, _ in self.inputs] + [f"out{k}" for k, _ in self.outputs]
        return list(dict.fromkeys(found))


@dataclass(frozen=True)
class PreparedCall:
    """All that is known of a call before its tensors are: the outputs that have to be made (dtype, sizes,
    strides), the launches, and its results. In its statements the values of the call are the variables
    ``in0``, ``in1``, ..., the outputs ``out0``, ..."""

    made: tuple[Operand, ...]
    launches: tuple[_Launch, ...]
    results: tuple[str, ...]

    @property
    def inputs(self) -> list[int]:
        """Which values its statements and its results use."""
        names = {name for launch in self.launches for name in launch.variables} | set(self.results)
        return sorted(int(name[2:]) for name in names if name.startswith("in"))

    def body(self, instrument: Instrument | None = None) -> Body:
        """The statements that make the outputs and launch the kernels. One launch stands among them; several
        are functions of their own."""
        single = self.launches if len(self.launches) == 1 else ()
        kinds = tuple([(dtype, len(sizes)) for dtype, (sizes, _) in self.made])
        template, constants = _statements(instrument, kinds, *[part for one in single for part in one[:-1]])
        lines, names = list(template), dict(constants)
        for launch in single:
            names |= launch.values
        for k, (_, (sizes, strides)) in enumerate(self.made):
            names |= {f"out{k}_size{d}": n for d, n in enumerate(sizes)}
            names |= {f"out{k}_stride{d}": n for d, n in enumerate(strides)}
        for k, launch in enumerate(() if single else self.launches):
            alone = launcher("launch", launch.variables, PreparedCall((), (launch,), ()).body)
            names[f"_launch{k}"] = define("launch", launch.variables, *alone)
            lines.append(f"_launch{k}({', '.join(launch.variables)})")
        if not self.launches:
            names["_count"] = count
            lines.append("_count('empty')")
        return lines, names


@functools.lru_cache(maxsize=1024)
def _statements(
    instrument: Instrument | None,
    made: tuple[tuple[torch.dtype, int], ...],
    kernel: FusedKernel | None = None,
    work: int = 0,
    inputs: tuple[tuple[int, bool], ...] = (),
    outputs: tuple[tuple[int, bool], ...] = (),
) -> Body:
    """The statements that make outputs of these types and ranks, and launch a kernel."""
    instructions: list[Instruction] = [
        Allocate(
            f"out{k}",
            tensor_spec(
                dtype,
                [symbol(f"out{k}_size{d}") for d in range(rank)],
                [symbol(f"out{k}_stride{d}") for d in range(rank)],
            ),
        )
        for k, (dtype, rank) in enumerate(made)
    ]
    if kernel is None:
        return statements(Plan("launch", (), tuple(instructions)), None)
    head: list[str] = []
    addresses: dict[str, str] = {}
    buffers: list[BufferArg] = []
    kinds = [*kernel.graph.kinds, *["tensor" for _ in outputs]]
    names = [*[(f"in{k}", late) for k, late in inputs], *[(f"out{k}", late) for k, late in outputs]]
    for k, (kind, (name, late)) in enumerate(zip(kinds, names, strict=True)):
        if kind == "float":  # a call brings its value; the kernel takes its address
            head.append(f"_number{k} = _double({name})")
            name = f"_number{k}"
            addresses[name] = f"_addressof({name})"
        buffers.append(BufferArg(name, symbol(f"offset{k}")) if late else BufferArg(name))
    instructions += kernel.instructions(buffers[: len(inputs)], buffers[len(inputs) :], work)
    lines, constants = statements(
        Plan("launch", (), tuple(instructions), kernel.errors),
        kernel.linked,
        addresses=addresses,
        instrument=instrument,
        min_parallel_work=kernel.min_parallel_work,
    )
    return [*head, *lines], {**constants, "_double": ctypes.c_double, "_addressof": ctypes.addressof}


# -- preparing ----------------------------------------------------------------------------------------------
def prepare(
    function: ElementwiseFunction,
    values: Sequence[Any],
    outputs: Sequence[torch.Tensor] | None = None,
    *,
    device: str = HOST,
) -> PreparedCall:
    """Prepare calls with values like these, compiling kernels if need be. ``outputs``: it writes to tensors
    like these, one for each result, and returns nothing.

    Raises `Refused`, and ``ValueError`` where the shapes have nothing in common."""
    graph = function.graph
    sizes = {name: values[position] for position, name in function.symbols}
    inputs: list[Operand | None] = []
    begins: list[Place] = []
    for source in function.sources:
        value, begin = values[source.position], 0
        operand = None
        if isinstance(value, torch.Tensor):
            geometry: Geometry = (tuple(value.shape), value.stride())
            if source.piece is not None:
                geometry, begin = evaluated(source.piece, sizes)
            operand = value.dtype, geometry
            begin *= value.dtype.itemsize
        inputs.append(operand)
        begins.append((source.position, begin))
    layouts = list(graph.layouts([None if one is None else one[1] for one in inputs]))
    made: list[Operand] = []
    places: dict[int, Place] = {}
    results: list[str] = []
    if outputs is not None:
        if list(function.results) != [("output", k) for k in range(len(layouts))]:
            raise Refused("its results are not computed one by one")
        for k, output in enumerate(outputs):
            if output.dtype is not graph.dtypes[k] or tuple(output.shape) != layouts[k][0]:
                raise Refused("a result has another type or other sizes")
            layouts[k], places[k] = (tuple(output.shape), output.stride()), (k, 0)
    for result in function.results if outputs is None else ():
        if result is None:
            results.append("None")
        elif isinstance(result, Concat):
            whole, _ = evaluated(result.layout, sizes)
            for number, piece in result.pieces:
                layouts[number], begin = evaluated(piece, sizes)
                places[number] = len(made), begin * piece.dtype.itemsize
            results.append(f"out{len(made)}")
            made.append((result.layout.dtype, whole))
        elif result.kind == "input":
            results.append(f"in{result.number}")
        else:
            if result.number not in places:
                places[result.number] = len(made), 0
                made.append((graph.dtypes[result.number], layouts[result.number]))
            results.append(f"out{places[result.number][0]}")
    launches: list[_Launch] = []
    for part in function.parts(layouts):
        if any(0 in layouts[k][0] for k in part.outputs):
            count("empty")
            continue
        operands = [inputs[k] for k in part.inputs]
        kernel, work, numbers = _bound(part.graph, operands, [layouts[k] for k in part.outputs], device)
        ins, outs = [begins[k] for k in part.inputs], [places[k] for k in part.outputs]
        numbers |= {f"offset{k}": at for k, (_, at) in enumerate([*ins, *outs])}
        late_ins, late_outs = (tuple([(k, at > 0) for k, at in side]) for side in (ins, outs))
        launches.append(_Launch(kernel, work, late_ins, late_outs, numbers))
    count("bound")
    return PreparedCall(tuple(made), tuple(launches), tuple(results))


def _bound(
    graph: ElementwiseGraph, inputs: Sequence[Operand | None], layouts: Sequence[Geometry], device: str
) -> tuple[FusedKernel, int, dict[str, int]]:
    """The kernel for such inputs and outputs, compiled if need be, and what is known of its launch. Raises
    `Refused`."""
    tensors = [*[one for one in inputs if one is not None], *zip(graph.dtypes, layouts, strict=True)]
    operands = [geometry for _, geometry in tensors]
    shape = graph.shape(layouts)
    # the loops run in the order of the output that is most of it
    own, strides = max(layouts, key=lambda g: sum(n != 1 for n in g[0]))
    leader = (max(strides, default=1) + 1,) * (len(shape) - len(own)) + strides
    sizes, steps = merged_loops(shape, operands, leader)
    patterns = [pattern(step, len(own)) for step, (own, _) in zip(steps, operands, strict=True)]
    specs = iter([OperandSpec(dtype, one) for (dtype, _), one in zip(tensors, patterns, strict=True)])
    arg_spec = ArgSpec(
        device,
        len(sizes),
        tuple([next(specs) if kind == "tensor" else kind for kind in graph.kinds]),
        tuple(specs),
        index_bits(device, max([span(*geometry) for geometry in operands])),
    )
    kernel = kernel_specs.setdefault(graph.text, KernelSpec(graph)).kernel(arg_spec)
    return kernel, *kernel.bind(sizes, steps)


# -- running graphs -----------------------------------------------------------------------------------------
class GraphRunner:
    """Runs an elementwise function on lists of arguments, as a part of one that autograd sees. May be called
    from several threads at once."""

    def __init__(self, function: ElementwiseFunction, eager: Callable[..., Any] | None = None) -> None:
        """``eager``: what to call with the inputs one by one where there is no kernel for them."""
        self._function = function
        self._eager = eager
        self._config = configuration.current()  # which hold in the backward as well, wherever it runs
        # sizes matter where pieces are cut by them
        self._sizes = frozenset(p for p, _ in function.symbols) if function.has_edges else frozenset()
        self._prepared: dict[tuple[object, ...], Callable[..., list[Any]]] = {}

    def __call__(self, values: list[Any]) -> list[Any]:
        """The results for these inputs; the list is emptied. Raises `Refused` where there is neither a
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
        strides = self._relaid(values)
        if strides:

            def relaid(given: Sequence[Any]) -> list[Any]:
                return [restrided(v, strides[p]) if p in strides else v for p, v in enumerate(given)]

            inner = self._prepare(relaid(values))
            return lambda *given: inner(*relaid(given))
        try:
            with configuration.using(self._config):
                prepared = prepare(self._function, values)
        except Refused as error:
            if self._eager is None:
                raise
            return functools.partial(self._run_eagerly, error.reason)

        def write(instrument: Instrument | None) -> Body:
            lines, names = prepared.body(instrument)
            return [*lines, f"return [{', '.join(prepared.results)}]"], names

        name, parameters = f"run_{self._function.graph.key}", [f"in{k}" for k in range(len(values))]
        function: Callable[..., list[Any]] = define(name, parameters, *launcher(name, parameters, write))
        return function

    def _run_eagerly(self, reason: str, *values: Any) -> list[Any]:
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
                (shape, strides), _ = evaluated(source.whole, sizes)
                if not same_strides(shape, values[source.position].stride(), strides):
                    found[source.position] = strides
        return found
