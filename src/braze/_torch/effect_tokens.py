"""Tokens: values that AOTAutograd passes from one operator with an effect to the next, so that a functional
graph keeps their order.

As inputs and results of a graph they shift every number that AOTAutograd's notes tell of the others: it
counts what is kept for the backward without them. Braze keeps the order of nodes with effects anyway, so no
token leaves a graph."""

from __future__ import annotations

import operator

import torch
from torch.fx import GraphModule

from braze._torch import schema

__all__ = ["TOKENS_INSIDE", "call_plainly", "drop_tokens"]

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


def call_plainly(gm: GraphModule) -> None:
    """Call operators that have effects and no results, such as checks, without what keeps their order, in
    place: nodes without results are neither dropped nor moved."""
    for node in list(gm.graph.nodes):
        if not schema.is_ordered_call(node.target) or not schema.is_operator(node.args[1]):
            continue
        read = [user for user in node.users if user.target is not operator.getitem or user.args[1] != 0]
        if read or node.args[1]._schema.returns:
            continue
        with gm.graph.inserting_before(node):
            plain = gm.graph.call_function(node.args[1], node.args[2:], node.kwargs)
        plain.meta = {key: value for key, value in node.meta.items() if key != "val"}
        for token in list(node.users):
            for later in list(token.users):
                later.args = tuple([None if arg is token else arg for arg in later.args])
            gm.graph.erase_node(token)
        gm.graph.erase_node(node)
