"""From a program that `torch.export` captured to a package: one file that runs without Dynamo and without the
compiler."""

from __future__ import annotations

import copy
import itertools
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import ConstantArgument, InputKind, OutputKind
from torch.fx import GraphModule, Node

from braze import config as configuration
from braze._torch import export, shapes, tracing
from braze.artifact.call_arguments import argument_paths
from braze.artifact.compiled_graph import CompiledFxGraph
from braze.artifact.extern_nodes import extern_nodes
from braze.artifact.model_info import Given, Model, Parameters, Range, Slot, Weight, WeightKind
from braze.artifact.package import write_package
from braze.artifact.schema import TensorInput
from braze.artifact.trees import from_spec
from braze.compile import guards
from braze.compile.ahead import compile_for
from braze.compile.failing import described
from braze.compile.fx_compile import CompileRequest
from braze.config import Config
from braze.errors import BrazeError, BrazeWarning, ConfigError, PackageError
from braze.frontend.decompositions import decompositions
from braze.frontend.passes.pipeline import run_passes
from braze.runtime.expr import Symbol
from braze.runtime.guard import BoolExpr

__all__ = ["DEFAULT_TARGETS", "aot_compile"]

DEFAULT_TARGETS = ("x86-64-v3", "x86-64-v4")

_numbers = itertools.count()


def aot_compile(
    program: ExportedProgram,
    path: str | os.PathLike[str],
    targets: Sequence[str] = DEFAULT_TARGETS,
    *,
    weights: bool = True,
    options: Mapping[str, object] | None = None,
) -> Path:
    """Compile an exported program into a package, a ``.pt2`` file for `braze.aot_load`.

    Args:
        program: what `torch.export.export` returned. Sizes that it left dynamic stay so, within their ranges.
        path: where the package is written. A file that is there is replaced, once the new one is whole.
        targets: CPUs to make code for: ``x86-64-v3``, ``x86-64-v4``, ``generic``, ``host``, or a name of
            LLVM's. The best that the loading machine can run is picked there.
        weights: whether parameters, buffers and constants go into the package. Those that are left out are
            bound by name after loading.
        options: names and values of `braze.config.Config`, for this compilation.

    Returns the path.

    Raises:
        PackageError: the program cannot be made a package: it has inputs or effects that no package can have,
            or runs operators that cannot be stored.
        ConfigError: an unknown option, target, or value.
        OSError: the file cannot be written.
    """
    if isinstance(targets, str) or not targets:
        raise PackageError("a package needs at least one target", hint='for example targets=("x86-64-v3",)')
    config = configuration.resolve(options)
    try:
        prepared = _prepare(program, config)
        graph = _compile(prepared, tuple(dict.fromkeys(targets)), config)
        if graph.info.guards:
            limits = " and ".join(str(_by_names(g, prepared.names)) for g in graph.info.guards)
            warnings.warn(f"the package works for sizes with {limits} only", BrazeWarning, stacklevel=2)
        model, tensors = _describe(prepared, graph)
        nodes = extern_nodes(graph.info.variants[0].plan, _hints(prepared, graph))
        data = graph.prepare_for_serialization()
    except (ConfigError, PackageError):
        raise
    except BrazeError as error:
        raise PackageError(
            f"this program cannot be made a package: {error.what}", node=error.node, where=error.where
        ) from error
    except Exception as error:
        raise PackageError(f"this program cannot be made a package: {described(error)}") from error
    write_package(path, model, data, nodes, tensors, weights=weights)
    return Path(path)


@dataclass(frozen=True)
class _Prepared:
    """A program whose mutations are `copy_` nodes, and its graph, ready to be compiled. ``names``: how one
    would write the sizes that symbols stand for."""

    program: ExportedProgram
    gm: GraphModule
    inputs: tuple[Any, ...]
    names: Mapping[str, str]


def _prepare(program: ExportedProgram, config: Config) -> _Prepared:
    """The graph that is compiled, as AOTAutograd would make it for inference."""
    program = export.decomposed(program, decompositions(config))
    gm = _copied(program.graph_module)
    placeholders = gm.graph.find_nodes(op="placeholder")
    for node, spec in zip(placeholders, program.graph_signature.input_specs, strict=True):
        if spec.kind in (InputKind.CUSTOM_OBJ, InputKind.TOKEN):
            raise PackageError(
                f"this program takes {spec.arg.name}, a {spec.kind.name}, which no package can"
            )
        if isinstance(spec.arg, ConstantArgument):
            node.meta["val"] = None  # its value is written out where it is used
    _write_back(program, gm, placeholders)
    for node in gm.graph.find_nodes(
        op="call_function", target=torch.ops.aten._assert_tensor_metadata.default
    ):
        gm.graph.erase_node(node)  # the call's own checks say as much
    gm.graph.lint()
    gm.recompile()
    tracing.keep_promised_strides(gm)
    with torch.no_grad():
        run_passes(gm, config)
    inputs = tuple(node.meta.get("val") for node in placeholders)
    names = _names_of_sizes(program, inputs)
    unsaid = guards.unsaid(inputs, names)
    if unsaid:
        raise PackageError(
            f"this program holds only for sizes with {unsaid[0]}, which a package cannot check",
            hint="write the condition with integers, or export the program without it",
        )
    return _Prepared(program, gm, inputs, names)


def _names_of_sizes(program: ExportedProgram, inputs: Sequence[Any]) -> dict[str, str]:
    """For each symbol that is a size of an argument, or an argument itself: how one would write it."""
    found: dict[str, str] = {}
    paths = iter(argument_paths(_parameters(program)))
    for spec, value in zip(program.graph_signature.input_specs, inputs, strict=True):
        if spec.kind is not InputKind.USER_INPUT:
            continue
        path = next(paths)
        sizes = value.shape if isinstance(value, torch.Tensor) else [value]
        for dim, size in enumerate(sizes):
            if isinstance(size, torch.SymInt):
                written = f"{path}.shape[{dim}]" if isinstance(value, torch.Tensor) else path
                found.setdefault(str(shapes.expression_of(size)[0]), written)
    return found


def _by_names(guard: BoolExpr, names: Mapping[str, str]) -> BoolExpr:
    """The guard over the names of sizes."""
    renamed = {s: Symbol(names.get(s.name, s.name), s.lower, s.upper).expr for s in guard.free_symbols}
    return guard.substitute(renamed)


def _copied(gm: GraphModule) -> GraphModule:
    """The same graph with nodes of its own; tensors, and what is known of values, are shared."""
    made = GraphModule(gm, copy.deepcopy(gm.graph))
    made.meta.update(gm.meta)
    return made


def _write_back(program: ExportedProgram, gm: GraphModule, placeholders: Sequence[Node]) -> None:
    """Turn the outputs that are new values of inputs into `copy_` nodes."""
    signature = program.graph_signature
    by_target = {
        (kind, spec.target): node
        for node, spec in zip(placeholders, signature.input_specs, strict=True)
        for kind in (spec.kind,)
        if spec.target is not None
    }
    by_name = {node.name: node for node in placeholders}
    output = gm.graph.output_node()
    values: Any = output.args[0]
    kept: list[Any] = []
    for value, spec in zip(values, signature.output_specs, strict=True):
        if spec.kind is OutputKind.USER_OUTPUT:
            kept.append(value)
            continue
        if spec.kind is OutputKind.BUFFER_MUTATION:
            home = by_target[InputKind.BUFFER, spec.target]
        elif spec.kind.name == "PARAMETER_MUTATION":
            home = by_target[InputKind.PARAMETER, spec.target]
        elif spec.kind is OutputKind.USER_INPUT_MUTATION:
            home = by_name[str(spec.target)]
        else:
            raise PackageError(f"this program returns a {spec.kind.name}, which no package can")
        if value is not home:
            with gm.graph.inserting_before(output):
                write = gm.graph.call_function(torch.ops.aten.copy_.default, (home, value))
            write.meta = {**home.meta}
    output.args = (tuple(kept),)


def _compile(prepared: _Prepared, targets: Sequence[str], config: Config) -> CompiledFxGraph:
    """One graph with code for every target."""
    number = next(_numbers)
    static = frozenset(
        position
        for position, spec in enumerate(prepared.program.graph_signature.input_specs)
        if spec.kind is not InputKind.USER_INPUT
    )
    each: list[CompiledFxGraph] = []
    for target in targets:
        gm = _copied(prepared.gm)
        request = CompileRequest(
            gm=gm,
            example_inputs=prepared.inputs,
            static_inputs=static,
            visible_outputs=len(gm.graph.output_node().args[0]),  # type: ignore[arg-type]
            config=config.replace(target_cpu=target),
            kind="inference",
            graph_id=number,
        )
        with tracing.outside_trace():
            each.append(compile_for(request, target))
    return _merged(each)


def _merged(each: Sequence[CompiledFxGraph]) -> CompiledFxGraph:
    """The graphs of several targets as one graph with several variants. Guards that compiling for one of them
    added hold for all."""
    first = each[0]
    infos = [
        msgspec.structs.replace(v, plan=msgspec.structs.replace(v.plan, name="model"))
        for one in each
        for v in one.info.variants
    ]
    added = tuple(dict.fromkeys(g for one in each for g in one.info.guards))
    info = msgspec.structs.replace(first.info, name="model", variants=tuple(infos), guards=added)
    variants = [v for one in each for v in one.variants]
    externs = {name: call for one in each for name, call in one.externs.items()}
    return CompiledFxGraph(
        info,
        tuple(type(v)(i, v.modules) for v, i in zip(variants, infos, strict=True)),
        first.constants,
        externs,
        trusted=True,
        unstorable=next((one.unstorable for one in each if one.unstorable), None),
    )


def _hints(prepared: _Prepared, graph: CompiledFxGraph) -> dict[str, int]:
    """What the sizes were in the export's example, by symbol."""
    found: dict[str, int] = {}
    for item, value in zip(graph.info.inputs, prepared.inputs, strict=True):
        if isinstance(item, TensorInput) and isinstance(value, torch.Tensor):
            for e, n in zip(item.sizes, value.shape, strict=True):
                example = shapes.hint(n)
                if e.symbol is not None and example is not None:
                    found[e.symbol.name] = example
    return found


# -- the description --------------------------------------------------------------------------------------
def _describe(prepared: _Prepared, graph: CompiledFxGraph) -> tuple[Model, dict[str, torch.Tensor]]:
    """What a package says of its model, and the tensors of its weights."""
    program = prepared.program
    tensors: dict[str, torch.Tensor] = {}
    weights: list[Weight] = []
    given: list[Given] = []
    slots: list[Slot] = []
    homes: dict[Any, str] = {}
    for spec, item in zip(program.graph_signature.input_specs, graph.info.inputs, strict=True):
        if spec.kind is InputKind.USER_INPUT:
            slots.append(Slot(given=len(given)))
            given.append(_given(spec.arg, item))
            continue
        name = str(spec.target)
        tensor = _tensor_of(program, name)
        home = homes.setdefault(_place(tensor), name)
        slots.append(Slot(weight=home))
        if home == name:
            tensors[name] = tensor
            weights.append(_weight(name, spec, tensor, item))
    aliases = {
        name: homes[_place(tensor)]
        for name, tensor in {**program.constants, **program.state_dict}.items()
        if isinstance(tensor, torch.Tensor) and homes.get(_place(tensor), name) != name
    }
    used = {s.name: s for item in graph.info.inputs if isinstance(item, TensorInput) for s in _symbols(item)}
    ranges = tuple(
        Range(str(symbol), *export.value_range(constraint))
        for symbol, constraint in program.range_constraints.items()
        if str(symbol) in used
    )
    return Model(_parameters(program), tuple(given), tuple(weights), tuple(slots), aliases, ranges), tensors


def _parameters(program: ExportedProgram) -> Parameters:
    """How the program is called."""
    arguments, keywords = from_spec(program.call_spec.in_spec).children
    entry = program.module_call_graph[0].signature
    names = list(entry.forward_arg_names or ()) if entry is not None else []
    names = names[: len(arguments.children)]
    return Parameters(arguments, keywords, tuple(names), from_spec(program.call_spec.out_spec))


def _given(argument: Any, item: Any) -> Given:
    if isinstance(argument, ConstantArgument):
        if not isinstance(argument.value, (type(None), bool, int, float, str)):
            raise PackageError(f"the input {argument.name} is a {type(argument.value).__name__}")
        return Given(argument.name, "constant", argument.value)
    return Given(argument.name, "tensor" if isinstance(item, TensorInput) else "number")


def _tensor_of(program: ExportedProgram, name: str) -> torch.Tensor:
    tensor = program.state_dict.get(name)
    if tensor is None:
        tensor = program.constants[name]
    if not isinstance(tensor, torch.Tensor):
        raise PackageError(f"the constant {name} is a {type(tensor).__name__}, which no package can hold")
    return tensor.detach()


def _place(tensor: torch.Tensor) -> Any:
    """Equal for tensors that are one and the same memory."""
    if (
        tensor.device.type != "cpu"
        or not tensor.numel()
        or type(tensor) not in (torch.Tensor, torch.nn.Parameter)
    ):
        return id(tensor)
    return tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tuple(tensor.stride())


def _weight(name: str, spec: Any, tensor: torch.Tensor, item: Any) -> Weight:
    kinds: dict[InputKind, WeightKind] = {InputKind.PARAMETER: "parameter", InputKind.BUFFER: "buffer"}
    return Weight(
        name,
        kinds.get(spec.kind, "constant"),
        tensor.dtype,
        tuple(tensor.shape),
        tuple(tensor.stride()),
        isinstance(item, TensorInput) and item.mutated,
        spec.kind is InputKind.PARAMETER or bool(spec.persistent),
    )


def _symbols(item: TensorInput) -> set[Symbol]:
    return {s for e in (*item.sizes, *item.strides) for s in e.free_symbols}
