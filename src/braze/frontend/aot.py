"""From a Dynamo graph to compiled halves: AOTAutograd's callbacks, and what each graph goes through before a
compiler sees it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.fx import GraphModule

from braze._torch import aot, tracing
from braze._torch.tracing import fake_mode_of
from braze.compile.fx_compile import CompileRequest, FxCompile, GraphKind
from braze.config import Config
from braze.frontend.decompositions import decompositions
from braze.frontend.passes import cse
from braze.frontend.passes.pipeline import run_passes
from braze.frontend.recording import Recording

__all__ = ["compile_dynamo_graph"]

_graph_ids = itertools.count()


def compile_dynamo_graph(
    gm: GraphModule,
    example_inputs: Sequence[Any],
    config: Config,
    compiler: FxCompile,
    recording: Recording | None = None,
) -> Callable[..., Any]:
    """A callable with the signature of `gm`, made of graphs that `compiler` compiled, differentiable where
    the inputs require gradients. `recording` is shown every part before and after."""
    graph_id = next(_graph_ids)
    static_names: set[str] = set()

    def compile_part(part: GraphModule, inputs: Sequence[Any], kind: GraphKind) -> aot.BoxedFunction:
        if recording is not None:
            recording.note(kind, part, inputs)
        placeholders = part.graph.find_nodes(op="placeholder")
        if kind == "backward":
            # its inputs are in an order of their own, but keep the names that they have in the forward graph
            static = frozenset(i for i, node in enumerate(placeholders) if node.name in static_names)
        else:
            static = tracing.static_inputs()
            static_names.update(placeholders[i].name for i in static if i < len(placeholders))
        outputs = len(part.graph.output_node().args[0])  # type: ignore[arg-type]
        visible = tracing.visible_outputs() if kind == "forward" else None
        _adopt_inputs(part, inputs)
        run_passes(part, config)
        request = CompileRequest(
            gm=part,
            example_inputs=tuple(inputs),
            static_inputs=static,
            visible_outputs=outputs if visible is None else visible,
            config=config,
            kind=kind,
            graph_id=graph_id,
        )
        with tracing.outside_trace():
            code = compiler.compile(request)
            if recording is not None:
                recording.compiled(kind, code)
        if kind != "backward":
            tracing.report_output_strides(code.output_strides)
        return aot.boxed(code.run)

    return aot.compile_functional(
        gm,
        example_inputs,
        forward=lambda part, inputs: compile_part(part, inputs, "forward"),
        backward=lambda part, inputs: compile_part(part, inputs, "backward"),
        inference=lambda part, inputs: compile_part(part, inputs, "inference"),
        simplify_joint=cse.run,
        decompositions=decompositions(config),
    )


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
