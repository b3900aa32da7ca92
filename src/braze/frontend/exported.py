"""From a program that `torch.export` captured to a graph that can be compiled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import ConstantArgument, InputKind, OutputKind
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg

from braze._torch import export, schema, shapes, tracing
from braze._torch.operators import qualified_name
from braze._torch.provenance import source_of
from braze.artifact.call_arguments import argument_paths
from braze.artifact.graph_call import GRAPHS_OF
from braze.artifact.model_info import CallingConvention
from braze.artifact.trees import from_spec
from braze.compile import guards
from braze.config import Config
from braze.errors import PackageError
from braze.frontend.decompositions import decompositions
from braze.frontend.passes import effects, empties
from braze.frontend.passes.pipeline import run_passes
from braze.frontend.windows import with_writable_windows

__all__ = ["Prepared", "parameters_of", "prepare"]


@dataclass(frozen=True)
class Prepared:
    """A program whose mutations are `copy_` nodes, and its graph, ready to be compiled. ``names``: how one
    would write the sizes that symbols stand for; ``assumed``: what the graph takes for granted of sizes and
    the program itself does not, as one would write it."""

    program: ExportedProgram
    gm: GraphModule
    inputs: tuple[Any, ...]
    names: Mapping[str, str]
    assumed: tuple[str, ...] = ()

    @property
    def signature(self) -> list[tuple[InputKind, object]]:
        """What each input is."""
        return [(spec.kind, spec.target) for spec in self.program.graph_signature.input_specs]

    @property
    def text(self) -> str:
        """Its nodes with what is known of their values: two graphs with one text compute the same."""
        lines: list[str] = []
        numbers = {node: f"%{number}" for number, node in enumerate(self.gm.graph.nodes)}
        for node in numbers:
            target = "" if node.op == "placeholder" else node.target
            arguments = map_arg((node.args, node.kwargs), numbers.__getitem__)
            lines.append(f"{node.op} {target} {arguments}  {_written(node.meta.get('val'))}")
        return "\n".join(lines)


def prepare(program: ExportedProgram, config: Config) -> Prepared:
    """The graph that is compiled, as AOTAutograd would make it for inference."""
    given = [node.meta.get("val") for node in program.graph.find_nodes(op="placeholder")]
    before = _names_of_sizes(program, given)
    gm = with_writable_windows(program.graph_module)
    if gm is not program.graph_module:
        program = export.with_graph(program, gm, program.range_constraints)
    program, assumed = export.decomposed(program, decompositions(config))
    gm = tracing.copied(program.graph_module)
    placeholders = gm.graph.find_nodes(op="placeholder")
    for node, spec in zip(placeholders, program.graph_signature.input_specs, strict=True):
        if spec.kind in (InputKind.CUSTOM_OBJ, InputKind.TOKEN):
            raise PackageError(
                f"this program takes {spec.arg.name}, a {spec.kind.name}, which no package can"
            )
        if isinstance(spec.arg, ConstantArgument):
            node.meta["val"] = None  # its value is written out where it is used
    _write_back(program, gm, placeholders)
    _refuse_functions(gm)
    for node in gm.graph.find_nodes(
        op="call_function", target=torch.ops.aten._assert_tensor_metadata.default
    ):
        gm.graph.erase_node(node)  # the call's own checks say as much
    gm.graph.lint()
    gm.recompile()
    tracing.keep_promised_strides(gm)
    empties.run(gm)
    with torch.no_grad():
        run_passes(gm, config)
    inputs = tuple(node.meta.get("val") for node in placeholders)
    names = _names_of_sizes(program, inputs)
    unsaid = guards.unsaid(shapes.shape_env_of(inputs), names)
    if unsaid:
        raise PackageError(
            f"this program holds only for sizes with {unsaid[0]}, which a package cannot check",
            hint="write the condition with integers, or export the program without it",
        )
    return Prepared(program, gm, inputs, names, tuple(export.worded(c, {**before, **names}) for c in assumed))


def _refuse_functions(gm: GraphModule) -> None:
    """Raise `PackageError` where the graph calls what takes graphs or functions that a package has no place
    for."""
    for node in gm.graph.nodes:
        if node.op != "call_function" or not schema.is_higher_order(node.target):
            continue
        if qualified_name(node.target) in GRAPHS_OF:
            continue
        if schema.is_operator(next(iter(node.args), None)):
            raise PackageError(
                f"this program calls {node.args[0]}, an operator of a library that writes to its arguments,"
                " and a package has no place for these",
                node=node.name,
                where=source_of(node) or None,
                hint="give the operator a form that returns what it computes, and export with that",
            )
        raise PackageError(
            f"this program calls torch.ops.higher_order.{node.target}, which has graphs of its own,"
            " and a package has no place for these",
            node=node.name,
            where=source_of(node) or None,
            hint="write it with torch.where, or as a Python loop over a fixed number of steps, before the"
            " export; torch.compile(model, backend='braze') runs it as it is",
        )


def _written(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_written, value))}]"
    if isinstance(value, torch.Tensor):
        strides = value.stride() if value.layout is torch.strided else ()
        return f"{value.dtype} {value.layout} {[_written(n) for n in (*value.shape, *strides)]}"
    return str(shapes.expression_of(value)[0]) if shapes.is_symbolic(value) else str(value)


def _names_of_sizes(program: ExportedProgram, inputs: Sequence[Any]) -> dict[str, str]:
    """For each symbol that is a size of an argument, or an argument itself: how one would write it."""
    found: dict[str, str] = {}
    paths = iter(argument_paths(parameters_of(program)))
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
    written: dict[Node, Node] = {}
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
            if spec.kind is OutputKind.USER_INPUT_MUTATION:
                written[value] = write
    output.args = (tuple(_in_memory(value, written) for value in kept),)


def _in_memory(value: Any, written: Mapping[Node, Node]) -> Any:
    """The value, in the memory of the argument that was written to, where it is what was written or a view of
    that: the caller sees them share it."""
    if not isinstance(value, Node) or not written:
        return value
    chain = [value]
    while chain[-1] not in written:
        if not effects.is_view(chain[-1]):
            return value
        chain.append(chain[-1].all_input_nodes[0])
    made = written[chain.pop()]
    for node in reversed(chain):
        made = _view_of(made, node)
    return made


def _view_of(base: Node, view: Node) -> Node:
    """``view`` of another tensor, at the end of the graph."""
    first = view.all_input_nodes[0]
    with view.graph.inserting_before(view.graph.output_node()):
        return view.graph.node_copy(view, lambda node: base if node is first else node)


def parameters_of(program: ExportedProgram) -> CallingConvention:
    """How the program is called."""
    arguments, keywords = from_spec(program.call_spec.in_spec).children
    entry = program.module_call_graph[0].signature
    names = list(entry.forward_arg_names or ()) if entry is not None else []
    names = names[: len(arguments.children)]
    return CallingConvention(arguments, keywords, tuple(names), from_spec(program.call_spec.out_spec))
