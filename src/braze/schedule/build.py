"""From a group of operations to a kernel: results passed on without memory, loops ordered, merged and
named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from braze.ir.buffers import Origin
from braze.ir.graph import Graph
from braze.ops.dag import Dag, IndirectSymbol, Node, topological
from braze.ops.dtypes import stored_dtype
from braze.ops.functions import where
from braze.ops.kernel import BufferArg, Kernel, Role, Stage, Store, referenced
from braze.runtime.expr import Expr, Symbol, product
from braze.schedule.drafts import StageDraft
from braze.schedule.groups import Group
from braze.schedule.indexing import linear
from braze.schedule.limits import Limits
from braze.schedule.loops import expressions, merge_loops, order_loops, scan_variables


def build_kernel(graph: Graph, group: Group, name: str, private: set[str], limits: Limits) -> Kernel:
    """The kernel of ``group``. ``private``: storages that nobody outside the group reads; ``limits``: those
    of the backend."""
    dag = graph.dag
    drafts = [forwarded(dag, stage, private, group.stages[k + 1 :]) for k, stage in enumerate(group.stages)]
    drafts = [d for d in drafts if d.stores]
    outer, drafts = _shaped(dag, group.outer, drafts)
    stages = tuple(Stage(d.vars, d.rvars, tuple(d.stores)) for d in drafts)
    buffers = _buffers(graph, stages, private, set(outer), limits)
    loop_symbols = set(outer) | {v for s in stages for v in (*s.vars, *s.rvars)}
    origins = kernel_origins(group)
    return Kernel(
        name,
        outer,
        stages,
        buffers,
        _sizes(stages, buffers, loop_symbols),
        tuple(dict.fromkeys(o.operator for o in origins)),
        tuple(dict.fromkeys(o.source for o in origins if o.source)),
        tuple(dict.fromkeys(o.node for o in origins)),
        group.device,
    )


def kernel_origins(group: Group) -> list[Origin]:
    """The graph nodes that a group stands for, in the order in which their values were first made."""
    found: dict[Origin, None] = {}
    for stage in group.stages:
        for node in sorted(stage.nodes, key=lambda n: n.id):
            if isinstance(node.origin, Origin) and node.op not in ("load", "constant", "index_expr"):
                found[node.origin] = None
    for member in group.members:
        for origin in member.op.origins:
            found[origin] = None
    return list(found)


def forwarded(dag: Dag, stage: StageDraft, private: set[str], later: Sequence[StageDraft]) -> StageDraft:
    """The stage with loads of what it has just stored replaced by the values, rounded as they are stored;
    stores that nobody else reads are dropped."""
    known: dict[tuple[str, Expr], Node] = {}
    made: dict[tuple[str, Expr], Node] = {}  # known, too, once the element is complete
    stores: list[Store] = []
    written_later = {n.buffer for d in later for n in d.loads}
    for store in stage.stores:
        if not store.continues:
            known.update(made)
            made.clear()
        replacement: dict[int, Node] = {}
        for node in topological(store.roots):
            if node.op == "load" and (node.buffer, node.index) in known:
                value = known[node.buffer, node.index]
                if node.mask is not None:
                    value = where(node.mask, value, 0)
                replacement[node.id] = value
        if replacement:
            store = store.rewritten(dag, lambda roots, r=replacement: dag.replace(roots, r))  # type: ignore[misc]
        if store.mode == "set" and store.mask is None:
            made[store.buffer, store.index] = store.value
        stores.append(store)
    kept = [s for s in stores if s.buffer not in private or s.buffer in written_later or s.mode != "set"]
    return StageDraft(stage.vars, stage.rvars, kept)


def _shaped(
    dag: Dag, outer: tuple[Symbol, ...] | None, drafts: Sequence[StageDraft]
) -> tuple[tuple[Symbol, ...], list[StageDraft]]:
    """Order and merge the loops, outer ones over all stages, and name them canonically."""
    outer = outer or ()
    everything = [e for d in drafts for e in expressions(d)]
    if outer:
        weights = [(s.index, 2) for d in drafts for s in d.stores]
        weights += [(n.index, 1) for d in drafts for n in d.loads]
        outer = order_loops(outer, weights)
    new_outer, mapping = merge_loops(outer, everything, "i")
    shaped: list[StageDraft] = []
    for d in drafts:
        exprs = expressions(d)
        scanned = scan_variables(d.nodes)
        stores = [(s.index, 2) for s in d.stores]
        reads = [(n.index, 1) for n in d.loads]
        variables = d.vars if scanned else order_loops(d.vars, stores + reads)
        new_vars, local = merge_loops(variables, exprs, "i", len(new_outer))
        rvars = order_loops(d.rvars, reads)
        new_rvars, inner = merge_loops(rvars, exprs, "r")
        whole = {**mapping, **local, **inner}
        shaped.append(StageDraft(new_vars, new_rvars, _renamed(dag, d.stores, whole, d.rvars, new_rvars)))
    return new_outer, shaped


def _renamed(
    dag: Dag,
    stores: Sequence[Store],
    mapping: Mapping[Symbol, Expr],
    old_rvars: Sequence[Symbol],
    new_rvars: Sequence[Symbol],
) -> list[Store]:
    """Stores over the new loops. Reduction nodes bind the new variables in the new order."""
    out: list[Store] = []
    for store in stores:
        store = store.substituted(dag, mapping)
        if old_rvars:
            replacement: dict[int, Node] = {}
            for node in topological(store.roots):
                if node.op == "reduction":
                    kind, component, _ = node.attrs
                    replacement[node.id] = dag.reduction(str(kind), node.args, new_rvars, component)  # type: ignore[arg-type]
            store = store.rewritten(dag, lambda roots, r=replacement: dag.replace(roots, r))  # type: ignore[misc]
        out.append(store)
    return out


def _buffers(
    graph: Graph, stages: Sequence[Stage], private: set[str], outer: set[Symbol], limits: Limits
) -> tuple[BufferArg, ...]:
    """The kernel's buffers in order of first use: inputs, then what is written."""
    read, written = referenced(stages)
    order: dict[str, None] = {}
    for stage in stages:
        order.update(dict.fromkeys(n.buffer for n in stage.loads))
    for stage in stages:
        order.update(dict.fromkeys(s.buffer for s in stage.stores))
    result: list[BufferArg] = []
    for name in order:
        buffer = graph.buffers[name]
        dtype = stored_dtype(buffer.dtype)
        role: Role = "inout" if name in read and name in written else "out" if name in written else "in"
        one = dtype is buffer.dtype  # what has two parts needs two places, and stays in memory
        if one and role == "inout" and name in private and _row_fits(stages, name, outer, dtype, limits):
            role = "local"
        numel = buffer.layout.extent if one else buffer.layout.extent * 2
        result.append(BufferArg(name, dtype, role, numel))
    return tuple(result)


def _row_fits(
    stages: Sequence[Stage], name: str, outer: set[Symbol], dtype: torch.dtype, limits: Limits
) -> bool:
    """Whether one point of ``outer`` touches so little of the buffer that it can be kept aside."""
    for stage in stages:
        for store in stage.stores:
            if store.buffer != name:
                continue
            form = linear(store.index, [*outer, *stage.vars])
            if form is None:
                return False
            size = product(v.size for v in stage.vars).constant
            if size is None or size * dtype.itemsize > limits.local_bytes:
                return False
    return bool(outer)


def _sizes(stages: Sequence[Stage], buffers: Sequence[BufferArg], loops: set[Symbol]) -> tuple[Symbol, ...]:
    """The size symbols that the kernel needs at run time, by name."""
    found: set[Symbol] = set()
    for symbol in loops:
        found |= symbol.size.free_symbols
    for stage in stages:
        for store in stage.stores:
            found |= store.index.free_symbols
        for node in stage.nodes:
            for attr in node.attrs:
                if isinstance(attr, Expr):
                    found |= attr.free_symbols
    for buffer in buffers:
        if buffer.role == "local":
            found |= buffer.numel.free_symbols
    computed = {s for s in found if isinstance(s, IndirectSymbol)}
    for symbol in computed:
        found |= symbol.size.free_symbols
    return tuple(sorted(found - loops - computed, key=lambda s: s.name))
