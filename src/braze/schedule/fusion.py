"""Which operations become one kernel.

Nodes are taken in order; each joins one of the groups that it reads from or shares reads with, if that is
legal and worth it, or starts a group of its own. The rule, in the order in which it is applied:

1. *legal*: no cycle between kernels; what is read inside the group is read at the place, or in the row, where
   it was written; nothing is overwritten that another point still reads.
2. *one stage*: the same loops, matched through the index of the shared buffer whatever the dimensions are
   called and in whatever order they come. Always worth it: it saves a round trip through memory.
3. *rows*: reductions fuse with what feeds them and what follows them, if the loops that they share
   (``outer``) are enough to keep the threads busy, and the rows inside are contiguous in memory and stay in
   cache.
4. *kept small*: a kernel has only so many buffers and stores.
5. *one device*: a kernel runs on one.

How many is enough, small or much is the backend's to say (`braze.schedule.limits`). Each refusal is recorded
with its reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from braze.errors import Refused
from braze.ir.graph import Graph
from braze.ops.kernel import Stage
from braze.runtime.expr import Expr, Symbol, as_expr
from braze.schedule.drafts import StageDraft
from braze.schedule.groups import Group, expand
from braze.schedule.indexing import Match, linear, match_indices, numel, same_row
from braze.schedule.limits import Limits
from braze.schedule.nodes import SchedulerNode


@dataclass(frozen=True)
class Refusal:
    """``consumer`` was not fused into the kernel that holds ``producer``, for ``reason``."""

    producer: str
    consumer: str
    reason: str

    def __str__(self) -> str:
        return f"{self.consumer} not fused with {self.producer}: {self.reason}"


@dataclass(eq=False)
class Fuser:
    """One greedy pass over the nodes of a graph. ``groups`` in order of their first node; ``limits``: those
    of the backend for a type of device."""

    graph: Graph
    nodes: list[SchedulerNode]
    limits: Callable[[str], Limits]
    groups: list[Group] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    _group_of: dict[int, Group] = field(default_factory=dict)
    _readers: dict[str, list[Group]] = field(default_factory=dict)
    _fresh: int = 0

    def run(self) -> list[Group]:
        """Fuse, and return the groups."""
        for node in self.nodes:
            group = self._join(node) if node.stage is not None else None
            if group is None:
                group = Group.of(node)
                self.groups.append(group)
            self._group_of[node.position] = group
            for storage in node.reads:
                known = self._readers.setdefault(storage, [])
                if group not in known:
                    known.append(group)
        return self.groups

    # -- which group ------------------------------------------------------------------------------------
    def _join(self, node: SchedulerNode) -> Group | None:
        tried: list[Group] = []
        for group, vertical in self._candidates(node):
            tried.append(group)
            try:
                self._check_cycle(group, node)
                joined = self._fused(group, node, vertical)
            except Refused as refusal:
                if vertical:
                    self.refusals.append(Refusal(group.label, node.op.name, refusal.reason))
                continue
            group.outer, group.stages = joined
            group.add(node)
            return group
        return None

    def _candidates(self, node: SchedulerNode) -> Iterable[tuple[Group, bool]]:
        vertical: dict[int, Group] = {}
        for position in sorted(node.deps, reverse=True):
            group = self._group_of[position]
            if group.stages and group.writes & node.reads:
                vertical.setdefault(id(group), group)
        yield from ((g, True) for g in vertical.values())
        seen = set(vertical)
        least = self.limits(node.device).shared_elements
        for storage in sorted(node.reads):
            layout = self.graph.buffers[storage].layout
            if layout.numel.constant is not None and layout.numel.constant < least:
                continue
            for group in reversed(self._readers.get(storage, [])[-8:]):
                if group.stages and id(group) not in seen:
                    seen.add(id(group))
                    yield group, False

    def _check_cycle(self, group: Group, node: SchedulerNode) -> None:
        """Refuse if something outside ``group`` must run between it and ``node``."""
        stack = [g for p in node.deps if (g := self._group_of[p]) is not group]
        seen: set[int] = set()
        first = group.members[0].position
        while stack:
            current = stack.pop()
            if id(current) in seen or current.last < first:
                continue
            seen.add(id(current))
            for p in current.deps:
                g = self._group_of[p]
                if g is group:
                    raise Refused(f"{current.label} runs between them")
                stack.append(g)

    # -- how ---------------------------------------------------------------------------------------------
    def _fused(
        self, group: Group, node: SchedulerNode, vertical: bool
    ) -> tuple[tuple[Symbol, ...] | None, list[StageDraft]]:
        """The group's loops and stages with ``node`` in it. Raises ``Refused``."""
        stage = node.stage
        assert stage is not None
        if group.device != node.device:
            raise Refused(f"one runs on {group.device}, the other on {node.device}")
        limits = self.limits(node.device)
        if len(group.members) >= limits.stores:
            raise Refused(f"the kernel has {limits.stores} stores already")
        if len(group.reads | group.writes | node.reads | node.writes) > limits.buffers:
            raise Refused(f"the kernel would touch more than {limits.buffers} buffers")
        if group.alone or node.keeps_to_itself:
            raise Refused("scans and scatters keep to themselves: their loops are not free to be shared out")
        draft = group.copy()
        position, theirs = self._align(draft, stage, node, vertical)
        new_vars = expand(stage.vars, theirs)
        new_rvars = expand(stage.rvars, theirs)
        stores = [s.substituted(self.graph.dag, theirs) for s in stage.stores]
        piece = StageDraft(new_vars, new_rvars, stores)
        self._place(draft, position, piece)
        self._check_hazards(draft, node)
        if draft.outer is not None:
            self._check_rows(draft)
        return draft.outer, draft.stages

    def _align(
        self, draft: Group, stage: Stage, node: SchedulerNode, vertical: bool
    ) -> tuple[int, dict[Symbol, Expr]]:
        """Match the loops of ``stage`` with the group's. Returns the stage of the group that they were
        matched with, and what the loop variables of ``stage`` become."""
        reason = "they read nothing in common at the same places"
        for storage in sorted(node.reads & (draft.writes if vertical else draft.reads)):
            mine = [n for n in stage.loads if n.buffer == storage]
            for position, other in enumerate(draft.stages):
                if vertical:
                    indices = [s.index for s in other.stores if s.buffer == storage]
                else:
                    indices = [n.index for n in other.loads if n.buffer == storage]
                for index in indices:
                    for load in mine:
                        ours = (*(draft.outer or ()), *other.vars, *other.rvars)
                        match = match_indices(
                            index, ours, load.index, (*stage.vars, *stage.rvars), self._symbol
                        )
                        if match is not None:
                            return position, self._apply(draft, position, match, stage)
                reason = f"it reads {storage} in another order or at other places" if indices else reason
        raise Refused(reason)

    def _symbol(self, size: Expr) -> Symbol:
        self._fresh += 1
        return Symbol(f"x{self._fresh}", 0, size - 1)

    def _apply(self, draft: Group, position: int, match: Match, stage: Stage) -> dict[Symbol, Expr]:
        draft.split(self.graph.dag, match.ours, position)
        theirs = dict(match.theirs)
        taken = {s for e in theirs.values() for s in e.free_symbols}
        used = set(draft.outer or ()) | set(draft.stages[position].vars) | set(draft.stages[position].rvars)
        for v in (*stage.vars, *stage.rvars):
            if v not in theirs and (v in used or v in taken):
                theirs[v] = self._symbol(v.size).expr
        return theirs

    def _place(self, draft: Group, position: int, piece: StageDraft) -> None:
        """Put the aligned loops into a stage of the group, making it a group of rows where that is needed."""
        here = draft.stages[position]
        if draft.outer is None:
            same = set(piece.vars) == set(here.vars)
            if same and not piece.rvars and self._forwards(draft, piece, position):
                here.absorb(replace(piece, vars=here.vars))
                return
            if (
                same
                and piece.rvars
                and set(piece.rvars) == set(here.rvars)
                and not piece.reads & draft.writes
            ):
                here.absorb(replace(piece, vars=here.vars))
                return
            draft.outer = self._outer_of(here, piece)
            here.vars = tuple(v for v in here.vars if v not in draft.outer)
        outer = draft.outer
        if not set(outer) <= set(piece.vars):
            raise Refused("it does not run over the kernel's outer loops")
        piece = replace(piece, vars=tuple(v for v in piece.vars if v not in outer))
        earliest = self._earliest(draft, piece)
        for k in range(earliest, len(draft.stages)):
            target = draft.stages[k]
            renamed = self._renamed(piece, target)
            if renamed is None:
                continue
            if not self._touches_own_results(draft, renamed, k):
                target.absorb(renamed)
                return
        draft.stages.append(piece)

    def _outer_of(self, here: StageDraft, piece: StageDraft) -> tuple[Symbol, ...]:
        if here.rvars:
            return here.vars
        outer = tuple(v for v in here.vars if v in piece.vars)
        if set(piece.vars) - set(outer) and piece.rvars:
            raise Refused("it repeats the other's work for each of its own loops")
        if len(outer) == len(here.vars):
            raise Refused("it would repeat the other's work for each of its own loops")
        return outer

    def _forwards(self, draft: Group, piece: StageDraft, position: int) -> bool:
        """Whether all that ``piece`` reads of the group's results, it reads at its own point of the stage."""
        written = _written(draft.stages[position])
        for load in piece.loads:
            if load.buffer in draft.writes and load.index not in written.get(load.buffer, ()):
                if draft.outer is None and set(piece.vars) == set(draft.stages[position].vars):
                    raise Refused(f"it reads {load.buffer} at other places than are written")
                return False
        return True

    def _earliest(self, draft: Group, piece: StageDraft) -> int:
        """The first stage in which ``piece`` could run, by what it reads. Raises ``Refused`` if in none."""
        earliest = 0
        assert draft.outer is not None
        for load in piece.loads:
            for k, other in enumerate(draft.stages):
                stores = [s for s in other.stores if s.buffer == load.buffer]
                if stores:
                    # of the two parts of an element it reads one
                    if any(s.mode != "set" for s in stores) or not any(
                        same_row(s.index, other.vars, load.index, (*piece.vars, *piece.rvars), draft.outer)
                        for s in stores
                    ):
                        raise Refused(f"it reads {load.buffer} outside of the row that has been written")
                    same_loops = not piece.rvars and len(piece.vars) == len(other.vars)
                    earliest = max(earliest, k if same_loops else k + 1)
        return earliest

    def _renamed(self, piece: StageDraft, target: StageDraft) -> StageDraft | None:
        """``piece`` over the loop variables of ``target``, if their loops agree; a pointwise piece may
        follow a reduction in its stage."""
        if len(piece.vars) != len(target.vars) or (piece.rvars and len(piece.rvars) != len(target.rvars)):
            return None
        pairs = [*zip(piece.vars, target.vars, strict=True), *zip(piece.rvars, target.rvars, strict=False)]
        if any(a.size != b.size for a, b in pairs):
            return None
        mapping = {a: b.expr for a, b in pairs if a != b}
        if not mapping:
            return piece
        if set(piece.vars) == set(target.vars) and set(piece.rvars) <= set(target.rvars):
            return replace(piece, vars=target.vars)  # the same loops in another order
        stores = [s.substituted(self.graph.dag, mapping) for s in piece.stores]
        return StageDraft(target.vars, target.rvars if piece.rvars else (), stores)

    def _touches_own_results(self, draft: Group, piece: StageDraft, k: int) -> bool:
        """Whether ``piece``, put into stage ``k``, would read a result of that stage other than at its own
        point."""
        target = draft.stages[k]
        written = _written(target)
        for load in piece.loads:
            if load.buffer in written and (piece.rvars or load.index not in written[load.buffer]):
                return True
        return False

    # -- rules -------------------------------------------------------------------------------------------
    def _check_hazards(self, draft: Group, node: SchedulerNode) -> None:
        """Refuse to overwrite what another point of the kernel still reads, or what the kernel has
        written."""
        written_again = node.writes & draft.writes
        if written_again:
            raise Refused(f"both write {sorted(written_again)[0]}")
        for storage in node.writes:
            if others := self.graph.sharing(storage) & (draft.reads | draft.writes) - {storage}:
                raise Refused(f"it writes memory that the kernel knows as {sorted(others)[0]}, too")
        for storage in draft.writes:
            if others := self.graph.sharing(storage) & node.reads - {storage}:
                raise Refused(f"it reads, as {sorted(others)[0]}, memory that the kernel writes")
        for storage in node.writes & draft.reads:
            if draft.outer is not None or len(draft.stages) != 1:
                raise Refused(f"it overwrites {storage}, which the kernel reads in another stage")
            stores = [s for s in draft.stages[0].stores if s.buffer == storage]
            indices = {n.index for n in draft.stages[0].loads if n.buffer == storage}
            if draft.stages[0].rvars or not indices <= {s.index for s in stores}:
                raise Refused(f"it overwrites {storage}, which the kernel reads at other places")
        for storage in draft.writes & node.reads:
            if any(s.mode != "set" for d in draft.stages for s in d.stores if s.buffer == storage):
                raise Refused(f"{storage} is complete only after the whole scatter")

    def _check_rows(self, draft: Group) -> None:
        outer = draft.outer
        assert outer is not None
        rows = numel(outer)
        work = max((s.iterations for s in draft.stages), key=lambda e: e.bounds()[0] or 0) * rows
        limits = self.limits(draft.device)
        small = work.constant is not None and work.constant <= limits.small_work
        if not small and (rows.constant is not None and rows.constant < limits.rows):
            raise Refused(f"only {rows} rows, too few to share among threads")
        inside = outside = 0
        for stage in draft.stages:
            inner = (*stage.vars, *stage.rvars)
            if not inner:
                continue
            for index in stage.indices:
                form = linear(index, (*outer, *inner))
                if form is None:
                    continue
                for v, c in form.coefficients.items():
                    if c == as_expr(1) and (rows.constant is None or rows.constant > 1):
                        inside += v in inner
                        outside += v in outer and bool(set(form.coefficients) & set(inner))
        if outside > inside:
            raise Refused("the rows are not contiguous in memory")


def _written(stage: StageDraft) -> dict[str, set[Expr]]:
    """The buffers that a stage writes, and at which places: at two, where an element has two parts."""
    found: dict[str, set[Expr]] = {}
    for store in stage.stores:
        found.setdefault(store.buffer, set()).add(store.index)
    return found
