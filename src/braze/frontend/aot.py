"""From a module to compiled halves: AOTAutograd's callbacks, and what each graph goes through before a
compiler sees it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch.fx import GraphModule, Node

from braze import config as configuration
from braze import notices
from braze._torch import aot, aot_metadata, dynamo, shapes, trace_state, tracing
from braze._torch.native import resolved
from braze._torch.tracing import fake_mode_of
from braze.artifact.autograd_call import guarded_backward
from braze.artifact.output_code import BoxedCall, OutputCode
from braze.compile.fx_compile import CompileRequest, FxCompile, GraphKind
from braze.compile.in_process import eager_or_raise
from braze.config import Config
from braze.errors import ConfigError
from braze.frontend import aliasing
from braze.frontend.decompositions import decompositions
from braze.frontend.passes.pipeline import JOINT, run_passes
from braze.frontend.second_order import curved_inputs
from braze.frontend.views import (
    DynamoViews,
    outputs_in_inputs,
    views_made_inside,
    with_outputs_in_inputs,
    with_views_of_inputs,
)
from braze.frontend.windows import with_writable_windows
from braze.runtime.ending import busy

__all__ = ["PartObserver", "compile_parts", "next_graph_id"]

_graph_ids = itertools.count()


def next_graph_id() -> int:
    """A number that no other graph of this process has."""
    return next(_graph_ids)


class PartObserver(Protocol):
    """Who is shown the parts of a module: as AOTAutograd made them, and compiled."""

    def note(self, kind: GraphKind, part: GraphModule, inputs: Sequence[Any]) -> None:
        """A part is about to be simplified and compiled."""
        ...

    def compiled(self, kind: GraphKind, code: OutputCode) -> None:
        """A part has been compiled."""
        ...


@busy()
def compile_parts(
    module: torch.nn.Module,
    example_inputs: Sequence[Any],
    config: Config,
    compiler: FxCompile,
    observer: PartObserver | None = None,
    *,
    backward_now: bool = False,
) -> Callable[..., Any]:
    """A callable with the signature of `module`, made of graphs that `compiler` compiled, differentiable
    where the inputs require gradients.

    `module` is a Dynamo graph, or any other that takes its inputs one by one and returns a tuple. `observer`
    is shown every part before and after. `backward_now`: the backward is compiled at once, and not when it
    first runs."""
    if isinstance(module, GraphModule):
        module = with_writable_windows(module)
    graph_id = next_graph_id()
    static_names: set[str] = set()
    own = trace_state.own_tensors(module) if isinstance(module, GraphModule) else {}
    given = [*own.values(), *example_inputs]
    views = DynamoViews(module, len(own)) if isinstance(module, GraphModule) else None
    written: list[tuple[bool, ...] | None] = []
    curved: list[int] = []

    @busy()  # a backward is compiled when it first runs
    def compile_part(part: GraphModule, inputs: Sequence[Any], kind: GraphKind) -> aot.BoxedFunction:
        if observer is not None:
            observer.note(kind, part, inputs)
        placeholders = part.graph.find_nodes(op="placeholder")
        lazy: list[int] = []
        if kind == "backward":
            lazy = [k for k, (node, v) in enumerate(zip(placeholders, inputs)) if _may_be_lazy(node, v)]
            inputs = [resolved(v) if k in lazy else v for k, v in enumerate(inputs)]
            # its inputs are in an order of their own, but keep the names that they have in the forward graph
            static = frozenset(i for i, node in enumerate(placeholders) if node.name in static_names)
        else:
            written.append(aot_metadata.written_inputs())
            if aliasing.writes_to_itself(inputs, written[-1] or ()):
                raise _AsCaptured
            static = tracing.static_inputs()
            static_names.update(placeholders[i].name for i in static if i < len(placeholders))
        visible = tracing.visible_outputs() if kind == "forward" else None
        if kind == "forward":
            curved.extend(curved_inputs(part, visible or 0))
        inner_views = views_made_inside(part) if kind == "forward" else []
        moved = (
            outputs_in_inputs(inputs, views)
            if kind == "inference" and views and any(written[-1] or ())
            else []
        )
        code = simplified_and_compiled(part, inputs, kind, static, visible)
        if kind != "backward":
            tracing.report_output_strides(code.output_strides)
        run = _with_numbers(code.run, inputs)
        if kind == "backward":
            run = guarded_backward(_with_resolved(run, lazy), curved)
        if moved:
            run = with_outputs_in_inputs(run, moved)
        if inner_views:
            run = with_views_of_inputs(run, inner_views)
        return aot.boxed(run)

    def simplified_and_compiled(
        part: GraphModule, inputs: Sequence[Any], kind: GraphKind, static: frozenset[int], visible: int | None
    ) -> OutputCode:
        outputs = len(part.graph.output_node().args[0])  # type: ignore[arg-type]
        request = CompileRequest(
            gm=part,
            shape_env=None,  # read below, where a failure is eager's to mend
            static_inputs=static,
            visible_outputs=outputs if visible is None else visible,
            config=config,
            kind=kind,
            graph_id=graph_id,
        )
        # should anything fail, all of the captured graph is left; of a backward that comes later only this
        spare = tracing.copied(part) if kind == "backward" and not backward_now else None
        with notices.held():
            try:
                with notices.held():  # of what was said on a way that failed nothing is true any more
                    request = replace(request, shape_env=shapes.shape_env_of(inputs))
                    _adopt_inputs(part, inputs)
                    run_passes(part, config)
                    # a backward is compiled later, maybe in another thread, and under these options
                    with tracing.outside_trace(), configuration.using(config):
                        code = _code(compiler.compile(request), compiler)
            except Exception as error:
                if spare is None or dynamo.is_for_dynamo(error):
                    raise
                code = eager_or_raise(replace(request, gm=spare), error)
            if observer is not None:
                with tracing.outside_trace(), configuration.using(config):
                    observer.compiled(kind, code)
        return code

    if isinstance(module, GraphModule) and aliasing.writes_through_folded(module):
        return dynamo.untraced(aliasing.run_as_captured(module, config.strict))
    try:
        compiled = aot.compile_functional(
            module,
            example_inputs,
            forward=lambda part, inputs: compile_part(part, inputs, "forward"),
            backward=lambda part, inputs: compile_part(part, inputs, "backward"),
            inference=lambda part, inputs: compile_part(part, inputs, "inference"),
            simplify_joint=lambda joint: run_passes(joint, config, JOINT),
            decompositions=decompositions(config),
            backward_now=backward_now,
            every_draw=config.fallback_random,
        )
    except Exception as error:
        # AOTAutograd itself may refuse to write to such inputs
        folded = isinstance(error, RuntimeError) and aliasing.any_folded(given)
        if not isinstance(module, GraphModule) or not (folded or isinstance(error, _AsCaptured)):
            raise
        return dynamo.untraced(aliasing.run_as_captured(module, config.strict))
    if isinstance(module, GraphModule) and len(written) == 1 and written[0] is not None and any(written[0]):
        places = [i for i, one in enumerate(written[0]) if one] if len(written[0]) == len(given) else None
        compiled = aliasing.guarded(compiled, module, example_inputs, places, config.strict)
    if isinstance(module, GraphModule):
        compiled = aliasing.placed(compiled, module, example_inputs, config.strict)
    return dynamo.untraced(compiled)


def _code(made: object, compiler: FxCompile) -> OutputCode:
    if not isinstance(made, OutputCode):
        raise ConfigError(f"{type(compiler).__name__}.compile returned {made!r}, and not an OutputCode")
    return made


class _AsCaptured(Exception):
    """The graph can't be compiled for these inputs: it has to run as Dynamo captured it."""


def _with_numbers(run: BoxedCall, inputs: Sequence[Any]) -> BoxedCall:
    """``run``, called with Python's numbers where it takes tensors of one element: numbers other than
    integers that a forward graph kept for its backward."""
    types = {torch.SymFloat: torch.float64, torch.SymBool: torch.bool}
    numbers = [(k, types[type(value)]) for k, value in enumerate(inputs) if type(value) in types]
    if not numbers:
        return run

    def call(arguments: list[Any]) -> Sequence[Any]:
        for position, dtype in numbers:
            arguments[position] = torch.scalar_tensor(arguments[position], dtype=dtype)
        return run(arguments)

    return call


def _may_be_lazy(node: Node, value: Any) -> bool:
    """Whether an input of a backward may be conjugated or negated lazily in one call, and not in the next: of
    gradients there are no guards."""
    return isinstance(value, torch.Tensor) and (value.is_complex() or node.name.startswith("tangents"))


def _with_resolved(run: BoxedCall, lazy: Sequence[int]) -> BoxedCall:
    """``run``, called with tensors at these places whose memory holds the numbers that they stand for."""
    if not lazy:
        return run

    def call(arguments: list[Any]) -> Sequence[Any]:
        for position in lazy:
            arguments[position] = resolved(arguments[position])
        return run(arguments)

    return call


def _adopt_inputs(gm: GraphModule, example_inputs: Sequence[Any]) -> None:
    """Make the graph's metadata that of `example_inputs`.

    A backward graph was traced with the strides of the trace; the forward may have been compiled to give
    others."""
    placeholders = gm.graph.find_nodes(op="placeholder")
    tracing.keep_promised_strides(gm)
    changed = False
    for node, value in zip(placeholders, example_inputs, strict=True):
        traced = node.meta.get("val")
        if isinstance(value, torch.Tensor) and isinstance(traced, torch.Tensor):
            changed |= value is not traced and value.stride() != traced.stride()
        node.meta["val"] = value
    fake_mode = fake_mode_of(example_inputs)
    if changed and fake_mode is not None:
        for node in gm.graph.find_nodes(op="call_function", target=torch.ops.aten.view.default):
            node.target = torch.ops.aten.reshape.default  # a view of the strides that were traced
        tracing.propagate(gm, fake_mode, example_inputs)
