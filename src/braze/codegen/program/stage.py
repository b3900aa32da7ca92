"""One stage of a kernel in the making: its nodes, in the loops that they belong to, and its stores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from braze.codegen.program.builder import Builder
from braze.codegen.program.grammar import LANE, Along, Blocks, ValueSymbol, Var
from braze.codegen.program.lanes import Copy, parts_of
from braze.codegen.program.loop_plan import LoopPlan, StagePlan
from braze.codegen.program.program import Scratch
from braze.codegen.program.reducers import Reducer
from braze.ops.dag import IndirectSymbol, Node
from braze.ops.kernel import Kernel, Stage, Store
from braze.ops.vocabulary import COMBINING
from braze.runtime.expr import Expr, ExprLike, Symbol, as_expr, known_positive

__all__ = [
    "Frame",
    "Making",
    "Reduction",
    "emit_copies",
    "emit_ready",
    "emit_stores",
    "nest",
    "over_lanes",
    "prepare",
]


@dataclass
class Frame:
    """What the stages of one kernel share. ``rows``: its local buffers, of which ``registers`` are one value
    for each outer point, and ``locals`` these values, by name and by copy; ``scratch``: memory of the
    kernel's own.
    """

    b: Builder
    kernel: Kernel
    plan: LoopPlan
    dtypes: dict[str, torch.dtype]
    rows: frozenset[str]
    registers: frozenset[str] = frozenset()
    locals: dict[tuple[str, int], Var] = field(default_factory=dict)
    scratch: list[Scratch] = field(default_factory=list)

    @property
    def lane_group(self) -> int:
        """How many outer points run together: so many elements lie side by side at each place of a row."""
        shared = self.plan.shared
        return 1 if shared is None else shared.lanes * shared.unroll

    def local_index(self, buffer: str, e: Expr) -> Expr:
        """Inside a row of a thread's own: the index without its outer part."""
        if self.plan.outer and buffer in self.rows:
            return e.substitute(dict.fromkeys(self.kernel.outer, 0)) * self.lane_group
        return e

    def place(self, buffer: str, e: Expr, along: Along) -> tuple[Expr, Along]:
        """Where an access happens: rows of several outer points lie side by side, one on each lane."""
        if buffer not in self.rows or not self.plan.outer:
            return e, along
        e = self.local_index(buffer, e)
        if self.plan.shared is None:
            return e, along
        return e + LANE.expr, Along(LANE, along.lanes, along.offset, self.lane_group)

    def is_lane_row(self, buffer: str) -> bool:
        """Whether a buffer holds rows of several outer points, one on each lane."""
        return self.plan.shared is not None and buffer in self.rows


@dataclass(frozen=True)
class Reduction:
    """The reduction nodes that share kind and operands: components of one result."""

    number: int
    kind: str
    reducer: Reducer
    args: tuple[Node, ...]
    nodes: tuple[Node, ...]
    rvars: tuple[Symbol, ...]


@dataclass
class Making:
    """A stage in the making. ``last``: the nodes that its stores need besides its reductions, and ``late``
    the numbers of those that come after them; ``held``: the numbers of nodes that have to wait; ``on_lanes``:
    of those that differ between lanes whatever their symbols say."""

    frame: Frame
    stage: Stage
    plan: StagePlan
    reductions: Sequence[Reduction] = ()
    last: Sequence[Node] = ()
    late: frozenset[int] = frozenset()
    held: frozenset[int] = frozenset()
    on_lanes: frozenset[int] = frozenset()

    @property
    def b(self) -> Builder:
        """Where its statements go."""
        return self.frame.b

    def varies(self, node: Node, copy: Copy) -> bool:
        """Whether the node's value differs between lanes."""
        along = copy.along.symbol
        return along is not None and (along in node.free or node.id in self.on_lanes)

    def operand(self, node: Node, copy: Copy, lanes: int) -> Var:
        """The value of a node on ``lanes`` lanes, or as a scalar."""
        return self.b.vector(node, copy) if lanes > 1 else self.b.get(node, copy)

    def resolved(self, e: Expr, copy: Copy) -> Expr:
        """``e`` over what has values here: integers that nodes compute are those of this copy."""
        mapping: dict[Symbol, ExprLike] = dict(copy.shift or {})
        for s in e.free_symbols:
            if isinstance(s, IndirectSymbol):
                mapping[s] = ValueSymbol(self.b.get(s.node, copy), s.upper).expr
        return e.substitute(mapping) if mapping else e


# -- nodes --------------------------------------------------------------------------------------------------
def prepare(m: Making, copies: Sequence[Copy]) -> None:
    """Compute, in this block, every node whose variables all have values."""
    held = m.held
    emit_ready(m, [n for n in m.stage.nodes if n.id not in held] if held else m.stage.nodes, copies)


def emit_ready(m: Making, nodes: Sequence[Node], copies: Sequence[Copy]) -> None:
    """Compute those of ``nodes`` whose variables have values and whose inputs are there; one node for all
    copies before the next, so that while one waits for a result the others go on."""
    bound, values = m.b.bound.keys(), m.b.values
    for node in nodes:
        if node.id in values or not node.free <= bound or node.op in ("reduction", "scan"):
            continue
        apart = bool(copies) and m.varies(node, copies[0])
        for copy in copies if apart else copies[:1]:
            if node.id in copy.values or not all(i.id in values or i.id in copy.values for i in node.inputs):
                continue
            m.b.remember(copy.values if apart else values, node.id, _value(m, node, copy, apart))


def _value(m: Making, node: Node, copy: Copy, varies: bool) -> Var:
    b, op = m.b, node.op
    along = copy.along if varies else Along()
    if op == "constant":
        (value,) = node.attrs
        assert isinstance(value, bool | int | float)
        return b.constant(value, node.dtype)
    if op == "index_expr":
        return b.index(m.resolved(node.index, copy), node.dtype, along)
    if op == "load":
        return _load(m, node, copy, along, varies)
    args = [b.vector(a, copy) if varies else b.get(a, copy) for a in node.args]
    if op in ("check_index", "check_nonzero", "check"):
        return _check(m, node, args, copy, along, varies)
    return b.op(op, *args, dtype=node.dtype)


def _load(m: Making, node: Node, copy: Copy, along: Along, varies: bool) -> Var:
    b, frame, buffer = m.b, m.frame, node.buffer
    if buffer in frame.registers:
        # one for all copies of a body, unless the copies are outer points
        return frame.locals[buffer, 0 if frame.plan.shared is None else copy.along.offset]
    mask = None if node.mask is None else b.vector(node.mask, copy) if varies else b.get(node.mask, copy)
    if varies and not frame.is_lane_row(buffer):
        mask = b.both(copy.mask, mask)
    e, along = frame.place(buffer, m.resolved(node.index, copy), along)
    return b.load(buffer, e, node.dtype, along, mask)


def _check(m: Making, node: Node, args: list[Var], copy: Copy, along: Along, varies: bool) -> Var:
    b = m.b
    exists = copy.mask if varies else None
    if node.op == "check":
        b.check("holds", args[1], exists, str(node.attrs[0]))
        return args[0]
    mask = b.both(exists, args[1] if len(args) > 1 else None)
    if node.op == "check_nonzero":
        return b.check("nonzero", args[0], mask, str(node.attrs[0]))
    size, wraps, error = node.attrs
    assert isinstance(size, Expr)
    bound = m.resolved(size, copy)
    return b.check("index", args[0], mask, str(error), bound, along, bool(wraps))


# -- stores -------------------------------------------------------------------------------------------------
def emit_copies(m: Making, copies: Sequence[Copy]) -> None:
    """What is left of a point to compute, then the copies' stores."""
    emit_ready(m, m.last, copies)
    for copy in copies:
        emit_stores(m, copy)


def emit_stores(m: Making, copy: Copy) -> None:
    """The stores of one copy, in order."""
    for store in m.stage.stores:
        emit_store(m, store, copy)


def stored(m: Making, store: Store, copy: Copy) -> Var:
    """What a store writes, in the type of its buffer."""
    return m.b.convert(m.b.get(store.value, copy), m.frame.dtypes[store.buffer])


def emit_store(m: Making, store: Store, copy: Copy, value: Var | None = None) -> None:
    """One store, of ``value`` if that is at hand."""
    b, frame = m.b, m.frame
    value = stored(m, store, copy) if value is None else value
    if store.buffer in frame.registers:
        frame.locals[store.buffer, copy.along.offset] = value
        return
    mask = None if store.mask is None else b.vector(store.mask, copy)
    if not frame.is_lane_row(store.buffer):
        mask = b.both(copy.mask, mask)
    e, along = frame.place(store.buffer, m.resolved(store.index, copy), copy.along)
    b.store(store.buffer, e, value, along, mask, COMBINING.get(store.mode))


# -- loops --------------------------------------------------------------------------------------------------
def maybe_empty(variables: Sequence[Symbol]) -> list[Expr]:
    """The extents of which it is not known that they are at least 1."""
    return [v.size for v in variables if not known_positive(v.size)]


def nest(m: Making, loops: Sequence[Symbol], copies: Sequence[Copy], body: Callable[[], None]) -> None:
    """Loops over scalars, none of them empty; each block computes what does not change further in."""
    if not loops:
        body()
        return
    with m.b.loop(loops[0], 0, loops[0].size, runs=True):
        prepare(m, copies)
        nest(m, loops[1:], copies, body)


def shared_loop(
    b: Builder, loops: Sequence[Symbol], plan: StagePlan, body: Callable[[Expr | None, Expr | None], None]
) -> None:
    """``body(start, stop)`` for this thread's points of ``loops``, each with a range of blocks of the vector
    variable if the plan has blocks (else with None)."""
    if not plan.block:
        with b.share(loops, None, plan.serial):
            body(None, None)
        return
    assert plan.vector is not None
    blocks = Blocks(plan.vector, plan.block, b.symbol("low"), b.symbol("high"))
    with b.share(loops, blocks, plan.serial):
        body(blocks.low.expr, blocks.high.expr)


def over_lanes(m: Making, start: Expr | None, stop: Expr | None, point: Callable[[list[Copy]], None]) -> None:
    """``point`` for each group of lanes of the stage's vector variable, or once if none of its variables
    lies on lanes."""
    vector = m.plan.vector
    if vector is None or vector not in m.stage.vars:
        point([Copy()])
        return
    spread(m, vector, m.plan.lanes)
    if start is None or stop is None:
        start, stop = as_expr(0), vector.size
    lane_parts(m.b, m.plan, vector, start, stop, point)


def lane_parts(
    b: Builder,
    plan: StagePlan,
    vector: Symbol,
    start: Expr,
    stop: Expr,
    point: Callable[[list[Copy]], None],
) -> None:
    """The parts of a loop over lanes, one after another."""
    for part in parts_of(plan, start, stop, lambda e: b.bind("mid", e)):
        with b.lane_loop(vector, part) as copies:
            point(copies)


def spread(m: Making, var: Symbol, lanes: int) -> None:
    """Uniform operands of what runs on lanes, spread before the loop."""
    if lanes == 1:
        return
    for node in m.stage.nodes:
        if var in node.free and node.op != "load":
            for arg in node.args:
                if arg.id in m.b.values and arg.op != "constant":
                    m.b.splat(m.b.values[arg.id], lanes)
