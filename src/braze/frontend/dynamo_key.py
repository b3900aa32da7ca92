"""The graph that Dynamo hands over, and all that AOTAutograd's tracing would read besides, as text: the key
of the cache's second level.

Two compilations with equal keys would be traced to equal graphs, decomposed and split alike, and wrapped in
the same call. What has no faithful text (functions that people wrote, tensor subclasses, hooks and modes,
sizes that depend on data) is a reason not to have a key; such graphs are cached after they were traced.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.fx import GraphModule, Node

from braze._torch import aot_metadata, torch_functions, trace_state
from braze._torch.shape_envs import ShapeEnv
from braze._torch.shapes import is_symbolic
from braze._torch.trace_state import TensorFacts
from braze.compile.text.graphs import GraphPrinter, attribute_of, plain
from braze.config import Config
from braze.errors import Refused, UnserializableError
from braze.extensions import registry as extensions

__all__ = ["DynamoKey", "describe"]


@dataclass(frozen=True)
class DynamoKey:
    """``parts``: name and text of each part of the key, in an order that does not change. ``names``: what the
    trace's symbols are called in it; ``env`` is what the trace knows of them."""

    parts: tuple[tuple[str, str], ...]
    names: Mapping[str, str] = field(compare=False)
    env: ShapeEnv | None = field(compare=False)


def describe(gm: GraphModule, example_inputs: Sequence[Any], config: Config) -> DynamoKey:
    """The key of a graph. To be called where the backend is, before anything else changes the graph or the
    trace. The part that depends on versions and on the machine is not in it. Raises `Refused` where it has
    none."""
    try:
        return _describe(gm, example_inputs, config)
    except UnserializableError as error:
        raise Refused(error.what) from None
    except AttributeError as error:
        raise Refused(f"this version of PyTorch is not understood: {error}") from None


def _describe(gm: GraphModule, example_inputs: Sequence[Any], config: Config) -> DynamoKey:
    for reason in trace_state.obstacles():
        raise Refused(reason)
    if aot_metadata.is_split_by_ddp():
        raise Refused("the graph is a part of one that DistributedDataParallel split")
    text = _Text(gm)
    inputs = "\n".join(text.inputs(example_inputs))
    graph = "\n".join(text.function(gm, "forward")[1])
    conditions = "\n".join(text.conditions())
    settings, shape_settings = trace_state.settings(), trace_state.shape_settings()
    if settings is None or shape_settings is None:
        raise Refused("a setting of AOTAutograd or of symbolic shapes is an object")
    parts = (
        ("graph", graph),
        ("inputs", inputs),
        ("sizes", conditions),
        ("tracing.state", "\n".join(f"{name}={value}" for name, value in trace_state.state())),
        ("tracing.settings", f"{settings}\n{shape_settings}"),
        ("config", config.code_key()),
        *[("extensions", "\n".join(lines)) for lines in [extensions.texts()] if lines],
    )
    return DynamoKey(parts, text.known(), text.env)


# Of a node's metadata these are for people, or follow from the rest.
_HARMLESS_META = frozenset(
    """stack_trace example_value grapharg source_fn_stack nn_module_stack fwd_source_fn_stack
    fwd_nn_module_stack tensor_dict creation_timestamp from_node unbacked_bindings seq_nr original_aten
    _numeric_debug_handle torch_fn val is_wrapped""".split()
)
_CHECKPOINT = "_checkpoint_context_fn"


class _Text(GraphPrinter):
    """A graph from Dynamo, which calls PyTorch's functions and methods by name. Values have no metadata
    but that of the inputs; what is known of symbols is what the trace has assumed so far."""

    def __init__(self, gm: GraphModule) -> None:
        super().__init__(numbered=True)
        self._gm = gm
        self._own = {name: i for i, name in enumerate(trace_state.own_tensors(gm))}
        self.env = trace_state.traced_env()
        reason = None if self.env is None else trace_state.untraceable_symbols(self.env)
        if reason is not None:
            raise Refused(reason)

    # -- symbols ----------------------------------------------------------------------------------------
    def conditions(self) -> Iterator[str]:
        """What the trace has assumed so far, and the range of each symbol: a trace of the same graph that
        had assumed something else may go on in another way."""
        if self.env is not None and self.expressions.symbols:
            assumed = [f"assume({self.expressions.text(guard.expr)})" for guard in self.env.guards]
            yield from (*self.declarations(self.env), *assumed)

    def known(self) -> dict[str, str]:
        """What the symbols of the trace that came up are called here."""
        ranges = {} if self.env is None else self.env.var_to_range
        return {symbol.name: name for symbol, name in self.expressions.symbols.items() if symbol in ranges}

    # -- inputs -----------------------------------------------------------------------------------------
    def inputs(self, example_inputs: Sequence[Any]) -> Iterator[str]:
        """A line for each input, those before the others that the graph holds itself."""
        described = list(trace_state.graph_inputs(self._gm, example_inputs))
        own, storages = len(self._own), dict[int, int]()
        placeholders = len(self._gm.graph.find_nodes(op="placeholder"))
        if not len(example_inputs) == len(described) - own == placeholders:
            raise Refused("the inputs are not those of the graph")
        for i, one in enumerate(described, -own):
            if one.reason is not None:
                raise Refused(f"{f'own tensor {i + own}' if i < 0 else f'input {i}'} {one.reason}")
            name = f"own{i + own}" if i < 0 else f"v{i}"
            if one.tensor is None:
                yield f"{name}: {self._number(one.number)}"
            else:
                static = "" if one.static is None else f" & static({one.static!a})"
                yield f"{name}: {self._input(one.tensor, storages)}{static}"

    def _number(self, value: Any) -> str:
        return self.symbolic(value) if is_symbolic(value) else str(int(value))

    def _input(self, tensor: TensorFacts, storages: dict[int, int]) -> str:
        if "conj" in tensor.flags or "neg" in tensor.flags:
            raise Refused("an input is conjugated or negated lazily")
        layout = (plain(tensor.sizes), plain(tensor.strides), *plain((tensor.offset,)), tensor.device)
        storage = storages.setdefault(tensor.storage, len(storages))
        marks = [self.layout(tensor.dtype, *layout), tensor.kind, f"storage({storage})", *tensor.flags]
        if tensor.base is not None:
            marks.append(f"view({self._input(tensor.base, storages)})")
        return " & ".join(marks)

    # -- the graph --------------------------------------------------------------------------------------
    def function(self, gm: GraphModule, name: str, **place: Any) -> tuple[list[str], list[str]]:
        if _CHECKPOINT in gm.meta:
            raise Refused("a function of the user's chooses what a checkpoint keeps")
        return super().function(gm, name, **place)

    def annotation(self, node: Node) -> str:
        value = node.meta.get("example_value")
        # says which symbol stands for which number that the graph reads
        marks = [self.symbolic(value)] if is_symbolic(value) else []
        meta = {k: v for k, v in node.meta.items() if k not in _HARMLESS_META and v}
        return " & ".join([*marks, *([f"meta({self.argument(meta)})"] if meta else [])])

    def output(self, node: Node, indent: str) -> str:
        marks = self.annotation(node)
        returned = super().output(node, indent)
        return f"{indent}output: {marks}\n{returned}" if marks else returned

    def attribute(self, gm: GraphModule, node: Node, path: str, indent: str) -> tuple[str, list[str]]:
        target = str(node.target)
        if not path and target in self._own:
            return f"own{self._own[target]}", []
        found = attribute_of(gm, node)
        if not isinstance(found, GraphModule):
            raise Refused(f"the graph holds a {type(found).__name__}")
        if trace_state.own_tensors(found):
            raise Refused("a graph inside of it has parameters of its own")
        marks = self.annotation(node)
        head = [f"{indent}@{marks}"] if marks else []
        return "", [*head, *self.function(found, self.names[node], path=target, indent=indent)[1]]

    def call(self, node: Node) -> str:
        target = node.target
        if node.op == "call_method" and node.args:
            if not torch_functions.is_own_method(str(target)):
                raise Refused(f"it calls {target}, a method that is not PyTorch's")
            return f"{self.argument(node.args[0])}.{target}({self.arguments(node, 1)})"
        if node.op != "call_function":
            raise Refused(f"it calls the module {target}")
        name = torch_functions.name_of(target)
        if name is None:
            raise Refused(
                f"it calls {getattr(target, '__qualname__', None) or target}, which is not PyTorch's"
            )
        return f"{name}({self.arguments(node)})"

    def _dict(self, value: Mapping[Any, Any]) -> str:
        return "{" + ", ".join([f"{self.argument(k)}: {self.argument(v)}" for k, v in value.items()]) + "}"

    def _other(self, value: Any) -> str:
        # no other classes: one of the user's could print itself as it likes
        if type(value) in _OF_FX or isinstance(value, (torch.layout, torch.memory_format)):
            return super()._other(value)
        if type(value) is torch.Size:
            return f"Size({self._items(value)})"
        if type(value) is range:
            return repr(value)
        name = torch_functions.name_of(value) if callable(value) else None
        if name is None:
            raise Refused(f"an argument is a {type(value).__name__}")
        return name


_OF_FX = (torch.fx.immutable_collections.immutable_list, torch.fx.immutable_collections.immutable_dict)
