"""What the scheduler orders and fuses: one node for each operation that is needed, with its dependencies.

Dependencies go by storage. An operation comes after the last writers of what it reads (read after write),
after those who read what it writes (write after read), and after earlier writers of the same storage, except
that the pieces of a concatenation, which are disjoint, do not wait for each other.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from braze._torch.devices import HOST
from braze._torch.schema import Effect
from braze.ir.buffers import ComputedBuffer, InputBuffer, Operation
from braze.ir.externs import BindSymbol, CheckCondition, ConcatKernel, ExternKernel, ExternKernelAlloc
from braze.ir.graph import Graph
from braze.ops.dag import indirect_nodes
from braze.ops.kernel import Stage
from braze.schedule.loops import without_divisions


@dataclass(eq=False)
class SchedulerNode:
    """One operation. ``deps``: positions of the nodes that must run before it. ``stage`` for loops, else
    ``None``; ``device``: where loops run."""

    position: int
    op: Operation
    reads: frozenset[str]
    writes: frozenset[str]
    deps: set[int] = field(default_factory=set)
    stage: Stage | None = None
    device: str = HOST

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
    for op in graph.operations:
        if op not in needed:
            continue
        reads, writes = with_aliases(graph, op.reads()), with_aliases(graph, op.writes())
        node = SchedulerNode(len(nodes), op, frozenset(op.reads()), frozenset(op.writes()))
        if isinstance(op, ComputedBuffer):
            node.stage = without_divisions(graph.dag, op.stage)
            node.device = op.data.device
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
        nodes.append(node)
    _order_bindings(nodes)
    _order_effects(nodes)
    return nodes


def _order_bindings(nodes: list[SchedulerNode]) -> None:
    """Whatever may use a size that is computed at run time comes after the operation that computes it, and
    whatever may rely on a check after that."""
    binding: list[int] = []
    for node in nodes:
        node.deps.update(binding)
        if isinstance(node.op, (BindSymbol, CheckCondition)) or (
            isinstance(node.op, ExternKernelAlloc) and node.op.binds
        ):
            binding.append(node.position)


def _order_effects(nodes: list[SchedulerNode]) -> None:
    """Calls with effects run in the order in which the program makes them."""
    last: int | None = None
    for node in nodes:
        if node.op.effect & Effect.ORDERED:
            if last is not None:
                node.deps.add(last)
            last = node.position


def with_aliases(graph: Graph, storages: Iterable[str]) -> set[str]:
    """``storages`` and all that may share memory with one of them."""
    return {name for s in storages for name in graph.sharing(s)}


def live_operations(graph: Graph) -> set[Operation]:
    """Dead code elimination: operations whose results reach an output, an input's memory, or the outside."""
    wanted = with_aliases(graph, graph.output_storages())
    inputs = with_aliases(graph, (b.name for b in graph.inputs if isinstance(b, InputBuffer)))
    alive: set[Operation] = set()
    for op in reversed(graph.operations):
        writes = op.writes()
        made = {r.name for r in op.outputs} if isinstance(op, ExternKernel) else set()
        if op.effect & Effect.ALL or writes & wanted or (writes - made) & inputs:
            alive.add(op)
            wanted |= with_aliases(graph, op.reads())
            # A piece keeps what it lies in, and the other pieces with it.
            wanted |= {b.storage for b in op.outputs if b.home is not None}
    return alive
