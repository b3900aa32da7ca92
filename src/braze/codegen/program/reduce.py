"""Reductions: accumulators in loops, strips, two-pass variances, and partial results of chunks.

A *row* reduction has a reduced variable on lanes: several vector accumulators, merged at the end in a fixed
order. A *column* reduction has a kept variable on lanes: one accumulator for each copy of the body, all lanes
independent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from braze.codegen.program.builder import Builder
from braze.codegen.program.grammar import SCALAR, Var
from braze.codegen.program.lanes import Copy
from braze.codegen.program.loop_plan import StagePlan, feeds_reduction
from braze.codegen.program.program import Scratch
from braze.codegen.program.reducers import Moments, Position, Reducer, State, horizontal, merged, reducer_of
from braze.codegen.program.stage import (
    Making,
    Reduction,
    emit_copies,
    lane_parts,
    maybe_empty,
    over_lanes,
    prepare,
    shared_loop,
    spread,
)
from braze.ops.dag import Node
from braze.ops.kernel import Stage
from braze.runtime.expr import ZERO, Expr, Symbol, known_positive, minimum, product

__all__ = ["emit_chunks", "emit_merge", "emit_reductions", "place_partials", "reduces"]

Ranges = dict[Symbol, tuple[Expr, Expr]]
Layout = list[tuple[Reducer, tuple[int, ...]]]


@dataclass(frozen=True)
class Deviations(Reducer):
    """The sum of deviations from a mean, and that of their squares."""

    @property
    def dtypes(self) -> tuple[torch.dtype, ...]:
        """The types of a state's values."""
        return (self.dtype, self.dtype)

    def identity(self, b: Builder, lanes: int) -> State:
        """The state of no values."""
        return [b.constant(0.0, self.dtype, lanes)] * 2

    def update(self, b: Builder, state: State, value: State) -> State:
        """One more deviation in each lane."""
        (delta,) = value
        return [b.op("add", state[0], delta), b.op("fma", delta, delta, state[1])]

    def merge(self, b: Builder, left: State, right: State) -> State:
        """Both sums together."""
        return [b.op("add", one, other) for one, other in zip(left, right, strict=True)]


@dataclass(frozen=True)
class Weighted(Reducer):
    """A mean: the sum of values, each times ``weight``, so that no sum of large values overflows."""

    weight: Var | None = None

    def update(self, b: Builder, state: State, value: State) -> State:
        """One more value in each lane."""
        assert self.weight is not None
        return [b.op("fma", value[0], b.splat(self.weight, value[0].lanes), state[0])]


@dataclass(frozen=True)
class Pass:
    """The states of one reduction in one pass: ``lanes[k]`` lanes for state ``k``. ``values``: what a copy of
    the body adds to one."""

    reduction: Reduction
    reducer: Reducer
    lanes: tuple[int, ...]
    values: Callable[[Copy, int], State]


def reduces(m: Making) -> None:
    """Group the reduction nodes of the stage; note which nodes come after them only, and which have to wait
    until it is known that the loops of the reduction are not empty."""
    stage = m.stage
    m.last = stage.nodes
    groups: dict[tuple[object, ...], list[Node]] = {}
    for node in stage.reductions:
        groups.setdefault((node.attrs[0], node.args), []).append(node)
    if not groups:
        return
    found: list[Reduction] = []
    for number, ((kind, args), nodes) in enumerate(groups.items()):
        assert isinstance(kind, str) and isinstance(args, tuple)
        rvars = nodes[0].attrs[2]
        assert isinstance(rvars, tuple)
        ordered = len(args) == 1 and m.plan.rloops == rvars
        reducer = reducer_of(kind, args[0].dtype, _position_type(args, rvars), ordered)
        found.append(Reduction(number, kind, reducer, args, tuple(nodes), rvars))
    m.reductions = found
    feeding = feeds_reduction(stage)
    m.late = frozenset(n.id for n in stage.nodes if n.id not in feeding)
    m.last = _above_reductions(stage)
    m.held = m.late
    if not all(known_positive(v.size) for v in stage.rvars):
        # what an empty loop would read need not exist
        touching = ("load", "check_index", "check_nonzero", "check")
        m.held |= frozenset(n.id for n in stage.nodes if n.op in touching and n.id in feeding)


# -- a point of the kept variables ---------------------------------------------------------------------
def emit_reductions(m: Making, copies: list[Copy]) -> None:
    """Reduce at one point (a group of lanes) of the kept variables and remember the results."""
    prepare(m, copies)
    _remember(m, copies, _reduced(m, copies, {}))


def _remember(m: Making, copies: list[Copy], results: list[list[State]]) -> None:
    """The components of the results become the values of the reduction nodes."""
    b = m.b
    for red, states in zip(m.reductions, results, strict=True):
        if isinstance(red.reducer, Position):
            for state in states:  # no value at all: position 0
                missing = b.op("eq", state[1], b.like(red.reducer.nowhere, state[1]))
                position = b.op("where", missing, b.like(0, state[1]), state[1])
                state[1] = b.convert(position, torch.int64)
        for node in red.nodes:
            component = node.attrs[1] if not isinstance(red.reducer, Position) else 1
            assert isinstance(component, int)
            if m.varies(node, copies[0]):
                for copy, state in zip(copies, states, strict=True):
                    b.remember(copy.values, node.id, state[component])
            else:
                b.remember(b.values, node.id, states[0][component])


def _reduced(m: Making, copies: list[Copy], ranges: Ranges) -> list[list[State]]:
    """For each reduction its final states, one for each copy that differs (one scalar for a row)."""
    doubtful = maybe_empty([v for v in m.plan.rloops if v not in ranges])
    if not doubtful:
        return _reduced_some(m, copies, ranges)
    totals = _accumulators(m, _final_layout(m, copies))
    with m.b.when(doubtful):
        _assign(m, totals, _reduced_some(m, copies, ranges))
    return totals


def _reduced_some(m: Making, copies: list[Copy], ranges: Ranges) -> list[list[State]]:
    """As above, where no loop is empty: what waited for that goes ahead."""
    waiting, m.held = m.held, m.late
    if waiting != m.held:
        prepare(m, copies)
    states = _over_strips(m, copies, ranges)
    m.held = waiting
    return states


def _over_strips(m: Making, copies: list[Copy], ranges: Ranges) -> list[list[State]]:
    strip, b = m.plan.strip, m.b
    if strip is None:
        return _finished(m, _strip_states(m, copies, m.plan.rloops, ranges))
    position = m.plan.rloops.index(strip.var)
    before, inside = m.plan.rloops[:position], m.plan.rloops[position:]
    totals = _accumulators(m, _strip_layout(m, copies))

    def strips(_: list[Copy]) -> None:
        low, high = ranges.get(strip.var) or (ZERO, strip.var.size)
        at = b.symbol("strip")
        with b.loop(at, low, high, strip.length, runs=True):
            end = b.bind("end", minimum(at.expr + strip.length, high))
            states = _strip_states(m, copies, inside, {**ranges, strip.var: (at.expr, end)})
            sums = [
                [red.reducer.merge(b, old, new) for old, new in zip(total, state, strict=True)]
                for red, total, state in zip(m.reductions, totals, states, strict=True)
            ]
            _assign(m, totals, sums)

    _nest(m, before, ranges, copies, strips)
    return _finished(m, totals)


def _finished(m: Making, states: list[list[State]]) -> list[list[State]]:
    """A row's states merged into one scalar state for each reduction; a column's as they are."""
    if m.plan.strategy != "row":
        return states
    return [[_to_scalar(m.b, r.reducer, own)] for r, own in zip(m.reductions, states, strict=True)]


def _to_scalar(b: Builder, reducer: Reducer, states: Sequence[State]) -> State:
    return merged(b, reducer, [horizontal(b, reducer, state) for state in states])


# -- states -------------------------------------------------------------------------------------------------
def _final_layout(m: Making, copies: list[Copy]) -> Layout:
    if m.plan.strategy == "row":
        return [(r.reducer, (1,)) for r in m.reductions]
    return _strip_layout(m, copies)


def _strip_layout(m: Making, copies: list[Copy]) -> Layout:
    """The states that remain of each reduction after one strip."""
    out: Layout = []
    for red in m.reductions:
        if m.plan.strategy != "row":
            out.append((red.reducer, _column_lanes(m, red, copies)))
        else:
            out.append((red.reducer, (1,) if isinstance(red.reducer, Moments) else _row_lanes(m.plan, 1)))
    return out


def _column_lanes(m: Making, red: Reduction, copies: Sequence[Copy]) -> tuple[int, ...]:
    return tuple(copy.lanes for copy in copies) if m.varies(red.nodes[0], copies[0]) else (1,)


def _row_lanes(plan: StagePlan, copies: int) -> tuple[int, ...]:
    """A row's accumulators: vectors, and a scalar one where the tail is scalar."""
    return (plan.lanes,) * copies + ((1,) if plan.tail == "scalar" and plan.lanes > 1 else ())


def _accumulators(m: Making, layout: Layout) -> list[list[State]]:
    return [
        [[m.b.accumulator(v) for v in reducer.identity(m.b, n)] for n in lanes] for reducer, lanes in layout
    ]


def _assign(m: Making, totals: list[list[State]], states: list[list[State]]) -> None:
    for own, new in zip(totals, states, strict=True):
        for total, state in zip(own, new, strict=True):
            for var, value in zip(total, state, strict=True):
                m.b.assign(var, value)


# -- one strip -----------------------------------------------------------------------------------------
def _strip_states(
    m: Making, copies: list[Copy], loops: Sequence[Symbol], ranges: Ranges
) -> list[list[State]]:
    """Reduce over ``loops``: a first pass for everything (means, for a variance), a second one for deviations
    from them."""
    b = m.b
    moments = [red for red in m.reductions if isinstance(red.reducer, Moments)]
    counts: dict[int, tuple[Var, Var]] = {}
    if moments:
        count = b.index(_iterations(loops, ranges))
        for red in moments:
            n = b.convert(count, red.reducer.dtype)
            counts[red.number] = n, b.op("truediv", b.like(1.0, n), n)
    first = [_first_pass(m, red, copies, counts) for red in m.reductions]
    states = _run(m, first, copies, loops, ranges)
    if not moments:
        return states
    means = {red.number: [s[0] for s in states[red.number]] for red in moments}
    second = [_second_pass(m, red, copies, means[red.number]) for red in moments]
    deviations = _run(m, second, copies, loops, ranges)
    for red, own in zip(moments, deviations, strict=True):
        n = counts[red.number][0]
        states[red.number] = [
            _moments(b, n, mean, *state) for mean, state in zip(means[red.number], own, strict=True)
        ]
    return states


def _moments(b: Builder, n: Var, mean: Var, total: Var, squares: Var) -> State:
    """A strip's mean and sum of squared deviations, each corrected for what the mean was rounded by. Source:
    Chan, Golub, LeVeque: Algorithms for computing the sample variance (1983), the corrected two-pass
    algorithm."""
    n = b.splat(n, mean.lanes)
    shift = b.op("truediv", total, n)
    off = b.op("isnan", shift)  # an infinite mean has no deviations
    corrected = b.op("where", off, mean, b.op("add", mean, shift))
    rest = b.op("maximum", b.op("sub", squares, b.op("mul", total, shift)), b.like(0.0, squares))
    return [corrected, b.op("where", b.op("isinf", squares), squares, rest), n]


def _iterations(loops: Sequence[Symbol], ranges: Ranges) -> Expr:
    extents = [ranges[v][1] - ranges[v][0] if v in ranges else v.size for v in loops]
    return product(extents)


def _first_pass(m: Making, red: Reduction, copies: list[Copy], counts: dict[int, tuple[Var, Var]]) -> Pass:
    reducer = red.reducer
    if red.number in counts:
        reducer = Weighted(reducer.dtype, "add", 0.0, counts[red.number][1])
    return Pass(red, reducer, _pass_lanes(m, red, copies), lambda copy, lanes: _operands(m, red, copy, lanes))


def _second_pass(m: Making, red: Reduction, copies: list[Copy], means: list[Var]) -> Pass:
    row = m.plan.strategy == "row"
    if row and m.plan.lanes > 1:
        m.b.splat(means[0], m.plan.lanes)  # before the loop

    def values(copy: Copy, lanes: int) -> State:
        mean = means[0 if row or len(means) == 1 else copy.number]
        return [m.b.op("sub", _operands(m, red, copy, lanes)[0], m.b.splat(mean, lanes))]

    return Pass(red, Deviations(red.reducer.dtype, "add", 0.0), _pass_lanes(m, red, copies), values)


def _pass_lanes(m: Making, red: Reduction, copies: list[Copy]) -> tuple[int, ...]:
    if m.plan.strategy == "row":
        return _row_lanes(m.plan, m.plan.unroll)
    return _column_lanes(m, red, copies)


def _operands(m: Making, red: Reduction, copy: Copy, lanes: int) -> State:
    values = [m.operand(red.args[0], copy, lanes)]
    if isinstance(red.reducer, Position):
        given = m.operand(red.args[1], copy, lanes) if len(red.args) > 1 else None
        values.append(_position(m, red, red.reducer, copy, lanes) if given is None else given)
    return values


def _position(m: Making, red: Reduction, reducer: Position, copy: Copy, lanes: int) -> Var:
    """The position along the flattened reduction variables."""
    flat = _flat_position(red.rvars)
    along = copy.along if copy.along.symbol in flat.free_symbols else SCALAR
    return m.b.splat(m.b.index(flat, reducer.position, along), lanes)


def _run(
    m: Making, passes: list[Pass], copies: list[Copy], loops: Sequence[Symbol], ranges: Ranges
) -> list[list[State]]:
    """One pass over ``loops``; a row's copies come back merged into one vector state (and a scalar one), or,
    for a variance, into one scalar."""
    b, row = m.b, m.plan.strategy == "row"
    states = _accumulators(m, [(p.reducer, p.lanes) for p in passes])

    def leaf(inner: list[Copy]) -> None:
        for own, accumulators in zip(passes, states, strict=True):
            for copy, k in _pairs(m, own, inner):
                state, lanes = accumulators[k], own.lanes[k]
                new = own.reducer.update(b, state, own.values(copy, lanes))
                if row and lanes > 1 and copy.mask is not None:
                    new = [b.op("where", copy.mask, n, o) for n, o in zip(new, state, strict=True)]
                for var, value in zip(state, new, strict=True):
                    b.assign(var, value)

    _nest(m, loops, ranges, copies, leaf)
    if not row:
        return states
    out: list[list[State]] = []
    for own, accumulators in zip(passes, states, strict=True):
        left = _merge_copies(b, own, accumulators)
        moments = isinstance(own.reduction.reducer, Moments)
        out.append([_to_scalar(b, own.reducer, left)] if moments else left)
    return out


def _pairs(m: Making, own: Pass, copies: list[Copy]) -> list[tuple[Copy, int]]:
    """Which copy of the body goes to which state."""
    if m.plan.strategy != "row":
        return list(zip(copies, range(len(own.lanes)), strict=False))
    if copies[0].lanes < m.plan.lanes:  # the scalar tail has a state of its own, the last
        return [(copy, len(own.lanes) - 1) for copy in copies]
    return [(copy, k) for k, copy in enumerate(copies)]


def _merge_copies(b: Builder, own: Pass, states: list[State]) -> list[State]:
    vectors = [s for s, n in zip(states, own.lanes, strict=True) if n == own.lanes[0]]
    scalars = states[len(vectors) :]
    while len(vectors) > 1:
        half = len(vectors) // 2
        pairs = zip(vectors[:half], vectors[half:], strict=True)
        vectors = [own.reducer.merge(b, low, high) for low, high in pairs]
    return vectors + scalars


def _nest(
    m: Making,
    loops: Sequence[Symbol],
    ranges: Ranges,
    copies: list[Copy],
    leaf: Callable[[list[Copy]], None],
) -> None:
    """Loops, none of them empty; the vector variable of a row comes last."""
    if not loops:
        leaf(copies)
        return
    var, rest = loops[0], loops[1:]
    low, high = ranges.get(var) or (ZERO, var.size)
    if m.plan.strategy == "row" and var == m.plan.vector:
        spread(m, var, m.plan.lanes)

        def point(inner: list[Copy]) -> None:
            prepare(m, inner)
            leaf(inner)

        lane_parts(m.b, m.plan, var, low, high, point)
        return
    with m.b.loop(var, low, high, runs=True):
        prepare(m, copies)
        _nest(m, rest, ranges, copies, leaf)


# -- partial results of chunks -------------------------------------------------------------------------
def place_partials(m: Making, chunk: Symbol) -> None:
    """Memory for the states of all chunks."""
    kept = product(v.size for v in m.stage.vars)
    for red in m.reductions:
        for component, dtype in enumerate(red.reducer.dtypes):
            name = _partial(red, chunk, component)
            m.frame.scratch.append(Scratch(name, dtype, kept * chunk.size, "shared"))


def _partial(red: Reduction, chunk: Symbol, component: int) -> str:
    return f"{chunk.name}.{red.number}.{component}"


def _place(m: Making, chunk: Symbol) -> Expr:
    """Where the partial result of a chunk lies, for the current point of the kept variables."""
    flat = chunk.expr
    kept = list(m.plan.loops)
    if m.plan.strategy != "row" and m.plan.vector is not None:
        kept.append(m.plan.vector)
    for v in kept:
        flat = flat * v.size + v.expr
    return flat


def emit_chunks(m: Making, chunk: Symbol) -> None:
    """The first half of a reduction that is split over threads: this thread's chunks."""
    b, split = m.b, m.plan.chunk
    assert split is not None

    def group(copies: list[Copy]) -> None:
        with b.scope():
            prepare(m, copies)
            low = b.bind("first", chunk.expr * split.length)
            high = b.bind("end", minimum(low + split.length, split.var.size))
            results = _reduced(m, copies, {split.var: (low, high)})
            for red, states in zip(m.reductions, results, strict=True):
                for k, copy in enumerate(copies):
                    for component, value in enumerate(states[min(k, len(states) - 1)]):
                        name = _partial(red, chunk, component)
                        b.store(name, _place(m, chunk), value, copy.along, copy.mask)

    def rows(start: Expr | None, stop: Expr | None) -> None:
        prepare(m, [Copy()])
        over_lanes(m, start, stop, group)

    with _unless_empty(m):
        prepare(m, [Copy()])
        shared_loop(b, (*m.plan.loops, chunk), m.plan, rows)


def emit_merge(m: Making, chunk: Symbol) -> None:
    """The second half, behind a barrier: merge the chunks' results in order, then what follows."""
    b = m.b

    def group(copies: list[Copy]) -> None:
        with b.scope():
            totals = _accumulators(m, _final_layout(m, copies))
            with b.loop(chunk, 0, chunk.size, runs=known_positive(chunk.size)):
                at = _place(m, chunk)
                for red, states in zip(m.reductions, totals, strict=True):
                    for copy, state in zip(copies, states, strict=False):
                        along, mask = (
                            (copy.along, copy.mask) if state[0].lanes == copy.lanes else (SCALAR, None)
                        )
                        part = [
                            b.load(_partial(red, chunk, k), at, dtype, along, mask)
                            for k, dtype in enumerate(red.reducer.dtypes)
                        ]
                        for var, value in zip(state, red.reducer.merge(b, state, part), strict=True):
                            b.assign(var, value)
            _remember(m, copies, totals)
            emit_copies(m, copies)

    with _unless_empty(m):
        shared_loop(b, m.plan.loops, m.plan, lambda start, stop: over_lanes(m, start, stop, group))


@contextmanager
def _unless_empty(m: Making) -> Iterator[None]:
    with m.b.when(maybe_empty(m.stage.vars)), m.b.scope():
        yield


def _flat_position(rvars: Sequence[Symbol]) -> Expr:
    """The position along the flattened variables."""
    flat = ZERO
    for v in rvars:
        flat = flat * v.size + v.expr
    return flat


def _position_type(args: Sequence[Node], rvars: Sequence[Symbol]) -> torch.dtype:
    """Positions fit into 32 bits where their bounds say so; those that a node computes are int64."""
    highest = _flat_position(rvars).bounds()[1]
    return torch.int32 if len(args) == 1 and highest is not None and highest < 2**31 - 1 else torch.int64


def _above_reductions(stage: Stage) -> list[Node]:
    """What the stores need besides the reductions' results, inputs before users."""
    wanted = {n.id for n in stage.roots}
    for node in reversed(stage.nodes):
        if node.id in wanted and node.op != "reduction":
            wanted.update(i.id for i in node.inputs)
    return [n for n in stage.nodes if n.id in wanted]
