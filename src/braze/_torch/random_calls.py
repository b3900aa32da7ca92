"""Random calls whose numbers nobody reads. Eager PyTorch draws them all the same, and later calls get later
numbers; AOTAutograd drops them, and they are kept here for whoever asks for eager's stream."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch._ops import HigherOrderOperator
from torch.fx import Graph, GraphModule, Node
from torch.fx.node import _side_effectful_functions

from braze._torch.schema import Effect, effects_of
from braze._torch.tracing import fake_mode_of

__all__ = ["describe_replays", "draws", "draws_kept", "draws_may_go", "restore_draws", "unused_draws"]

_NAMES = """
    rand rand_like randn randn_like randint randint_like randperm bernoulli native_dropout _fused_dropout
    normal normal_functional uniform exponential geometric log_normal cauchy random multinomial poisson
    binomial rrelu_with_noise rrelu_with_noise_functional _sample_dirichlet _standard_gamma
""".split()


_REPLAYS = frozenset({"run_and_save_rng_state", "run_with_rng_state"})
"""What AOTAutograd calls a random operator by that a recomputed region has twice."""


def draws(target: Any) -> bool:
    """Whether a node that calls ``target`` draws from a generator of torch's."""
    if isinstance(target, HigherOrderOperator):
        return target.__name__ in _REPLAYS
    return Effect.DRAW in effects_of(target)


def describe_replays(gm: GraphModule) -> None:
    """Give the calls of random operators that a recomputed region has twice their values, which AOTAutograd
    leaves out."""
    for node in gm.graph.nodes:
        if not isinstance(node.target, HigherOrderOperator) or node.target.__name__ not in _REPLAYS:
            continue
        if "val" in node.meta:
            continue
        saves = node.target.__name__ == "run_and_save_rng_state"
        operator, *args = node.args if saves else node.args[1:]
        given = torch.fx.node.map_arg((tuple(args), node.kwargs), lambda one: one.meta["val"])
        mode = fake_mode_of([one.meta.get("val") for one in gm.graph.find_nodes(op="placeholder")])
        with nullcontext() if mode is None else mode:
            value = operator(*given[0], **given[1])
        if saves:
            states = [user.meta["val"] for user in node.users if user.args[1] == 0]
            value = (states[0] if states else None, value)
        node.meta["val"] = value


def _overloads() -> set[Any]:
    packets = [getattr(torch.ops.aten, name) for name in _NAMES if hasattr(torch.ops.aten, name)]
    found = [getattr(packet, overload) for packet in packets for overload in packet.overloads()]
    return {one for one in found if torch.Tag.nondeterministic_seeded in one.tags}


@contextmanager
def draws_kept() -> Iterator[None]:
    """Inside this block no graph loses a random call because it is not used."""
    added = _overloads() - _side_effectful_functions
    _side_effectful_functions.update(added)
    try:
        yield
    finally:
        _side_effectful_functions.difference_update(added)


@contextmanager
def draws_may_go() -> Iterator[None]:
    """Inside this block, within `draws_kept`, they may get lost after all: PyTorch's partitioner would save
    for the backward what has side effects."""
    removed = _overloads() & _side_effectful_functions
    _side_effectful_functions.difference_update(removed)
    try:
        yield
    finally:
        _side_effectful_functions.update(removed)


def unused_draws(joint: GraphModule) -> Graph | None:
    """A copy of a joint graph whose forward part has random calls that are not used; None where it has
    none."""
    if not any(map(_is_unused_draw, joint.graph.nodes)):
        return None
    copy = Graph()
    copy.output(copy.graph_copy(joint.graph, {}))
    return copy


def restore_draws(joint: Graph, forward: GraphModule) -> None:
    """Put the unused random calls of a joint graph's forward part into the forward graph that was cut from
    it, where they were; in place. Nodes have the same names in both."""
    known: dict[str, Node] = {node.name: node for node in forward.graph.nodes}
    missing: set[Node] = set()
    left = [node for node in joint.nodes if _is_unused_draw(node)]
    while left:
        node = left.pop()
        if node.name not in known and node not in missing:
            missing.add(node)
            left += node.all_input_nodes
    before = forward.graph.output_node()
    places: list[tuple[Node, Node]] = []
    for node in reversed(list(joint.nodes)):
        if node in missing:
            places.append((node, before))
        elif node.op not in ("output", "placeholder") and node.name in known:
            before = known[node.name]
    for node, place in reversed(places):
        with forward.graph.inserting_before(place):
            known[node.name] = forward.graph.node_copy(node, lambda one: known[one.name])


def _is_unused_draw(node: Node) -> bool:
    return (
        node.op == "call_function"
        and torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())
        and not node.users
        and node.meta.get("partitioner_tag") != "is_backward"
    )
