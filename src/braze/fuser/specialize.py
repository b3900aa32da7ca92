"""From an elementwise graph and a kind of arguments to a compilation: the graph over symbolic sizes of just
the rank that is needed, writing its results to tensors that it is given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.fx import Graph, GraphModule, Node

from braze._torch import shape_envs
from braze._torch.fakes import make_fake, new_fake_mode
from braze._torch.shape_envs import SymbolFacts
from braze.compile.fx_compile import CompileRequest
from braze.config import Config
from braze.frontend.aot import next_graph_id
from braze.fuser.arg_spec import ArgSpec, Operand
from braze.fuser.elementwise import ElementwiseGraph

__all__ = ["input_name", "number_name", "output_name", "request_for", "size_name", "stride_name"]

_EXAMPLE_SIZE = 64
_EXAMPLE_STRIDE = 4096


def size_name(dim: int) -> str:
    """The symbol of a loop's length."""
    return f"n{dim}"


def input_name(number: int) -> str:
    """The name of an input of the graph."""
    return f"in{number}"


def output_name(number: int) -> str:
    """The name of a tensor that a result is written to."""
    return f"out{number}"


def stride_name(operand: str, dim: int) -> str:
    """The symbol of a stride that is known at run time only."""
    return f"{operand}_stride{dim}"


def number_name(number: int) -> str:
    """The symbol of a number that is an input."""
    return f"number{number}"


def request_for(graph: ElementwiseGraph, spec: ArgSpec, config: Config) -> CompileRequest:
    """The compilation of ``graph`` for arguments of the kind ``spec``, in which nothing depends on sizes."""
    tensors = {input_name(k): o for k, o in enumerate(spec.inputs) if isinstance(o, Operand)}
    tensors |= {output_name(k): o for k, o in enumerate(spec.outputs)}
    env, symbols = shape_envs.new_shape_env(_symbols(spec, tensors))
    mode = new_fake_mode(env)

    def number(name: str, kind: type = int) -> Any:
        return shape_envs.symbolic(env, symbols[name], kind)

    def tensor(name: str, operand: Operand) -> torch.Tensor:
        sizes = [1 if c == "b" else number(size_name(d)) for d, c in enumerate(operand.pattern)]
        strides = [number(stride_name(name, d)) if c == "s" else 1 for d, c in enumerate(operand.pattern)]
        return make_fake(mode, operand.dtype, sizes, strides)

    examples: list[Any] = []
    for k, given in enumerate(spec.inputs):
        if isinstance(given, Operand):
            examples.append(tensor(input_name(k), given))
        else:
            examples.append(number(number_name(k), float if given == "float" else int))
    examples += [tensor(output_name(k), o) for k, o in enumerate(spec.outputs)]
    gm = _writing(graph)
    _describe(gm, examples, lambda dtype, sizes: make_fake(mode, dtype, sizes, _row_major(sizes)))
    return CompileRequest(
        gm=gm,
        shape_env=env,
        static_inputs=frozenset(),
        visible_outputs=0,
        config=config,
        kind="inference",
        graph_id=next_graph_id(),
    )


def _symbols(spec: ArgSpec, tensors: dict[str, Operand]) -> list[SymbolFacts]:
    facts = [SymbolFacts(size_name(d), 2, None, _EXAMPLE_SIZE + d, positive=True) for d in range(spec.rank)]
    for name, operand in tensors.items():
        facts += [
            SymbolFacts(stride_name(name, d), 2, None, _EXAMPLE_STRIDE >> d, positive=True)
            for d, c in enumerate(operand.pattern)
            if c == "s"
        ]
    for k, given in enumerate(spec.inputs):
        if given == "float":
            facts.append(SymbolFacts(number_name(k), hint=0.5, is_float=True))
        elif given == "int":
            facts.append(SymbolFacts(number_name(k), None, None, 3))
    return facts


def _describe(
    gm: GraphModule, examples: Sequence[Any], make: Callable[[torch.dtype, list[Any]], Any]
) -> None:
    """Give each node the value of a trace over the sizes of ``examples``. What a pointwise operator returns
    is known without running it: the common sizes of its operands, and the type that it had in the first
    trace. To run its shape function might tie the code to the sizes that stand here as examples."""
    inputs = iter(examples)
    for node in gm.graph.nodes:
        if node.op == "placeholder":
            node.meta["val"] = next(inputs)
        elif node.op == "call_function":
            dtype = node.meta.get("dtype")
            if node.target is torch.ops.aten.copy_.default:
                node.meta["val"] = node.args[0].meta["val"]
            elif dtype is not None:
                operands = [n.meta["val"] for n in node.all_input_nodes]
                shapes = [list(v.shape) for v in operands if isinstance(v, torch.Tensor)]
                node.meta["val"] = make(dtype, _common(shapes))
            else:  # numbers, of numbers
                node.meta["val"] = node.target(
                    *[a.meta["val"] if isinstance(a, Node) else a for a in node.args]
                )


def _common(shapes: Sequence[list[Any]]) -> list[Any]:
    """The common sizes of operands; those along one loop are 1 or the loop's own."""
    rank = max(map(len, shapes), default=0)
    sizes: list[Any] = [1] * rank
    for shape in shapes:
        for d, n in enumerate(shape, rank - len(shape)):
            if isinstance(n, torch.SymInt):
                sizes[d] = n
    return sizes


def _row_major(sizes: Sequence[Any]) -> list[Any]:
    strides: list[Any] = []
    running: Any = 1
    for n in reversed(sizes):
        strides.append(running)
        running = running * n
    return strides[::-1]


def _writing(graph: ElementwiseGraph) -> GraphModule:
    """The graph with its outputs as further inputs, which it writes to."""
    new = Graph()
    nodes: dict[Node, Node] = {}
    for k, node in enumerate(graph.graph.find_nodes(op="placeholder")):
        nodes[node] = new.placeholder(input_name(k))
    targets = [new.placeholder(output_name(k)) for k in range(len(graph.outputs))]
    made: dict[str, Node] = {}
    for node in graph.graph.nodes:
        if node.op == "call_function":
            nodes[node] = made[node.name] = new.node_copy(node, nodes.__getitem__)
    for target, name in zip(targets, graph.outputs, strict=True):
        new.call_function(torch.ops.aten.copy_.default, (target, made[name]))
    new.output(())
    return GraphModule(torch.nn.Module(), new)
