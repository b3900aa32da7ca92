"""A kernel with all its floating-point arithmetic in float64: what a difference is judged by.

A file of its own: how kernels are changed is the business of this room, not of its one caller's above.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from braze.ops.dag import Dag, IndirectSymbol, Node
from braze.ops.dtypes import is_float
from braze.ops.kernel import Kernel, Stage, Store
from braze.runtime.expr import Expr, ExprLike, Symbol

__all__ = ["widened"]

_RANDOM = frozenset({"rand", "randn"})


def widened(kernel: Kernel) -> Kernel | None:
    """``kernel`` in float64, its buffers of floating-point types too; None for one that looks at bits, or
    draws numbers, which are what they are in float32."""
    dag = Dag()
    done: dict[int, Node] = {}
    stages = []
    for stage in kernel.stages:
        for node in stage.nodes:
            if node.op in _RANDOM or (node.op == "bitcast" and _of_bits(node)):
                return None
            if node.id not in done:
                done[node.id] = _wide(dag, node, done)
        stores = tuple(_store(dag, store, done) for store in stage.stores)
        stages.append(Stage(stage.vars, stage.rvars, stores))
    buffers = tuple(replace(b, dtype=_type(b.dtype)) for b in kernel.buffers)
    return replace(kernel, stages=tuple(stages), buffers=buffers)


def _of_bits(node: Node) -> bool:
    """Whether a value is looked at as bits, or bits as a value, which is another one in another type."""
    return is_float(node.dtype) != is_float(node.args[0].dtype)


def _type(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if is_float(dtype) else dtype


def _wide(dag: Dag, node: Node, done: dict[int, Node]) -> Node:
    args = tuple(done[a.id] for a in node.args)
    attrs = tuple(_index(dag, a, done) if isinstance(a, Expr) else a for a in node.attrs)
    dtype = _type(node.dtype)
    if node.op == "to_dtype":
        return dag.to_dtype(args[0], dtype)
    return dag.make(node.op, args, attrs, dtype)


def _index(dag: Dag, e: Expr, done: dict[int, Node]) -> Expr:
    mapping: dict[Symbol, ExprLike] = {
        s: dag.indirect(done[s.node.id], s.size) for s in e.free_symbols if isinstance(s, IndirectSymbol)
    }
    return e.substitute(mapping)


def _store(dag: Dag, store: Store, done: dict[int, Node]) -> Store:
    mask = None if store.mask is None else done[store.mask.id]
    return replace(store, index=_index(dag, store.index, done), value=done[store.value.id], mask=mask)
