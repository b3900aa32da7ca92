"""Fusion nodes in FX: the fusable subgraphs of a graph, each as one module that runs fused."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

import torch
from torch.fx import Graph, GraphModule, Node
from torch.fx.passes.infra.partitioner import CapabilityBasedPartitioner
from torch.fx.passes.operator_support import OperatorSupportBase

from braze._torch.schema import is_operator, operator_info
from braze._torch.surroundings import acts_on_elements
from braze.frontend.decompositions import takes_apart
from braze.fuser.canonical import canonical
from braze.fuser.interface import register_fusion, run_fusion
from braze.lowering import families as families  # fills the registry of lowerings
from braze.lowering.registry import EXTERNS, lowering_of

__all__ = ["FusionNode", "fuse_graph"]

_ROWWISE = frozenset(
    """
    softmax log_softmax layer_norm rms_norm sum mean amax amin var std logsumexp norm normalize cumsum
    """.split()
)
"""Functions that reduce or normalise, by name."""
_PRODUCTS = frozenset("mv addmv dot vdot _addmm_activation _euclidean_dist".split())
"""Matrix products, by name, that have a decomposition."""
_OF_SHAPES = frozenset("size shape dim ndim numel stride dtype device getattr getitem len".split())
_WRITING = frozenset(
    "setitem iadd isub imul itruediv ifloordiv imod ipow iand ior ixor ilshift irshift imatmul".split()
)
_VIEWS = frozenset({operator.getitem, getattr})


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
    if node.kwargs.get("out") is not None or node.kwargs.get("inplace"):
        return True
    if is_operator(node.target):
        return operator_info(node.target).mutates
    if node.op not in ("call_function", "call_method"):
        return False
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    in_place = name.endswith("_") and not name.endswith("__")
    return in_place or name in _WRITING or name.strip("_") in _WRITING


class _Fusable(OperatorSupportBase):
    """Which nodes go into a fusion."""

    def is_node_supported(self, submodules: Mapping[str, torch.nn.Module], node: Node) -> bool:
        if node.op not in ("call_function", "call_method") or not _may_be_tensor(node):
            return False
        target = node.target
        if is_operator(target):
            info = operator_info(target)
            if info.mutates or info.is_view or info.random or info.data_dependent:
                return False
            if target in EXTERNS or str(target).split(".")[1] in _PRODUCTS:
                return False
            return lowering_of(target) is not None or takes_apart(target)
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
