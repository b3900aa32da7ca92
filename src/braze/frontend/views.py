"""How the outputs of a function that are views lie in memory, seen from what they are views of.

What a compiled graph returns for such an output has the right numbers, but it may be a copy, or a view of the
new value of an input that is written to: where it begins, and with which strides, says nothing of the view
that the caller has to get. The traces tell that. Dynamo ran the function on fake tensors as eager would,
which shows how views lie in inputs; in AOTAutograd's graph views of results are views of the very base that
the graph returns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sympy
import torch
from torch.fx import GraphModule, Node

from braze._torch.aot_metadata import CallFacts, call_facts
from braze._torch.native import storage_id
from braze._torch.shape_envs import raw_expression
from braze._torch.shapes import hint, is_symbolic
from braze.artifact.call_spec import Place
from braze.artifact.output_code import BoxedCall
from braze.errors import ExpressionError, Refused
from braze.frontend.passes.effects import view_base
from braze.runtime.spec import Layout, TensorSpec
from braze.symbolic.from_sympy import SymbolTable, expr_from_sympy

__all__ = [
    "DynamoViews",
    "ViewOfInput",
    "Views",
    "outputs_in_inputs",
    "places",
    "views_made_inside",
    "with_outputs_in_inputs",
    "with_views_of_inputs",
]


class Views:
    """What a trace of the function as eager runs it knows of its inputs and outputs: fake tensors that share
    memory where eager's do."""

    def __init__(self, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
        self._inputs = list(inputs)
        self._outputs = list(outputs)

    def pair(self, output: int, outputs: int, base: int) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Output number ``output`` of ``outputs``, and the input ``base`` that it is a view of; None where
        they are not to be seen as that."""
        if len(self._outputs) != outputs:
            return None
        return _related(self._outputs[output], self._inputs[base])


class DynamoViews(Views):
    """What Dynamo's trace knows of the inputs and outputs of its graph. To be made before AOTAutograd begins.
    ``own``: how many inputs of AOTAutograd's come before the graph's placeholders."""

    def __init__(self, gm: GraphModule, own: int) -> None:
        inputs = [_example(node) for node in gm.graph.find_nodes(op="placeholder")]
        returned = gm.graph.output_node().args[0]
        outputs = returned if isinstance(returned, (tuple, list)) else [returned]
        super().__init__([None] * own + inputs, [_example(o) if isinstance(o, Node) else o for o in outputs])


def places(
    facts: CallFacts, inputs: Sequence[Any], returned: Sequence[Any], views: Views
) -> Mapping[int, Place]:
    """For each output that is a view, by its number, its place. Raises `Refused` where one cannot be told.

    ``inputs`` and ``returned`` are the fake values of the compiled forward's inputs and of all that it
    returns."""
    first, count = sum(i.copied_back for i in facts.inputs), len(facts.outputs)
    found: dict[int, Place] = {}
    for i, output in enumerate(facts.outputs):
        if output.kind not in ("alias", "result_alias", "output_alias") or output.base is None:
            continue
        like = returned[first + i]
        if output.kind == "alias":
            base = inputs[output.base]
            pair = views.pair(i, count, output.base)
        else:
            base = returned[first + output.base + (count if output.kind == "result_alias" else 0)]
            pair = _related(like, base)
        if not isinstance(like, torch.Tensor) or not isinstance(base, torch.Tensor):
            raise Refused(f"output {i} is a view of something that is not a tensor")
        if like.dtype != base.dtype:
            raise Refused(f"output {i} is a view of {base.dtype} as {like.dtype}")
        if like.is_conj() or like.is_neg():
            raise Refused(f"output {i} is conjugated or negated lazily")
        place = None if pair is None else _place(*pair, like)
        if place is None:
            raise Refused(f"it cannot be told where output {i}, a view, lies")
        found[i] = place
    return found


@dataclass(frozen=True)
class ViewOfInput:
    """Result number ``result`` of a compiled graph, a view of its input number ``base``, the offset counted
    from the base's first element. ``sizes_at``: the inputs that are the symbols."""

    result: int
    base: int
    spec: Layout
    sizes_at: Mapping[str, int]

    def of(self, inputs: Sequence[Any], base: torch.Tensor) -> torch.Tensor:
        """The view for one call."""
        env = {name: int(inputs[at]) for name, at in self.sizes_at.items()}
        sizes, strides, offset = self.spec.at(env)
        return base.as_strided(sizes, strides, base.storage_offset() + offset)


def outputs_in_inputs(inputs: Sequence[Any], views: Views) -> list[ViewOfInput]:
    """The outputs of a graph that AOTAutograd makes again out of its inputs, where Dynamo's trace tells how
    they lie there. AOTAutograd takes that from what the graph returns, which may be a view of a new value
    that lies otherwise."""
    try:
        facts = call_facts()
    except Refused:
        return []
    if len(facts.inputs) != len(inputs):
        return []
    first, count = sum(i.copied_back for i in facts.inputs), len(facts.outputs)
    found = []
    for i, output in enumerate(facts.outputs):
        pair = views.pair(i, count, output.base or 0) if output.kind == "alias" else None
        if pair is None or pair[0].dtype != pair[1].dtype or pair[0].is_conj() or pair[0].is_neg():
            continue
        one = _in_input(first + i, output.base or 0, *pair, inputs)
        if one is not None:
            found.append(one)
    return found


def _in_input(
    result: int, base_at: int, view: torch.Tensor, base: torch.Tensor, inputs: Sequence[Any]
) -> ViewOfInput | None:
    given = {str(_number(v)): k for k, v in enumerate(inputs) if isinstance(v, torch.SymInt)}
    table = SymbolTable(lambda name: (-(1 << 62), None))
    offset = sympy.expand(_number(view.storage_offset()) - _number(base.storage_offset()))
    try:
        sizes, strides, (begin,) = (
            tuple(expr_from_sympy(_number(n), table) for n in numbers)
            for numbers in (view.shape, view.stride(), (offset,))
        )
    except ExpressionError:
        return None
    if not given.keys() >= table.keys():
        return None
    spec = TensorSpec(view.dtype, sizes, strides, begin)
    return ViewOfInput(result, base_at, spec, {name: given[name] for name in table})


def with_outputs_in_inputs(run: BoxedCall, views: Sequence[ViewOfInput]) -> BoxedCall:
    """`run`, a compiled graph, with those results lying where eager's do."""

    def call(inputs: list[Any]) -> Sequence[Any]:
        given = list(inputs)
        results = list(run(inputs))
        for view in views:
            results[view.result] = view.of(given, given[view.base].detach())
        return results

    return call


def views_made_inside(part: GraphModule) -> list[tuple[int, int]]:
    """Outputs of a forward graph that are views of its inputs and that AOTAutograd does not make again from
    the caller's tensors: results of operators that return several views. Pairs of output and input, by
    number."""
    try:
        facts = call_facts()
    except Refused:
        return []
    first = sum(i.copied_back for i in facts.inputs)
    returned: Any = part.graph.output_node().args[0]
    inputs = {node: i for i, node in enumerate(part.graph.find_nodes(op="placeholder"))}
    pairs = []
    for i, output in enumerate(facts.outputs):
        node = returned[first + i]
        base = view_base(node) if output.kind == "fresh" and isinstance(node, Node) else None
        if base is not None and base is not node and base in inputs:
            pairs.append((first + i, inputs[base]))
    return pairs


def with_views_of_inputs(run: BoxedCall, pairs: Sequence[tuple[int, int]]) -> BoxedCall:
    """`run`, a compiled graph, with the outputs of `views_made_inside` known to autograd as views: writing to
    one is then seen by whoever saved the input, or is an error, as in eager PyTorch."""

    def call(inputs: list[Any]) -> Sequence[Any]:
        bases = [inputs[at] for _, at in pairs]
        results = list(run(inputs))
        for (i, _), base in zip(pairs, bases, strict=True):
            like = results[i]
            if storage_id(like) == storage_id(base):
                results[i] = base.as_strided(like.size(), like.stride(), like.storage_offset())
        return results

    return call


def _example(node: Node) -> Any:
    return node.meta.get("example_value")


def _related(view: Any, base: Any) -> tuple[torch.Tensor, torch.Tensor] | None:
    if not isinstance(view, torch.Tensor) or not isinstance(base, torch.Tensor):
        return None
    return (view, base) if storage_id(view) == storage_id(base) else None


def _place(view: torch.Tensor, base: torch.Tensor, like: torch.Tensor) -> Place | None:
    """Where `view` lies in `base`; a compiled graph returns something with the sizes of `like` for it."""
    offset = sympy.expand(_number(view.storage_offset()) - _number(base.storage_offset()))
    if not offset.is_Integer:
        return None
    sizes, strides = _numbers(view.shape), _numbers(view.stride())
    if all(type(n) is int for n in (*sizes, *strides)):
        return Place(int(offset), tuple(sizes), tuple(strides))
    # the sizes of a call are those of what the graph returns; its strides are those of the trace if these
    # leave neither gaps nor overlaps, which the compiler can prove and keeps to
    if sizes == _numbers(like.shape) and strides == _numbers(like.stride()) and _is_dense(view):
        return Place(int(offset))
    return None


def _number(value: Any) -> Any:
    number = raw_expression(value) if is_symbolic(value) else value
    return sympy.Integer(number) if isinstance(number, int) else number


def _numbers(values: Sequence[Any]) -> list[Any]:
    found = [sympy.expand(_number(v)) for v in values]
    return [int(n) if n.is_Integer else n for n in found]


def _is_dense(tensor: torch.Tensor) -> bool:
    """Whether the elements lie without gaps and overlaps, in some order of the dimensions, for all sizes."""
    steps = [hint(n) for n in tensor.stride()]
    if None in steps:
        return False
    running: Any = sympy.Integer(1)
    sizes, strides = _numbers(tensor.shape), _numbers(tensor.stride())
    for dim in sorted(range(len(sizes)), key=lambda d: (steps[d], hint(tensor.shape[d]) != 1)):
        if sizes[dim] == 1:
            continue
        if sympy.expand(strides[dim] - running) != 0:
            return False
        running = running * sizes[dim]
    return True
