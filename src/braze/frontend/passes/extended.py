"""Graph passes that people registered (`braze.graph_pass`), held to what the compiler counts on.

A file of its own: passes by others, among ours."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.fx import GraphModule, Node

from braze._torch.shapes import same_size
from braze._torch.tracing import fake_mode_of, value_of
from braze.config import Config
from braze.extensions.registry import passes

__all__ = ["passes_by_users"]


def passes_by_users() -> tuple[tuple[str, Callable[[GraphModule, Config], object]], ...]:
    """Name and function of each, in the order in which they run."""
    return tuple([(one.name, partial(_run, one.function)) for one in passes() if one.function])


def _run(function: Callable[[GraphModule], GraphModule | None], gm: GraphModule, config: Config) -> None:
    """Let ``function`` change ``gm``. Raises what it raises, and ``TypeError`` for a graph that could not
    stand in the other's place."""
    known = {node: (node.target, node.args, node.kwargs) for node in gm.graph.nodes}
    inputs, outputs = _inputs(gm), _outputs(gm)
    made = function(gm)
    if made is not None and made is not gm:
        if not isinstance(made, GraphModule):
            raise TypeError(f"it returned a {type(made).__name__}, and no GraphModule")
        _take(gm, made)
    gm.graph.lint()
    if _inputs(gm) != inputs:
        raise TypeError(f"it left the inputs {_inputs(gm)}, and they were {inputs}")
    _settle(gm, known)
    now = _outputs(gm)
    if len(now) != len(outputs) or not all(map(_alike, now, outputs)):
        raise TypeError(
            f"it left outputs of other types or sizes: {_shown(now)}, and they were {_shown(outputs)}"
        )
    gm.recompile()


def _take(gm: GraphModule, made: GraphModule) -> None:
    """Make ``gm`` what ``made`` is."""
    for node in made.graph.find_nodes(op="get_attr"):
        first = str(node.target).split(".")[0]
        setattr(gm, first, getattr(made, first))
    gm.graph = made.graph


def _settle(gm: GraphModule, known: dict[Node, Any]) -> None:
    """Give each node that is new, or computes something else than before, its fake value."""
    given = [node.meta.get("val") for node in gm.graph.find_nodes(op="placeholder")]
    fake_mode = fake_mode_of(given)
    changed: set[Node] = set()
    for node in gm.graph.nodes:
        if node.op not in ("call_function", "get_attr"):
            if node.op in ("call_method", "call_module"):
                raise TypeError(f"it left {node.format_node()}: a graph calls operators only")
            continue
        before = known.get(node)
        same = before is not None and all(
            a is b for a, b in zip(before, (node.target, node.args, node.kwargs), strict=True)
        )
        if same and changed.isdisjoint(node.all_input_nodes):
            continue
        if fake_mode is None:
            raise TypeError(
                "the graph has no tensors among its inputs, so that nothing is known of new nodes"
            )
        node.meta["val"] = value_of(gm, node, fake_mode)
        changed.add(node)


def _inputs(gm: GraphModule) -> list[str]:
    return [str(node.target) for node in gm.graph.find_nodes(op="placeholder")]


def _outputs(gm: GraphModule) -> list[Any]:
    (returned,) = gm.graph.output_node().args
    values = returned if isinstance(returned, (list, tuple)) else [returned]
    return [value.meta.get("val") if isinstance(value, Node) else value for value in values]


def _alike(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        sizes = a.ndim == b.ndim and all(map(same_size, a.shape, b.shape))
        return sizes and a.dtype is b.dtype and a.device == b.device
    return type(a) is type(b)


def _shown(values: list[Any]) -> str:
    tensors = [f"{v.dtype}{list(v.shape)}" if isinstance(v, torch.Tensor) else str(v) for v in values]
    return f"({', '.join(tensors)})"
