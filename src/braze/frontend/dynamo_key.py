"""The graph that Dynamo hands over, and all that AOTAutograd's tracing would read besides, as text: the key
of the cache's second level.

Two compilations with equal keys would be traced to equal graphs, decomposed and split alike, and wrapped in
the same call. What has no faithful text (functions that people wrote, tensor subclasses, hooks and modes,
sizes that depend on data) is a reason not to have a key; such graphs are cached after they were traced.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.fx import GraphModule, Node

from braze._torch import aot_metadata, shape_envs, torch_functions, trace_state
from braze._torch.shape_envs import ShapeEnv
from braze._torch.shapes import is_symbolic
from braze._torch.trace_state import TensorFacts
from braze.config import Config

__all__ = ["DynamoKey", "Unkeyed", "describe"]


class Unkeyed(Exception):
    """There is no key; the message is the reason."""


@dataclass(frozen=True)
class DynamoKey:
    """``parts``: name and text of each part of the key, in an order that does not change. ``names``: what the
    trace's symbols are called in it; ``env`` is what the trace knows of them."""

    parts: tuple[tuple[str, str], ...]
    names: Mapping[str, str] = field(compare=False)
    env: ShapeEnv | None = field(compare=False)


def describe(gm: GraphModule, example_inputs: Sequence[Any], config: Config) -> DynamoKey | str:
    """The key of a graph, or why it has none. To be called where the backend is, before anything else
    changes the graph or the trace. The part that depends on versions and on the machine is not in it."""
    try:
        return _describe(gm, example_inputs, config)
    except Unkeyed as reason:
        return str(reason)
    except AttributeError as error:
        return f"this version of PyTorch is not understood: {error}"


def _describe(gm: GraphModule, example_inputs: Sequence[Any], config: Config) -> DynamoKey:
    for reason in trace_state.obstacles():
        raise Unkeyed(reason)
    if aot_metadata.is_split_by_ddp():
        raise Unkeyed("the graph is a part of one that DistributedDataParallel split")
    names = _Names()
    inputs = _inputs(gm, example_inputs, names)
    graph = _GraphText(names).of(gm)
    conditions = names.conditions()
    settings, shape_settings = trace_state.settings(), trace_state.shape_settings()
    if settings is None or shape_settings is None:
        raise Unkeyed("a setting of AOTAutograd or of symbolic shapes is an object")
    parts = (
        ("graph", graph),
        ("inputs", inputs),
        ("sizes", conditions),
        ("tracing.state", "\n".join(f"{name}={value}" for name, value in trace_state.state())),
        ("tracing.settings", f"{settings}\n{shape_settings}"),
        ("config", config.code_key()),
    )
    return DynamoKey(parts, names.known(), names.env)


# -- symbols ------------------------------------------------------------------------------------------------
_SYMBOL = re.compile(r"\b[a-z]+\d+\b")


class _Names:
    """The trace's symbols, numbered as they come up: what they are called in the trace depends on names in
    the user's code."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self.env = trace_state.traced_env()
        if self.env is not None:
            reason = trace_state.untraceable_symbols(self.env)
            if reason is not None:
                raise Unkeyed(reason)

    def number(self, value: Any) -> str:
        """A size, stride or integer input."""
        if not is_symbolic(value):
            return str(int(value))
        try:
            return self.text(str(shape_envs.raw_expression(value)))
        except ValueError as error:
            raise Unkeyed(str(error)) from error

    def text(self, expression: str) -> str:
        """A printed expression with the numbered names in it."""
        return _SYMBOL.sub(lambda found: self._names.setdefault(found[0], f"s{len(self._names)}"), expression)

    def conditions(self) -> str:
        """What the trace has assumed so far, and the range of each symbol: a trace of the same graph that
        had assumed something else may go on in another way."""
        if not self._names or self.env is None:
            return "static"
        lines = [self.text(str(guard.expr)) for guard in self.env.guards]
        own = shape_envs.symbols_by_name(self.env)
        for name, numbered in self.known().items():
            facts = shape_envs.facts_of(self.env, own[name])
            marks = f"{' positive' if facts.positive else ''}{' size' if facts.size_like else ''}"
            lines.append(f"{numbered} in [{facts.lower}, {facts.upper}]{marks}")
        return "\n".join(lines)

    def known(self) -> dict[str, str]:
        """The numbered names of those that are symbols of the trace."""
        own = {} if self.env is None else shape_envs.symbols_by_name(self.env)
        return {name: numbered for name, numbered in self._names.items() if name in own}


# -- inputs -------------------------------------------------------------------------------------------------
def _inputs(gm: GraphModule, example_inputs: Sequence[Any], names: _Names) -> str:
    lines, storages = [], dict[int, int]()
    described = list(trace_state.graph_inputs(gm, example_inputs))
    own = len(trace_state.own_tensors(gm))
    if not len(example_inputs) == len(described) - own == len(gm.graph.find_nodes(op="placeholder")):
        raise Unkeyed("the inputs are not those of the graph")
    for i, one in enumerate(described, -own):
        name = f"own tensor {i + own}" if i < 0 else f"v{i}"
        if one.reason is not None:
            raise Unkeyed(f"{name if i < 0 else f'input {i}'} {one.reason}")
        if one.tensor is None:
            lines.append(f"{name}: {names.number(one.number)}")
            continue
        static = "" if one.static is None else f" static={one.static}"
        lines.append(f"{name}: {_tensor(one.tensor, names, storages)}{static}")
    return "\n".join(lines)


def _tensor(tensor: TensorFacts, names: _Names, storages: dict[int, int]) -> str:
    if "conj" in tensor.flags or "neg" in tensor.flags:
        raise Unkeyed("an input is conjugated or negated lazily")
    sizes, strides = (", ".join(map(names.number, values)) for values in (tensor.sizes, tensor.strides))
    storage = storages.setdefault(tensor.storage, len(storages))
    base = "" if tensor.base is None else f" view of ({_tensor(tensor.base, names, storages)})"
    return (
        f"{tensor.kind} {tensor.dtype} [{sizes}] strides ({strides}) offset {names.number(tensor.offset)} "
        f"on {tensor.device} storage {storage} {' '.join(tensor.flags)}{base}"
    )


# -- the graph ----------------------------------------------------------------------------------------------
# Of a node's metadata these are for people, or follow from the rest.
_HARMLESS_META = frozenset(
    """stack_trace example_value grapharg source_fn_stack nn_module_stack fwd_source_fn_stack
    fwd_nn_module_stack tensor_dict creation_timestamp from_node unbacked_bindings seq_nr original_aten
    _numeric_debug_handle torch_fn val is_wrapped""".split()
)
_CONSTANTS: frozenset[type] = frozenset(
    {
        *(bool, int, float, complex, str, type(None), type(...)),
        *(torch.dtype, torch.device, torch.layout, torch.memory_format),
    }
)
_CHECKPOINT = "_checkpoint_context_fn"


class _GraphText:
    """Prints graphs, nested ones with more indentation. Values are numbered through all of them."""

    def __init__(self, names: _Names) -> None:
        self._names = names
        self._numbers: dict[Node, int] = {}
        self._own: dict[str, int] = {}

    def of(self, gm: GraphModule) -> str:
        """The text of a graph from Dynamo. Raises `Unkeyed`."""
        self._own = {name: i for i, name in enumerate(trace_state.own_tensors(gm))}
        return "\n".join(self._lines(gm, ""))

    def _inner(self, gm: GraphModule, indent: str) -> list[str]:
        if trace_state.own_tensors(gm):
            raise Unkeyed("a graph inside of it has parameters of its own")
        outer, self._own = self._own, {}
        lines = self._lines(gm, indent)
        self._own = outer
        return lines

    def _lines(self, gm: GraphModule, indent: str) -> list[str]:
        if _CHECKPOINT in gm.meta:
            raise Unkeyed("a function of the user's chooses what a checkpoint keeps")
        lines = []
        for node in gm.graph.nodes:
            number = self._numbers[node] = len(self._numbers)
            meta = {k: v for k, v in node.meta.items() if k not in _HARMLESS_META and v}
            marks = f" {self._argument(meta)}" if meta else ""
            value = node.meta.get("example_value")
            if is_symbolic(value):
                # says which symbol stands for which number that the graph reads
                marks += f" is {self._names.number(value)}"
            if node.op == "placeholder":
                lines.append(f"{indent}v{number} = input{marks}")
            elif node.op == "output":
                lines.append(f"{indent}return {self._argument(node.args[0])}{marks}")
            elif node.op == "get_attr" and str(node.target) in self._own:
                lines.append(f"{indent}v{number} = own tensor {self._own[str(node.target)]}{marks}")
            elif node.op == "get_attr":
                lines.append(f"{indent}v{number} = graph{marks}:")
                lines += self._inner(_subgraph(gm, str(node.target)), indent + "  ")
            else:
                lines.append(f"{indent}v{number} = {self._call(node)}{marks}")
        return lines

    def _call(self, node: Node) -> str:
        if node.op == "call_function":
            name = torch_functions.name_of(node.target)
            if name is None:
                raise Unkeyed(f"it calls {_shown(node.target)}, which is not PyTorch's")
        elif node.op == "call_method":
            name = f".{node.target}"
            if not torch_functions.is_own_method(str(node.target)):
                raise Unkeyed(f"it calls {node.target}, a method that is not PyTorch's")
        else:
            raise Unkeyed(f"it calls the module {node.target}")
        arguments = [self._argument(a) for a in node.args]
        arguments += [f"{key}={self._argument(value)}" for key, value in node.kwargs.items()]
        return f"{name}({', '.join(arguments)})"

    def _argument(self, value: Any) -> str:
        if isinstance(value, Node):
            return f"v{self._numbers[value]}"
        if type(value) in _CONSTANTS:  # exactly: a class of the user's could print itself as it likes
            return repr(value)
        container = _CONTAINERS.get(type(value))
        if container is not None:
            return container(value, self._argument)
        name = torch_functions.name_of(value) if callable(value) else None
        if name is None:
            raise Unkeyed(f"an argument is a {type(value).__name__}")
        return name


def _joined(values: Any, write: Callable[[Any], str]) -> str:
    return ", ".join([write(v) for v in values])


def _items(value: Any, write: Callable[[Any], str]) -> str:
    return "{" + ", ".join([f"{write(k)}: {write(v)}" for k, v in value.items()]) + "}"


def _slice(value: slice, write: Callable[[Any], str]) -> str:
    return f"slice({write(value.start)}, {write(value.stop)}, {write(value.step)})"


_CONTAINERS: Mapping[type, Callable[[Any, Callable[[Any], str]], str]] = {
    tuple: lambda value, write: f"({_joined(value, write)},)",
    torch.Size: lambda value, write: f"Size({_joined(value, write)})",
    list: lambda value, write: f"[{_joined(value, write)}]",
    dict: _items,
    torch.fx.immutable_collections.immutable_list: lambda value, write: f"[{_joined(value, write)}]",
    torch.fx.immutable_collections.immutable_dict: _items,
    slice: _slice,
    range: lambda value, write: repr(value),
}


def _subgraph(gm: GraphModule, target: str) -> GraphModule:
    found: Any = gm
    for name in target.split("."):
        found = getattr(found, name, None)
    if not isinstance(found, GraphModule):
        raise Unkeyed(f"the graph holds a {type(found).__name__}")
    return found


def _shown(target: Any) -> str:
    return str(getattr(target, "__qualname__", None) or target)
