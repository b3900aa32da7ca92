"""What the scheduler orders and fuses: one node for each operation that is needed, with its dependencies.

Dependencies go by storage. An operation comes after the last writers of what it reads (read after write),
after those who read what it writes (write after read), and after earlier writers of the same storage, except
that the pieces of a concatenation, which are disjoint, do not wait for each other.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from braze.ir.buffers import ComputedBuffer, InputBuffer, Operation
from braze.ir.externs import BindSymbol, ConcatKernel, FallbackKernel, TensorRef
from braze.ir.graph import Graph
from braze.ir.layout import NonOwningLayout
from braze.ops.dag import indirect_nodes
from braze.ops.kernel import Stage
from braze.schedule.loops import without_divisions


@dataclass(eq=False)
class SchedulerNode:
    """One operation. ``deps``: positions of the nodes that must run before it. ``stage`` for loops, else
    ``None``."""

    position: int
    op: Operation
    reads: frozenset[str]
    writes: frozenset[str]
    deps: set[int] = field(default_factory=set)
    stage: Stage | None = None

    @property
    def keeps_to_itself(self) -> bool:
        """Whether its loops are bound by more than its reads and writes: a scan's order, a scatter's
        collisions."""
        stage = self.stage
        if stage is None:
            return False
        scattered = any(s.mode != "set" or indirect_nodes(s.index) for s in stage.stores)
        return scattered or any(n.op == "scan" for n in stage.nodes)


def build_nodes(graph: Graph) -> list[SchedulerNode]:
    """The operations that matter, in order, with their dependencies."""
    needed = live_operations(graph)
    nodes: list[SchedulerNode] = []
    concatenated = {op.buffer.name for op in graph.operations if isinstance(op, ConcatKernel)}
    writers: dict[str, list[int]] = {}
    readers: dict[str, list[int]] = {}
    shares: dict[str, set[str]] = {}
    for op in graph.operations:
        if op not in needed:
            continue
        reads, writes = _with_aliases(op.reads(), shares), _with_aliases(op.writes(), shares)
        node = SchedulerNode(len(nodes), op, frozenset(op.reads()), frozenset(op.writes()))
        if isinstance(op, ComputedBuffer):
            node.stage = without_divisions(graph.dag, op.stage)
        for storage in reads:
            node.deps.update(writers.get(storage, ()))
        for storage in writes:
            piece = storage in concatenated and isinstance(op, ComputedBuffer)
            earlier = writers.get(storage, [])
            if piece:  # wait for the allocation only
                node.deps.update(earlier[:1])
                writers[storage] = [*earlier, node.position]
            else:
                node.deps.update(earlier)
                writers[storage] = [node.position]
            node.deps.update(readers.pop(storage, ()))
        for storage in reads:
            readers.setdefault(storage, []).append(node.position)
        node.deps.discard(node.position)
        if isinstance(op, FallbackKernel):
            for result, storages in op.aliases.items():
                group = {result, *storages}
                for s in list(group):
                    group |= shares.get(s, set())
                for s in group:
                    shares[s] = group
        nodes.append(node)
    _order_bindings(nodes)
    return nodes


def _order_bindings(nodes: list[SchedulerNode]) -> None:
    """Whatever may use a size that is computed at run time comes after the operation that computes it."""
    binding: list[int] = []
    for node in nodes:
        node.deps.update(binding)
        if isinstance(node.op, BindSymbol) or (isinstance(node.op, FallbackKernel) and node.op.binds):
            binding.append(node.position)


def _with_aliases(storages: Iterable[str], shares: dict[str, set[str]]) -> set[str]:
    everything = set(storages)
    for s in list(everything):
        everything |= shares.get(s, set())
    return everything


def live_operations(graph: Graph) -> set[Operation]:
    """Dead code elimination: operations whose results reach an output, an input's memory, or the outside."""
    wanted = {o.buffer.storage for o in graph.outputs if isinstance(o, TensorRef)}
    inputs = {b.name for b in graph.inputs if isinstance(b, InputBuffer)}
    alive: set[Operation] = set()
    for op in reversed(graph.operations):
        writes = op.writes()
        effect = isinstance(op, BindSymbol) or (
            isinstance(op, FallbackKernel)
            and (bool(op.mutated) or bool(op.binds) or op.draws or not op.outputs)
        )
        if effect or writes & wanted or writes & inputs:
            alive.add(op)
            wanted |= op.reads()
            # A piece keeps what it lies in, and the other pieces with it.
            wanted |= {b.storage for b in op.outputs if isinstance(b.layout, NonOwningLayout)}
    return alive
