"""Tokens: values that AOTAutograd passes from one operator with an effect to the next, so that a functional
graph keeps their order.

As inputs and results of a graph they shift every number that AOTAutograd's notes tell of the others: it
counts what is kept for the backward without them. Braze keeps the order of nodes with effects anyway, so no
token leaves a graph."""

from __future__ import annotations

import torch
from torch.fx import GraphModule

__all__ = ["TOKENS_INSIDE", "drop_tokens"]

TOKENS_INSIDE = "unlift_effect_tokens"
"""A setting of AOTAutograd's: tokens are made and used up inside of the graphs, instead of passed through."""


def drop_tokens(gm: GraphModule) -> None:
    """Take the tokens that `TOKENS_INSIDE` makes out of `gm` and the graphs that it holds, in place: a call
    that keeps an order is given None, and what it returns for the next one has no reader."""
    make, sink = torch.ops.prims._make_token.default, torch.ops.prims._sink_tokens.default
    for part in gm.modules():
        if not isinstance(part, GraphModule):
            continue
        graph = part.graph
        ends = graph.find_nodes(op="call_function", target=sink)
        starts = graph.find_nodes(op="call_function", target=make)
        for node in ends:
            graph.erase_node(node)
        for node in starts:
            for user in list(node.users):
                user.args = tuple([None if arg is node else arg for arg in user.args])
            graph.erase_node(node)
        if starts or ends:
            part.recompile()
