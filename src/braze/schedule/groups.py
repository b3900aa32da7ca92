"""Groups of operations that are to become one kernel, while they grow."""

from __future__ import annotations

from dataclasses import dataclass

from braze._torch.devices import HOST
from braze.ops.dag import Dag
from braze.runtime.expr import Expr, Symbol
from braze.schedule.drafts import StageDraft
from braze.schedule.nodes import SchedulerNode


@dataclass(eq=False)
class Group:
    """Operations in one kernel, or a single operation that is no kernel (then it has no stages).

    ``outer`` is ``None`` while there is one stage, whose loops are all its own. ``alone``: nothing joins it.
    ``device``: that of all its members.
    """

    members: list[SchedulerNode]
    outer: tuple[Symbol, ...] | None
    stages: list[StageDraft]
    reads: set[str]
    writes: set[str]
    deps: set[int]
    alone: bool = False
    device: str = HOST

    @staticmethod
    def of(node: SchedulerNode) -> Group:
        """The group of one node."""
        stage = node.stage
        drafts = [] if stage is None else [StageDraft(stage.vars, stage.rvars, list(stage.stores))]
        alone = node.keeps_to_itself
        reads, writes, deps = set(node.reads), set(node.writes), set(node.deps)
        return Group([node], None, drafts, reads, writes, deps, alone, node.device)

    @property
    def last(self) -> int:
        """The position of the last member."""
        return self.members[-1].position

    @property
    def label(self) -> str:
        """How refusals name the group: its last member."""
        return self.members[-1].op.name

    def copy(self) -> Group:
        """A draft that can be changed without changing this group."""
        stages = [StageDraft(s.vars, s.rvars, list(s.stores), s._loads) for s in self.stages]
        return Group(
            list(self.members),
            self.outer,
            stages,
            set(self.reads),
            set(self.writes),
            set(self.deps),
            self.alone,
            self.device,
        )

    def add(self, node: SchedulerNode) -> None:
        """Take ``node``, whose loops are in the stages already, as a member."""
        self.members.append(node)
        self.reads |= node.reads
        self.writes |= node.writes
        self.deps |= node.deps

    def split(self, dag: Dag, mapping: dict[Symbol, Expr], position: int) -> None:
        """Replace loop variables by the ones they were split into; those of a stage in stage ``position``
        only."""
        changed = {v: e for v, e in mapping.items() if e.symbol != v}
        if not changed:
            return
        from_outer = {v: e for v, e in changed.items() if v in (self.outer or ())}
        for k, stage in enumerate(self.stages):
            local = changed if k == position else from_outer
            if not local:
                continue
            stage.stores = [s.substituted(dag, local) for s in stage.stores]
            stage.vars = expand(stage.vars, local)
            stage.rvars = expand(stage.rvars, local)
            stage._loads = None
        if self.outer is not None:
            self.outer = expand(self.outer, from_outer)


def expand(variables: tuple[Symbol, ...], mapping: dict[Symbol, Expr]) -> tuple[Symbol, ...]:
    """Loop variables after a mapping that may split them, outermost first.

    A split variable's expression is a mixed-radix number of the new ones: the greater the factor, the
    further out.
    """
    out: list[Symbol] = []
    for v in variables:
        e = mapping.get(v)
        if e is None:
            out.append(v)
            continue
        digits: list[tuple[int, Symbol]] = []
        for s in e.free_symbols - v.size.free_symbols:
            split = e.coefficient(s)
            assert split is not None
            digits.append((split[0].bounds()[0] or 0, s))
        digits.sort(key=lambda d: -d[0])
        out.extend(s for _, s in digits)
    return tuple(out)
