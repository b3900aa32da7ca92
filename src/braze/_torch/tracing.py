"""What a compile function can learn from, and must tell, the trace that is going on around it."""

from __future__ import annotations

import copy
import operator
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

import torch
from torch._dynamo import convert_frame
from torch._guards import TracingContext, detect_fake_mode, tracing
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.fx import GraphModule, Interpreter, Node, traceback
from torch.fx.experimental.proxy_tensor import disable_proxy_modes_tracing, make_fx
from torch.fx.node import map_arg
from torch.fx.passes.fake_tensor_prop import FakeTensorProp

_PROMISED = "braze_promised_strides"

__all__ = [
    "Remembered",
    "apart",
    "as_operators",
    "copied",
    "fake_mode_of",
    "keep_promised_strides",
    "new_trace",
    "outside_trace",
    "promised_strides",
    "propagate",
    "report_output_strides",
    "set_promised_strides",
    "static_inputs",
    "strides_of_outputs",
    "untraced_values",
    "value_of",
    "visible_outputs",
]


def copied(gm: GraphModule) -> GraphModule:
    """The same graph with nodes of its own, under the same names: a copy would give others to those that are
    called as functions of Python's are (``input``), and a program knows its arguments by name. Tensors, and
    what is known of values, are shared."""
    graph = copy.deepcopy(gm.graph)
    for node, made in zip(gm.graph.nodes, graph.nodes, strict=True):
        made.name = node.name
    result = GraphModule(gm, graph)
    result.meta.update(gm.meta)
    return result


class Remembered:
    """What a graph is now, at much less than the cost of a copy: its nodes' arguments are never changed in
    place, so that to know which they are is enough."""

    def __init__(self, gm: GraphModule) -> None:
        self._nodes = [
            (n, n.op, n.target, n.args, n.kwargs, n.name, n.type, dict(n.meta)) for n in gm.graph.nodes
        ]
        self._meta = dict(gm.meta)

    def restore(self, gm: GraphModule) -> None:
        """Give the module this graph back, with new nodes under the same names."""
        graph = torch.fx.Graph(tracer_cls=gm.graph._tracer_cls)
        graph.set_codegen(gm.graph._codegen)
        made: dict[Node, Node] = {}
        for node, op, target, args, kwargs, name, kind, meta in self._nodes:
            new_args, new_kwargs = map_arg((args, dict(kwargs)), made.__getitem__)
            made[node] = graph.create_node(op, target, new_args, new_kwargs, name, kind)
            made[node].name = name
            made[node].meta = dict(meta)
        gm.graph = graph
        gm.meta.clear()
        gm.meta.update(self._meta)


def static_inputs() -> frozenset[int]:
    """Positions of the graph's inputs that are parameters or buffers: the same storage at every call.

    Empty outside of a trace, and for a backward graph (whose inputs are in another order).
    """
    context = TracingContext.try_get()
    metadata = None if context is None else context.fw_metadata
    return frozenset() if metadata is None else frozenset(metadata.static_input_indices)


def visible_outputs() -> int | None:
    """How many of a forward graph's outputs, from the first, leave the compiled region: mutated inputs,
    results and the bases of results that are views. What follows is kept for the backward and seen by
    nobody else. None where it is not known."""
    context = TracingContext.try_get()
    metadata = None if context is None else context.fw_metadata
    return None if metadata is None else int(metadata.num_forward_returns)


def report_output_strides(strides: Sequence[tuple[int, ...] | None]) -> None:
    """Tell AOTAutograd the strides that the outputs will really have, in elements; None where it shall assume
    those of the trace. The backward graph is then compiled for the saved tensors as they are."""
    context = TracingContext.try_get()
    if context is not None and context.output_strides is not None:
        context.output_strides.extend(strides)


def fake_mode_of(example_inputs: Sequence[Any]) -> FakeTensorMode | None:
    """The fake mode of the running trace, or of the first fake tensor among the inputs."""
    return detect_fake_mode(list(example_inputs))


@contextmanager
def outside_trace() -> Iterator[None]:
    """Inside this block tensors are real: no fake mode, no Python dispatcher, no gradient tracking."""
    with ExitStack() as stack:
        stack.enter_context(unset_fake_temporarily())
        stack.enter_context(torch._C._DisablePythonDispatcher())
        stack.enter_context(torch.no_grad())
        yield


@contextmanager
def apart() -> Iterator[None]:
    """Inside this block no trace is going on: `outside_trace`, with fake tensors of another one at home."""
    with tracing(None), outside_trace():
        yield


@contextmanager
def new_trace(mode: FakeTensorMode) -> Iterator[None]:
    """The context of a trace without Dynamo, whose inputs are fake tensors of `mode`. One thread at a time:
    tracing patches PyTorch's own modules; Dynamo's lock keeps it out as well."""
    with convert_frame.compile_lock, tracing(TracingContext(mode)):
        try:
            yield
        finally:
            # PyTorch never lets go of a ShapeEnv (a cache of one of its methods is unbounded): what it
            # remembers of each operator is the bulk of it
            if mode.shape_env is not None:
                mode.shape_env.fake_tensor_cache.clear()


def propagate(gm: GraphModule, fake_mode: FakeTensorMode, example_inputs: Sequence[Any]) -> None:
    """Compute ``meta["val"]`` of every node of `gm` again, from `example_inputs`."""
    FakeTensorProp(gm, mode=fake_mode).propagate_dont_convert_inputs(*example_inputs)


def as_operators(gm: GraphModule, arguments: Sequence[Any], *, sizes: bool) -> GraphModule:
    """The graph as ATen operators that nobody has taken apart, with the user's lines. ``sizes``: they follow
    from those of the arguments, and are numbers otherwise. Raises whatever tracing raises."""
    mode: Literal["symbolic", "fake"] = "symbolic" if sizes else "fake"
    with traceback.preserve_node_meta():
        traced: GraphModule = make_fx(
            Interpreter(gm).run, tracing_mode=mode, _error_on_data_dependent_ops=False
        )(*arguments)
    traced.graph.eliminate_dead_code()
    return traced


def value_of(gm: GraphModule, node: Node, fake_mode: FakeTensorMode) -> Any:
    """What a node gives, as a fake value, for those that its inputs give. Raises what its target raises."""
    if node.op == "get_attr":
        found = operator.attrgetter(str(node.target))(gm)
        return fake_mode.from_tensor(found) if isinstance(found, torch.Tensor) else found
    args, kwargs = map_arg((node.args, dict(node.kwargs)), lambda n: n.meta["val"])
    with fake_mode, torch.no_grad():
        return node.target(*args, **kwargs)  # type: ignore[operator]


@contextmanager
def untraced_values() -> Iterator[None]:
    """Inside this block, in the midst of a trace, what is computed does not become part of the graph."""
    with disable_proxy_modes_tracing():
        yield


def promised_strides(gm: GraphModule) -> list[tuple[Any, ...] | None]:
    """For each output of `gm` the strides that its caller expects; None for what is not a strided tensor."""
    kept = gm.meta.get(_PROMISED)
    return strides_of_outputs(gm) if kept is None else list(kept)


def keep_promised_strides(gm: GraphModule) -> None:
    """Remember the strides of the outputs as they are now, before a pass changes those inside the graph."""
    if _PROMISED not in gm.meta:
        gm.meta[_PROMISED] = strides_of_outputs(gm)


def set_promised_strides(gm: GraphModule, promised: Sequence[tuple[Any, ...] | None]) -> None:
    """Remember the strides that the caller of `gm` expects, one for each output."""
    gm.meta[_PROMISED] = list(promised)


def strides_of_outputs(gm: GraphModule) -> list[tuple[Any, ...] | None]:
    """For each output of `gm` the strides that it has in the graph; None for what is not a strided tensor."""
    promised: list[tuple[Any, ...] | None] = []
    for value in gm.graph.output_node().args[0]:  # type: ignore[union-attr]
        meta = value.meta.get("val") if isinstance(value, torch.fx.Node) else None
        strided = isinstance(meta, torch.Tensor) and meta.layout is torch.strided
        promised.append(tuple(meta.stride()) if strided else None)  # type: ignore[union-attr]
    return promised
