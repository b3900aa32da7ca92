"""Indices that only loop variables decide, found out before the graph runs.

Resampling and padding compute an index from a position, often in floating point, and then load there. Where
the position runs over a known range the whole table of indices is known too: what it holds is checked once,
here, and where it follows a simple rule, a load at a regular place takes the place of a gather.

A file of its own: a rule about indices, whichever operator asks.
"""

from __future__ import annotations

import torch

from braze.ops.dag import Dag, Node, topological
from braze.ops.functions import where
from braze.ops.interpreter import interpret
from braze.ops.kernel import BufferArg, Kernel, Stage, Store
from braze.runtime.expr import ZERO, Expr, Symbol, as_expr

GREATEST_TABLE = 1 << 16
GREATEST_BODY = 64


def known_index(dag: Dag, index: Node, size: Expr, *, wrap: bool) -> Expr | None:
    """``index`` as an expression known to lie in ``[0, size - 1]``; ``None`` where that is not known, or
    not so.

    It has to depend on one loop variable of known extent at most, and on no memory.
    """
    bound = size.constant
    if bound is None or index.op == "index_expr" or not _is_pure(index):
        return None
    (variable,) = index.free or (None,)
    extent = as_expr(1) if variable is None else variable.size
    if extent.constant is None or not 0 < extent.constant <= GREATEST_TABLE:
        return None
    table = _evaluate(dag.to_dtype(index, torch.int64), variable, extent.constant)
    if wrap:
        table = torch.where(table < 0, table + bound, table)
    if bool((table < 0).any()) or bool((table >= bound).any()):
        return None
    rule = _rule(table, ZERO if variable is None else variable.expr)
    return dag.indirect(_wrapped(dag, index, bound, wrap), size) if rule is None else rule


def _is_pure(index: Node) -> bool:
    if len(index.free) > 1:
        return False
    body = topological([index])
    return len(body) <= GREATEST_BODY and all(
        n.op not in ("load", "reduction", "scan", "check_index", "check_nonzero") for n in body
    )


def _wrapped(dag: Dag, index: Node, bound: int, wrap: bool) -> Node:
    value = dag.to_dtype(index, torch.int64)
    return where(value < 0, value + bound, value) if wrap else value


def _evaluate(index: Node, variable: Symbol | None, extent: int) -> torch.Tensor:
    place = ZERO if variable is None else variable.expr
    stage = Stage(() if variable is None else (variable,), (), (Store("table", place, index),))
    table = torch.empty(extent, dtype=torch.int64)
    buffer = BufferArg("table", torch.int64, "out", as_expr(extent))
    interpret(Kernel("table", (), (stage,), (buffer,)), {"table": table})
    return table


def _rule(table: torch.Tensor, position: Expr) -> Expr | None:
    """``table`` as ``first + step * position`` or ``first + (position + shift) // run``, if it is one of
    these."""
    first = int(table[0])
    places = torch.arange(len(table))
    step = int(table[1]) - first if len(table) > 1 else 0
    if torch.equal(table, first + step * places):
        return position * step + first
    changes = (table[1:] != table[:-1]).nonzero().flatten() + 1
    head = int(changes[0])
    run = int(changes[1]) - head if len(changes) > 1 else max(head, len(table) - head)
    shift = run - head
    if shift >= 0 and torch.equal(table, first + (places + shift) // run):
        return (position + shift) // run + first
    return None
