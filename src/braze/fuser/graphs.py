"""Graphs to be fused: registered by key, run on whatever arguments come, and found in graphs of other things.

The functional core below `braze.fuse`, for people who have a graph and not a function. A key stands for the
graph's canonical text, so equal graphs share one, and their kernels, in every process.
"""

from __future__ import annotations

import operator
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.fx import Graph, GraphModule, Node
from torch.fx.passes.infra.partitioner import CapabilityBasedPartitioner
from torch.fx.passes.operator_support import OperatorSupportBase

from braze._torch.schema import Effect, effects_of, is_operator, operator_info
from braze._torch.surroundings import acts_on_elements
from braze.errors import FallbackError, Refused
from braze.frontend.decompositions import takes_apart
from braze.frontend.writes import written_by
from braze.fuser.canonical import canonical, key_of
from braze.fuser.fallback import stats
from braze.fuser.function import FusedFunction
from braze.fuser.kernel import KernelSpec, kernel_specs
from braze.lowering import families as families  # fills the registry of lowerings
from braze.lowering.registry import always_whole, has_lowering

__all__ = [
    "FusionNode",
    "compiled_kernel_count",
    "debug_kernel_source",
    "debug_launch",
    "fuse_graph",
    "kernels",
    "register_fusion",
    "run_fusion",
]

_ROWWISE = frozenset(
    """
    softmax log_softmax layer_norm rms_norm sum mean amax amin var std logsumexp norm normalize cumsum
    """.split()
)
"""Functions that reduce or normalise, by name."""
_PRODUCTS = frozenset("mv addmv dot vdot _addmm_activation _euclidean_dist".split())
"""Matrix products, by name, that have a decomposition."""
_OF_SHAPES = frozenset("size shape dim ndim numel stride dtype device getattr getitem len".split())
_VIEWS = frozenset({operator.getitem, getattr})

_fusions: dict[str, FusedFunction] = {}
_registering = threading.Lock()


def register_fusion(graph: Graph | GraphModule) -> str:
    """Make a graph known, to be run by `run_fusion`; the key it has. Equal graphs, whatever their nodes are
    called, have the same key; it is the same in every process.

    Args:
        graph: of functions and operators of tensors and numbers (torch's, or ATen's). It is copied.

    Raises:
        UnserializableError: the graph uses attributes or submodules, which have to become inputs first, or
            calls a function without a name.
    """
    source = graph.graph if isinstance(graph, GraphModule) else graph
    key = key_of(canonical(source))
    with _registering:
        if key not in _fusions:
            copy = Graph()
            copy.output(copy.graph_copy(source, {}))
            module = GraphModule(torch.nn.Module(), copy)
            _fusions[key] = FusedFunction(module.forward, name=key)
    return key


def run_fusion(key: str, args: Sequence[Any]) -> Any:
    """What the graph of that key returns for these tensors and numbers: by a fused kernel, or by eager
    operators where it cannot be fused, with a warning that says why.

    Raises:
        KeyError: no graph was registered by that key.
        FallbackError: in strict mode, where it would not be fused.
    """
    return _fusion(key).wrapper(*args)


def _fusion(key: str) -> FusedFunction:
    if key not in _fusions:
        raise KeyError(f"no fusion is registered as {key!r}")
    return _fusions[key]


def _resolved(target: str | Graph | GraphModule | Callable[..., Any]) -> FusedFunction:
    """The fused function that a key, a graph, or a function made by `fuse` stands for."""
    if isinstance(target, str):
        return _fusion(target)
    if isinstance(target, (Graph, GraphModule)):
        return _fusion(register_fusion(target))
    fused = getattr(target, "fused", None)
    if not isinstance(fused, FusedFunction):
        raise TypeError(f"{target!r} is neither a key nor a graph, nor a function made by braze.fuse")
    return fused


def _looked(target: Any, args: Sequence[Any], look: str) -> Any:
    """What a method of the target's `Specializer` says of a call with these arguments. Raises
    ``FallbackError``."""
    function = _resolved(target)
    leaves: list[Any] = []
    try:
        structure = function.described(function.parameters.bound(args), leaves)
        return getattr(function.specializer, look)(structure, leaves)
    except Refused as error:
        raise FallbackError(f"{function.name} is not fused for these arguments: {error.reason}") from None


def debug_kernel_source(target: str | Graph | GraphModule | Callable[..., Any], args: Sequence[Any]) -> str:
    """The generated code, LLVM IR, that a call with these arguments would run; it is compiled if need be.

    Args:
        target: a key of `register_fusion`, a graph, or a function made by `braze.fuse`.
        args: the arguments of the call.

    Raises:
        FallbackError: such a call is not fused.
    """
    return str(_looked(target, args, "source"))


def debug_launch(target: str | Graph | GraphModule | Callable[..., Any], args: Sequence[Any]) -> Any:
    """The results for these arguments, by compiled kernels and by nothing else.

    Raises:
        FallbackError: it is not fused for them.
    """
    return _looked(target, args, "launched")


def compiled_kernel_count() -> int:
    """How many kernels were compiled, or found in the cache, in this process."""
    so_far = stats()
    return so_far.compiled + so_far.loaded


def kernels() -> tuple[KernelSpec, ...]:
    """Every graph of this process that acts on each element by itself; each prints with its kernels."""
    return tuple(kernel_specs.values())


# -- graphs of other things ---------------------------------------------------------------------------------
class FusionNode(torch.nn.Module):
    """A subgraph that runs as a fused function: ``graph``, with its ``key`` of `register_fusion`."""

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.graph = graph
        self.key = register_fusion(graph)

    def forward(self, *args: Any) -> Any:
        return run_fusion(self.key, args)

    def extra_repr(self) -> str:
        """The subgraph, for whoever prints the module."""
        return f"{self.key}\n" + canonical(self.graph)


def fuse_graph(gm: GraphModule) -> GraphModule:
    """Find the subgraphs of two nodes and more that can be fused, and put a `FusionNode` in place of each.

    Nodes are taken by what they call, and by their metadata where they have any (``val`` or
    ``example_value``): elementwise functions and operators, reductions and normalisations, and whatever else
    Braze has code for; no matrix product, convolution, or view. A graph in which something is written in
    place is left as it is: what is fused runs at one moment, before or after that.

    Args:
        gm: a graph of torch's functions or ATen's operators. It is not changed.

    Returns:
        A module that computes the same; parameters and submodules are shared with `gm`.
    """
    graph = Graph()
    values: dict[Node, Node] = {}
    output = graph.graph_copy(gm.graph, values)
    new_output = graph.output(output)
    new_output.meta = dict(gm.graph.output_node().meta)
    result = GraphModule(gm, graph)
    if any(map(_writes, graph.nodes)):
        return result
    partitioner = CapabilityBasedPartitioner(result, _Fusable(), allows_single_node_partition=False)
    partitions = partitioner.propose_partitions()
    fused = partitioner.fuse_partitions(partitions, prefix="fusion_")
    for node in fused.graph.find_nodes(op="call_module"):
        inner = getattr(fused, node.target, None) if node.target.startswith("fusion_") else None
        if isinstance(inner, GraphModule):
            setattr(fused, node.target, FusionNode(inner.graph))
    fused.recompile()
    return fused


def _writes(node: Node) -> bool:
    """Whether a node writes to an argument."""
    if is_operator(node.target):
        return Effect.WRITE in effects_of(node.target)
    return bool(written_by(node))


class _Fusable(OperatorSupportBase):
    """Which nodes go into a fusion."""

    def is_node_supported(self, submodules: Mapping[str, torch.nn.Module], node: Node) -> bool:
        if node.op not in ("call_function", "call_method") or not _may_be_tensor(node):
            return False
        target = node.target
        if is_operator(target):
            if operator_info(target).is_view or effects_of(target):
                return False
            if always_whole(target) or str(target).split(".")[1] in _PRODUCTS:
                return False
            return has_lowering(target) or takes_apart(target)
        if target in _VIEWS:
            return False
        name = target if isinstance(target, str) else getattr(target, "__name__", "")
        return name in _ROWWISE or acts_on_elements(target, name)


def _may_be_tensor(node: Node) -> bool:
    """Whether a node's value may be a tensor, as far as can be told."""
    value = node.meta.get("val", node.meta.get("example_value"))
    if value is not None:
        return isinstance(value, torch.Tensor)
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    if name in _OF_SHAPES or name in ("is_floating_point", "is_complex", "result_type", "promote_types"):
        return False
    tensors = [n for n in node.all_input_nodes if n.op in ("placeholder", "get_attr", "call_module")]
    return bool(tensors) or any(map(_may_be_tensor, node.all_input_nodes))
