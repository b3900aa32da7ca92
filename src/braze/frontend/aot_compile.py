"""From a program that `torch.export` captured to a package: one file that runs without Dynamo and without the
compiler."""

from __future__ import annotations

import itertools
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import ConstantArgument, InputKind

from braze._torch import export, shapes, tracing
from braze._torch.devices import in_host_memory
from braze.artifact.compiled_graph import CompiledFxGraph
from braze.artifact.extern_nodes import extern_nodes
from braze.artifact.model_info import ArgumentLeaf, Model, Slot, Weight, WeightKind
from braze.artifact.package import write_package
from braze.artifact.schema import TensorInput
from braze.compile.fx_compile import CompileRequest
from braze.compile.in_process import compile_for
from braze.config import Config
from braze.errors import BrazeError, BrazeWarning, ConfigError, PackageError
from braze.frontend.aot_arguments import config_of, flag, output_path, program_of, targets_of
from braze.frontend.exported import Prepared, parameters_of
from braze.frontend.small_sizes import Case, Served, served_by
from braze.runtime.expr import Symbol
from braze.runtime.plan import SymbolRange

__all__ = ["DEFAULT_TARGETS", "aot_compile"]

DEFAULT_TARGETS = ("x86-64-v3", "x86-64-v4")

_numbers = itertools.count()


def aot_compile(
    program: ExportedProgram,
    path: str | os.PathLike[str],
    targets: str | Sequence[str] = DEFAULT_TARGETS,
    *,
    weights: bool = True,
    options: Mapping[str, object] | None = None,
) -> Path:
    """Compile an exported program into a package, a ``.pt2`` file for `braze.aot_load`.

    Args:
        program: what `torch.export.export` returned. Sizes that it left dynamic stay so, within their ranges.
        path: where the package is written. A file that is there is replaced, once the new one is whole.
        targets: CPUs to make code for, or one of them: ``x86-64-v3``, ``x86-64-v4``, ``generic``, ``host``,
            or a name of LLVM's. The best that the loading machine can run is picked there.
        weights: whether parameters, buffers and constants go into the package. Those that are left out are
            bound by name after loading.
        options: names and values of `braze.config.Config`, for this compilation.

    Returns the path.

    Raises:
        PackageError: the program cannot be made a package: it has inputs or effects that no package can have,
            or runs operators that cannot be stored.
        ConfigError: an unknown option, target, or value.
        TypeError: ``program`` is a module or something else that is not exported yet, or another argument is
            of a wrong type.
        OSError: the file cannot be written. Like the last two, raised before anything is compiled.
    """
    program, path, names = program_of(program), output_path(path), targets_of(targets)
    config, weights = config_of(options), flag("weights", weights)
    try:
        fixed = export.narrowed(program)
        served = served_by(program, config, lambda prepared: _compile(prepared, names, config))
        cases = served.cases
        added = dict.fromkeys((*fixed, *served.prepared.assumed))
        added.update({str(g.renamed(c.prepared.names)): None for c in cases for g in c.graph.info.guards})
        if added:
            warnings.warn(
                f"the package works for sizes with {' and '.join(added)} only", BrazeWarning, stacklevel=2
            )
        if served.without:
            shown = [*served.without[:6], *(["others of these"] if len(served.without) > 6 else [])]
            warnings.warn(
                f"the package does not work for sizes with {' or '.join(shown)}: it takes too many"
                " graphs to tell all small sizes apart; those that are declared come first",
                BrazeWarning,
                stacklevel=2,
            )
        model, tensors = _describe(served)
        (data, nodes), *others = [_stored(case) for case in cases]
    except (ConfigError, PackageError):
        raise
    except BrazeError as error:
        raise PackageError(
            f"this program cannot be made a package: {error.what}",
            node=error.node,
            where=error.where,
            hint=error.hint,
        ) from error
    except Exception as error:  # PyTorch's tracing may raise anything
        what = next(iter(str(error).splitlines()), "")
        raise PackageError(
            f"this program cannot be traced again for a package: {type(error).__name__}: {what}",
            hint="the program's own exported.run_decompositions() shows whether PyTorch or Braze is at fault",
        ) from error
    write_package(path, model, data, nodes, tensors, weights=weights, others=others)
    return path


def _compile(prepared: Prepared, targets: Sequence[str], config: Config) -> CompiledFxGraph:
    """One graph with code for every target."""
    number = next(_numbers)
    static = frozenset(
        position
        for position, spec in enumerate(prepared.program.graph_signature.input_specs)
        if spec.kind is not InputKind.USER_INPUT
    )
    each: list[CompiledFxGraph] = []
    for target in targets:
        gm = tracing.copied(prepared.gm)
        request = CompileRequest(
            gm=gm,
            shape_env=shapes.shape_env_of(prepared.inputs),
            static_inputs=static,
            visible_outputs=len(gm.graph.output_node().args[0]),  # type: ignore[arg-type]
            config=config.replace(target_cpu=target),
            kind="inference",
            graph_id=number,
        )
        with tracing.outside_trace():
            each.append(compile_for(request, target))
    return _merged(each)


def _merged(each: Sequence[CompiledFxGraph], *, inner: bool = False) -> CompiledFxGraph:
    """The graphs of several targets as one graph with several variants. Guards that compiling for one of them
    added hold for all. ``inner``: they are a part of others."""
    first = each[0]
    name = first.name if inner else "model"
    infos = [
        msgspec.structs.replace(v, plan=msgspec.structs.replace(v.plan, name=name))
        for one in each
        for v in one.info.variants
    ]
    added = tuple(dict.fromkeys(g for one in each for g in one.info.guards))
    calls = {c.key: c for one in each for c in one.info.calls}
    info = msgspec.structs.replace(
        first.info, name=name, variants=tuple(infos), guards=added, calls=tuple(calls.values())
    )
    variants = [v for one in each for v in one.variants]
    externs = {key: call for one in each for key, call in one.externs.items()}
    for key in calls:
        alike = [one.calls[key] for one in each if key in one.calls]
        graphs = zip(*[call.graphs for call in alike], strict=True)
        externs[key] = alike[0].of([_merged(of_targets, inner=True) for of_targets in graphs])
    return CompiledFxGraph(
        info,
        tuple(type(v)(i, v.modules) for v, i in zip(variants, infos, strict=True)),
        first.constants,
        externs,
        trusted=True,
        unstorable=next((one.unstorable for one in each if one.unstorable), None),
    )


def _hints(prepared: Prepared, graph: CompiledFxGraph) -> dict[str, int]:
    """What the sizes were in the export's example, by symbol."""
    found: dict[str, int] = {}
    for item, value in zip(graph.info.inputs, prepared.inputs, strict=True):
        if isinstance(item, TensorInput) and isinstance(value, torch.Tensor):
            for e, n in zip(item.spec.sizes, value.shape, strict=True):
                example = shapes.hint(n)
                if e.symbol is not None and example is not None:
                    found[e.symbol.name] = example
    return found


def _stored(case: Case) -> tuple[bytes, str]:
    """The bytes of a graph, and its calls of operators."""
    plan, hints = case.graph.info.variants[0].plan, _hints(case.prepared, case.graph)
    nodes = extern_nodes(plan, hints, case.graph.calls)
    return case.graph.prepare_for_serialization(), nodes


# -- the description --------------------------------------------------------------------------------------
def _describe(served: Served) -> tuple[Model, dict[str, torch.Tensor]]:
    """What a package says of its model, and the tensors of its weights."""
    program, graph = served.prepared.program, served.cases[0].graph
    tensors: dict[str, torch.Tensor] = {}
    weights: list[Weight] = []
    given: list[ArgumentLeaf] = []
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
    ranges: list[SymbolRange] = []
    for symbol, constraint in program.range_constraints.items():
        if str(symbol) in used:
            least, most = export.value_range(constraint)
            ranges.append(SymbolRange(str(symbol), min(least, served.least.get(str(symbol), least)), most))
    return Model(
        parameters_of(program), tuple(given), tuple(weights), tuple(slots), aliases, tuple(ranges)
    ), tensors


def _given(argument: Any, item: Any) -> ArgumentLeaf:
    if isinstance(argument, ConstantArgument):
        if not isinstance(argument.value, (type(None), bool, int, float, str)):
            raise PackageError(f"the input {argument.name} is a {type(argument.value).__name__}")
        return ArgumentLeaf(argument.name, "constant", argument.value)
    return ArgumentLeaf(argument.name, "tensor" if isinstance(item, TensorInput) else "number")


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
        not in_host_memory(tensor)
        or not tensor.numel()
        or type(tensor) not in (torch.Tensor, torch.nn.Parameter)
    ):
        return id(tensor)
    return tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tuple(tensor.stride())


def _weight(name: str, spec: Any, tensor: torch.Tensor, item: Any) -> Weight:
    kinds: dict[InputKind, WeightKind] = {InputKind.PARAMETER: "parameter", InputKind.BUFFER: "buffer"}
    return Weight(
        tensor.dtype,
        tuple(tensor.shape),
        tuple(tensor.stride()),
        name=name,
        kind=kinds.get(spec.kind, "constant"),
        mutated=isinstance(item, TensorInput) and item.mutated,
        persistent=spec.kind is InputKind.PARAMETER or bool(spec.persistent),
    )


def _symbols(item: TensorInput) -> set[Symbol]:
    return {s for e in item.spec.numbers for s in e.free_symbols}
