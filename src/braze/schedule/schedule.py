"""The scheduler: from the IR of a graph to ordered steps, each a segment of kernels or one extern call."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from braze.ir.buffers import ComputedBuffer, ConstantBuffer, InputBuffer, Operation
from braze.ir.externs import ConcatKernel, ExternKernel, ExternKernelOut, FallbackKernel
from braze.ir.graph import Graph
from braze.ops.dag import loads
from braze.ops.kernel import Kernel
from braze.runtime.expr import Expr, product
from braze.schedule.build import build_kernel, kernel_origins
from braze.schedule.fusion import Fuser, Refusal
from braze.schedule.groups import Group
from braze.schedule.limits import Limits
from braze.schedule.memory import MemoryPlan, plan_memory
from braze.schedule.nodes import build_nodes


@dataclass(frozen=True)
class ScheduledKernel:
    """A kernel in its segment. ``barrier``: it touches what an earlier kernel of the segment, since the last
    barrier, wrote (or writes what one reads), so all threads must have arrived before it starts."""

    kernel: Kernel
    barrier: bool

    def __str__(self) -> str:
        return ("-- barrier --\n" if self.barrier else "") + str(self.kernel)


@dataclass(frozen=True)
class Segment:
    """Kernels of one device that follow each other, with nothing else in between."""

    kernels: tuple[ScheduledKernel, ...]

    @property
    def device(self) -> str:
        """The type of device on which they run."""
        return self.kernels[0].kernel.device

    @property
    def work(self) -> Expr:
        """Iterations of all its kernels together: what decides whether threads pay."""
        total = Expr(())
        for item in self.kernels:
            total = total + work_of(item.kernel)
        return total

    def __str__(self) -> str:
        return "segment:\n" + "\n".join("  " + line for k in self.kernels for line in str(k).splitlines())


def work_of(kernel: Kernel) -> Expr:
    """Iterations of a kernel."""
    total = Expr(())
    rows = product(v.size for v in kernel.outer)
    for stage in kernel.stages:
        total = total + rows * product(v.size for v in (*stage.vars, *stage.rvars))
    return total


@dataclass(frozen=True)
class ExternStep:
    """One operation that is not loops."""

    op: Operation

    def __str__(self) -> str:
        return f"extern: {self.op}"


Step = Segment | ExternStep


@dataclass(frozen=True)
class Schedule:
    """What runs, in order, and where it keeps its intermediates."""

    graph: Graph
    steps: tuple[Step, ...]
    memory: MemoryPlan
    refusals: tuple[Refusal, ...]

    @property
    def segments(self) -> list[Segment]:
        """The steps that run kernels, in order."""
        return [s for s in self.steps if isinstance(s, Segment)]

    @property
    def kernels(self) -> list[Kernel]:
        """Every kernel, in order."""
        return [k.kernel for s in self.segments for k in s.kernels]

    def __str__(self) -> str:
        return "\n".join([*map(str, self.steps), str(self.memory)])


def schedule(graph: Graph, limits: Callable[[str], Limits]) -> Schedule:
    """Fuse, order, and plan memory. ``limits``: those of the backend for a type of device."""
    nodes = build_nodes(graph)
    fuser = Fuser(graph, nodes, limits)
    groups = ordered(fuser.run())
    private = _private_storages(graph, groups)
    names = _Namer()
    batches = segmented(groups)
    planned = _planned(graph, batches)
    steps: list[Step] = []
    kernels: dict[int, Kernel] = {}
    for batch in batches:
        for group in batch:
            if group.stages:
                own = {s for s, g in private.items() if g is group}
                kernels[id(group)] = build_kernel(graph, group, names.name(group), own, limits(group.device))
    births, deaths, sizes = _lifetimes(graph, batches, kernels, planned)
    replaced = _replacements(batches, kernels, births, deaths)
    devices = {name: graph.buffers[name].layout.device for name in sizes}
    alignments = {device: limits(device).alignment for device in {*devices.values()}}
    memory = plan_memory(births, deaths, sizes, alignments, devices, replaced)
    for batch in batches:
        if batch[0].stages:
            steps.append(Segment(_with_barriers(graph, [kernels[id(g)] for g in batch], memory)))
        else:
            steps.append(ExternStep(batch[0].members[0].op))
    return Schedule(graph, tuple(steps), memory, tuple(fuser.refusals))


def ordered(groups: Sequence[Group]) -> list[Group]:
    """Groups so that each comes after those it depends on; otherwise by their first operation."""
    group_of = {m.position: g for g in groups for m in g.members}
    done: set[int] = set()
    out: list[Group] = []
    for root in sorted(groups, key=lambda g: g.members[0].position):
        stack = [(root, False)]
        while stack:
            group, expanded = stack.pop()
            if id(group) in done:
                continue
            if expanded:
                done.add(id(group))
                out.append(group)
                continue
            stack.append((group, True))
            before = {id(group_of[p]): group_of[p] for p in sorted(group.deps, reverse=True)}
            stack.extend((g, False) for g in before.values() if g is not group and id(g) not in done)
    return out


def segmented(groups: Sequence[Group]) -> list[list[Group]]:
    """Runs of kernels of one device, and externs alone. An extern that needs nothing of the open run is moved
    before it, so that the run goes on."""
    batches: list[list[Group]] = []
    open_run: list[Group] | None = None
    for group in groups:
        if group.stages:
            if open_run is None or open_run[0].device != group.device:
                open_run = []
                batches.append(open_run)
            open_run.append(group)
            continue
        in_run = {m.position for g in open_run or () for m in g.members}
        if open_run is not None and group.deps.isdisjoint(in_run):
            batches.insert(len(batches) - 1, [group])
            continue
        batches.append([group])
        # An allocation runs nothing, and needs no end of the run; but it comes first.
        open_run = None
    return batches


def _private_storages(graph: Graph, groups: Sequence[Group]) -> dict[str, Group]:
    """Storages that one group alone writes and reads, and that are no input, output, constant or part of
    one."""
    public = graph.output_storages()
    public |= {n for n, b in graph.buffers.items() if isinstance(b, (InputBuffer, ConstantBuffer))}
    touched: dict[str, set[int]] = {}
    by_id = {id(g): g for g in groups}
    for group in groups:
        for storage in group.reads | group.writes:
            touched.setdefault(storage, set()).add(id(group))
    return {
        s: by_id[next(iter(who))]
        for s, who in touched.items()
        if len(who) == 1 and s not in public and by_id[next(iter(who))].stages
    }


def _planned(graph: Graph, batches: Sequence[Sequence[Group]]) -> set[str]:
    """Storages that live in the workspace: made here, of a size that is known when the graph begins, and
    handed to nobody who could keep them."""
    made: set[str] = set()
    kept = graph.output_storages()
    for batch in batches:
        for group in batch:
            for node in group.members:
                if isinstance(node.op, (ComputedBuffer, ExternKernelOut, ConcatKernel)):
                    made |= {b.storage for b in node.op.outputs}
                elif isinstance(node.op, FallbackKernel):
                    kept |= {r.buffer.storage for r in node.op.refs()}
    foreign = {n for n, b in graph.buffers.items() if isinstance(b, (InputBuffer, ConstantBuffer))}
    given = graph.given_symbols()
    late = {n for n in made if not {s.name for s in graph.buffers[n].layout.extent.free_symbols} <= given}
    return made - kept - foreign - late


def _lifetimes(
    graph: Graph,
    batches: Sequence[Sequence[Group]],
    kernels: dict[int, Kernel],
    planned: set[str],
) -> tuple[list[list[str]], list[list[str]], dict[str, Expr]]:
    """By batch: planned storages first touched, storages last touched; and sizes in bytes.

    Within a segment all storages live to its end: its kernels may overlap in time.
    """
    touched: list[set[str]] = []
    for batch in batches:
        names: set[str] = set()
        for group in batch:
            kernel = kernels.get(id(group))
            if kernel is None:
                names |= group.reads | group.writes
            else:
                names |= {b.name for b in kernel.buffers if b.role != "local"}
        touched.append(names)
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    for k, names in enumerate(touched):
        for name in sorted(names):
            first.setdefault(name, k)
            last[name] = k
    births: list[list[str]] = [[] for _ in batches]
    deaths: list[list[str]] = [[] for _ in batches]
    sizes: dict[str, Expr] = {}
    for name, k in first.items():
        if name in planned:
            layout = graph.buffers[name].layout
            sizes[name] = layout.extent * layout.dtype.itemsize
            births[k].append(name)
            deaths[last[name]].append(name)
    return births, deaths, sizes


def _replacements(
    batches: Sequence[Sequence[Group]],
    kernels: Mapping[int, Kernel],
    births: Sequence[Sequence[str]],
    deaths: Sequence[Sequence[str]],
) -> dict[str, str]:
    """Results that may be written over an input that their kernel alone still reads: result -> input.

    Each point must read the input where it writes the result, and nowhere else.
    """
    found: dict[str, str] = {}
    for batch, born, dying in zip(batches, births, deaths, strict=True):
        users: dict[str, int] = {}
        for group in batch:
            for b in kernels[id(group)].buffers if group.stages else ():
                users[b.name] = users.get(b.name, 0) + 1
        for group in batch:
            if not group.stages:
                continue
            kernel = kernels[id(group)]
            if len(kernel.stages) != 1 or kernel.stages[0].rvars or kernel.outer:
                continue
            (stage,) = kernel.stages
            free = [b for b in kernel.buffers if b.role == "in" and b.name in dying and users[b.name] == 1]
            for store in stage.stores:
                if store.buffer not in born or store.mode != "set" or store.buffer in found:
                    continue
                out = kernel.buffer(store.buffer)
                for candidate in free:
                    same_bytes = (candidate.numel, candidate.dtype.itemsize) == (
                        out.numel,
                        out.dtype.itemsize,
                    )
                    reads = [n for n in stage.loads if n.buffer == candidate.name]
                    # The result needs what it overwrites, so that is in a register by then.
                    needed = len(reads) == 1 and reads[0] in loads(store.roots)
                    same_place = needed and reads[0].index == store.index
                    if same_bytes and same_place and candidate.name not in found.values():
                        found[store.buffer] = candidate.name
                        break
    return found


def _with_barriers(
    graph: Graph, kernels: Sequence[Kernel], memory: MemoryPlan
) -> tuple[ScheduledKernel, ...]:
    """Put a barrier before each kernel that meets, in memory, something done since the last barrier."""

    def place(name: str) -> object:
        slot = memory.slots.get(name)
        return min(graph.sharing(name)) if slot is None else slot

    out: list[ScheduledKernel] = []
    read: set[object] = set()
    written: set[object] = set()
    for kernel in kernels:
        reads = {place(b.name) for b in kernel.buffers if b.role in ("in", "inout")}
        writes = {place(b.name) for b in kernel.buffers if b.role in ("out", "inout")}
        barrier = bool(reads & written or writes & (read | written))
        if barrier:
            read, written = set(), set()
        read |= reads
        written |= writes
        out.append(ScheduledKernel(kernel, barrier))
    return tuple(out)


class _Namer:
    """Kernel names that say what they fuse: ``fused_mul_add_tanh_3``."""

    def __init__(self) -> None:
        self._count = 0

    def name(self, group: Group) -> str:
        words: dict[str, None] = {}
        for origin in kernel_origins(group):
            word = re.sub(r"^aten\.|^prims\.|\..*$", "", origin.operator)
            words[re.sub(r"\W+", "_", word).strip("_")] = None
        shown = list(words)
        if len(shown) > 6:
            shown = [*shown[:5], f"and_{len(shown) - 5}_more"]
        self._count += 1
        return "_".join(["fused", *shown, str(self._count - 1)])


def externs(schedule: Schedule) -> list[ExternKernel]:
    """Every extern call, in order."""
    ops = [s.op for s in schedule.steps if isinstance(s, ExternStep)]
    return [op for op in ops if isinstance(op, ExternKernel)]
