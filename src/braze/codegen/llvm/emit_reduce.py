"""Reductions: accumulators in loops, strips, two-pass variance, and partial results of chunks.

A *row* reduction has a reduced variable on lanes: several vector accumulators, merged at the end in a fixed
order. A *column* reduction has a kept variable on lanes: one accumulator for each copy of the body, all
lanes independent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from braze.codegen.llvm.builder import Type, Value, constant
from braze.codegen.llvm.emit_convert import convert
from braze.codegen.llvm.emit_loops import LoopEmitter
from braze.codegen.llvm.emit_scope import Lanes
from braze.codegen.llvm.plan import StagePlan, feeds_reduction
from braze.codegen.llvm.reducers import Reducer, State, horizontal, make_reducer
from braze.ops.dag import Node
from braze.ops.kernel import Stage
from braze.runtime.expr import ZERO, Expr, Symbol, known_positive, product

__all__ = ["Reduction", "ReductionEmitter"]

Ranges = dict[Symbol, tuple[Value, Value]]
Update = Callable[[State, Sequence[Lanes], "int | None"], State]


@dataclass(frozen=True)
class Reduction:
    """The reduction nodes that share kind and operands: components of one result."""

    number: int
    reducer: Reducer
    args: tuple[Node, ...]
    nodes: tuple[Node, ...]
    rvars: tuple[Symbol, ...]


@dataclass(frozen=True)
class Accumulators:
    """The states of one reduction in one pass: ``lanes[k]`` lanes for state ``k``."""

    reduction: Reduction
    reducer: Reducer
    lanes: tuple[int, ...]
    update: Callable[[State, Sequence[Lanes], int], State]


class ReductionEmitter(LoopEmitter):
    """Emits the reduction loops of a stage."""

    stage: Stage
    plan: StagePlan
    reductions: list[Reduction]
    partial_prefix: str

    def find_users(self, stage: Stage) -> None:
        """Group the reduction nodes of ``stage``; note which nodes come after them only."""
        groups: dict[tuple[object, ...], list[Node]] = {}
        for node in stage.reductions:
            groups.setdefault((node.attrs[0], node.args), []).append(node)
        self.reductions = []
        for number, ((kind, args), nodes) in enumerate(groups.items()):
            assert isinstance(kind, str) and isinstance(args, tuple)
            rvars = nodes[0].attrs[2]
            assert isinstance(rvars, tuple)
            ordered = kind in ("argmax", "argmin") and len(args) == 1 and self.plan.rloops == rvars
            elem = _position_elem(args, rvars)
            reducer = make_reducer(kind, args[0].dtype, self.extremum, elem, ordered)
            self.reductions.append(Reduction(number, reducer, args, tuple(nodes), rvars))
        self.after_reductions: frozenset[int] = frozenset()
        self.after_nodes: Sequence[Node] = stage.nodes
        if self.reductions:
            before = feeds_reduction(stage)
            self.after_reductions = frozenset(n.id for n in stage.nodes if n.id not in before)
            self.after_nodes = _above_reductions(stage)
        self.held_back = self.before_first() | self.after_reductions

    def before_first(self) -> frozenset[int]:
        """The memory accesses that a reduction needs, where its loops may be empty: they have to wait until
        it is known that they are not, since what an empty loop would read need not exist."""
        if all(known_positive(v.size) for v in self.stage.rvars) or not self.reductions:
            return frozenset()
        touching = ("load", "check_index", "check_nonzero", "check")
        feeding = feeds_reduction(self.stage)
        return frozenset(n.id for n in self.stage.nodes if n.op in touching and n.id in feeding)

    # -- a point of the kept variables --------------------------------------------------------------------
    def emit_reductions(self, ctxs: list[Lanes]) -> None:
        """Reduce at one point (a group of lanes) of the kept variables and remember the results."""
        self.prepare(ctxs)
        states = self.reduced(ctxs, {})
        self.remember_results(ctxs, states)

    def remember_results(self, ctxs: list[Lanes], states: list[list[State]]) -> None:
        """The components of the results become the values of the reduction nodes."""
        for red, per_copy in zip(self.reductions, states, strict=True):
            for node in red.nodes:
                component = node.attrs[1]
                assert isinstance(component, int)
                if red.reducer.kind in ("argmax", "argmin"):
                    component = 1
                    for state in per_copy:  # no value at all: position 0
                        missing = self.fb.icmp("eq", state[1], red.reducer.no_position)
                        state[1] = self.fb.sext(self.fb.select(missing, 0, state[1]), "i64")
                if self.varies_on(node, ctxs):
                    for ctx, state in zip(ctxs, per_copy, strict=True):
                        self.remember(ctx.values, node.id, state[component])
                else:
                    self.remember(self.values, node.id, per_copy[0][component])
                    self.remember(self.node_levels, node.id, self.level)

    def varies_on(self, node: Node, ctxs: Sequence[Lanes]) -> bool:
        """Whether a node differs between the lanes of ``ctxs``."""
        return self.varies(node, ctxs[0])

    def reduced(self, ctxs: list[Lanes], ranges: Ranges) -> list[list[State]]:
        """For each reduction its final states, one for each copy that differs (one scalar for a row)."""
        doubtful = [v for v in self.plan.rloops if v not in ranges and not known_positive(v.size)]
        if not doubtful:
            return self._reduced_some(ctxs, ranges)
        some: Value | None = None
        for v in doubtful:
            here = self.fb.icmp("sgt", self.scalar(v.size), 0)
            some = here if some is None else self.fb.and_(some, here)
        assert some is not None
        layout = self._final_lanes(ctxs)

        def full() -> list[Value]:
            with self.scope():
                return [v for red in self._reduced_some(ctxs, ranges) for state in red for v in state]

        def empty() -> list[Value]:
            return self._identities(layout)

        return self._unpack(self.fb.if_else(some, full, empty, "reduce"), layout)

    def _reduced_some(self, ctxs: list[Lanes], ranges: Ranges) -> list[list[State]]:
        """As ``reduced``, where no loop is empty."""
        waiting, self.held_back = self.held_back, self.after_reductions
        if waiting != self.held_back:
            self.prepare(ctxs)
        states = self._reduced(ctxs, ranges)
        self.held_back = waiting
        return states

    def _final_lanes(self, ctxs: list[Lanes]) -> list[tuple[Reducer, tuple[int, ...]]]:
        if self.plan.strategy == "row":
            return [(r.reducer, (1,)) for r in self.reductions]
        return self._strip_lanes(ctxs)

    def _strip_lanes(self, ctxs: list[Lanes]) -> list[tuple[Reducer, tuple[int, ...]]]:
        """The states that remain of each reduction after one strip."""
        out: list[tuple[Reducer, tuple[int, ...]]] = []
        for red in self.reductions:
            if self.plan.strategy != "row":
                copies = ctxs if self.varies_on(red.nodes[0], ctxs) else ctxs[:1]
                lanes = ctxs[0].lanes if self.varies_on(red.nodes[0], ctxs) else 1
                out.append((red.reducer, tuple([lanes] * len(copies))))
            elif red.reducer.kind == "welford":
                out.append((red.reducer, (1,)))
            else:
                out.append((red.reducer, self._row_lanes(1)))
        return out

    def _row_lanes(self, copies: int) -> tuple[int, ...]:
        """A row's accumulators: vectors, and a scalar one where the tail is scalar."""
        scalar_tail = self.plan.tail == "scalar" and self.plan.lanes > 1
        return (self.plan.lanes,) * copies + ((1,) if scalar_tail else ())

    def _identities(self, layout: list[tuple[Reducer, tuple[int, ...]]]) -> list[Value]:
        return [v for reducer, lanes in layout for n in lanes for v in reducer.identity(n)]

    def _unpack(self, flat: list[Value], layout: list[tuple[Reducer, tuple[int, ...]]]) -> list[list[State]]:
        out: list[list[State]] = []
        at = 0
        for reducer, lanes in layout:
            states = []
            for n in lanes:
                width = len(reducer.types(n))
                states.append(flat[at : at + width])
                at += width
            out.append(states)
        return out

    def _reduced(self, ctxs: list[Lanes], ranges: Ranges) -> list[list[State]]:
        strip = self.plan.strip
        if strip is None:
            return self._finish(self._strip_states(ctxs, self.plan.rloops, ranges))
        position = self.plan.rloops.index(strip.var)
        before, inside = self.plan.rloops[:position], self.plan.rloops[position:]
        layout = self._strip_lanes(ctxs)

        def leaf(inner_ctxs: list[Lanes], carried: list[Value]) -> list[Value]:
            fb = self.fb
            low, high = ranges.get(strip.var) or (self.i64(0), self.scalar(strip.var.size))
            with (
                fb.for_range(low, high, strip.length, carried, runs=True, label="strip") as loop,
                self.scope(),
            ):
                end = fb.integer_minmax("smin", fb.add(loop.index, strip.length), high)
                states = self._strip_states(ctxs, inside, {**ranges, strip.var: (loop.index, end)})
                totals = self._unpack(loop.carried, layout)
                loop.set_next(
                    *[
                        v
                        for (reducer, _), old, new in zip(layout, totals, states, strict=True)
                        for a, b in zip(old, new, strict=True)
                        for v in reducer.merge(fb, a, b)
                    ]
                )
            return loop.results

        flat = self.nest_carried(before, ranges, ctxs, self._identities(layout), leaf)
        return self._finish(self._unpack(flat, layout))

    def _finish(self, states: list[list[State]]) -> list[list[State]]:
        """A row's states merged into one scalar state for each reduction; a column's as they are."""
        if self.plan.strategy != "row":
            return states
        return [
            [self._to_scalar(red.reducer, per_copy)]
            for red, per_copy in zip(self.reductions, states, strict=True)
        ]

    def _to_scalar(self, reducer: Reducer, states: Sequence[State]) -> State:
        total: State | None = None
        for state in states:
            scalar = horizontal(self.fb, reducer, state)
            total = scalar if total is None else reducer.merge(self.fb, total, scalar)
        assert total is not None
        return total

    # -- one strip ----------------------------------------------------------------------------------------
    def _strip_states(self, ctxs: list[Lanes], loops: Sequence[Symbol], ranges: Ranges) -> list[list[State]]:
        """Reduce over ``loops``: a first pass for everything (sums, for a variance), a second one for
        squares."""
        first = [self._first_accumulators(red, ctxs) for red in self.reductions]
        states = self._run_pass(first, ctxs, loops, ranges)
        if all(red.reducer.kind != "welford" for red in self.reductions):
            return states
        count = self._iterations(loops, ranges)
        means: dict[int, list[Value]] = {}
        for red, per_copy in zip(self.reductions, states, strict=True):
            if red.reducer.kind == "welford":
                n = convert(self.fb, count, torch.int64, red.reducer.dtype)
                sums = [s[0] for s in per_copy]
                means[red.number] = [self.fb.fdiv(s, self.fb.splat(n, s.type.lanes)) for s in sums]
        second = [
            self._square_accumulators(r, ctxs, means[r.number]) for r in self.reductions if r.number in means
        ]
        squares = iter(self._run_pass(second, ctxs, loops, ranges))
        out: list[list[State]] = []
        for red, per_copy in zip(self.reductions, states, strict=True):
            if red.number not in means:
                out.append(per_copy)
                continue
            n = convert(self.fb, count, torch.int64, red.reducer.dtype)
            out.append(
                [
                    [mean, m2[0], self.fb.splat(n, mean.type.lanes)]
                    for mean, m2 in zip(means[red.number], next(squares), strict=True)
                ]
            )
        return out

    def _iterations(self, loops: Sequence[Symbol], ranges: Ranges) -> Value:
        total = self.scalar(product(v.size for v in loops if v not in ranges))
        for v in loops:
            if v in ranges:
                low, high = ranges[v]
                total = self.fb.mul(total, self.fb.sub(high, low))
        return total

    def _first_accumulators(self, red: Reduction, ctxs: list[Lanes]) -> Accumulators:
        reducer = red.reducer
        if reducer.kind == "welford":
            reducer = make_reducer("sum", reducer.dtype, self.extremum)

        def update(state: State, group: Sequence[Lanes], lanes: int) -> State:
            values = [self._operands(red, ctx, lanes) for ctx in group]
            mask = group[0].mask if self.plan.strategy == "row" and lanes > 1 else None
            return reducer.update(self.fb, state, values, mask)

        return Accumulators(red, reducer, self._pass_lanes(red, reducer, ctxs), update)

    def _square_accumulators(self, red: Reduction, ctxs: list[Lanes], means: list[Value]) -> Accumulators:
        reducer = make_reducer("sum", red.reducer.dtype, self.extremum)
        spread = {(k, m.type.lanes): m for k, m in enumerate(means)}
        if self.plan.strategy == "row" and self.plan.lanes > 1:
            spread[0, self.plan.lanes] = self.fb.splat(means[0], self.plan.lanes)

        def update(state: State, group: Sequence[Lanes], lanes: int) -> State:
            fb = self.fb
            total = state[0]
            for ctx in group:
                copy = (
                    0 if self.plan.strategy == "row" or len(means) == 1 else ctx.offset // max(ctx.lanes, 1)
                )
                delta = fb.fsub(self._operands(red, ctx, lanes)[0], spread[copy, lanes])
                new = fb.fma(delta, delta, total)
                masked = ctx.mask is not None and self.plan.strategy == "row" and lanes > 1
                total = fb.select(ctx.mask, new, total) if masked and ctx.mask is not None else new
            return [total]

        return Accumulators(red, reducer, self._pass_lanes(red, reducer, ctxs), update)

    def _pass_lanes(self, red: Reduction, reducer: Reducer, ctxs: list[Lanes]) -> tuple[int, ...]:
        if self.plan.strategy == "row":
            return self._row_lanes(self.plan.unroll if reducer.copies else 1)
        if self.varies_on(red.nodes[0], ctxs):
            return tuple(ctx.lanes for ctx in ctxs)
        return (1,)

    def _operands(self, red: Reduction, ctx: Lanes, lanes: int) -> list[Value]:
        def operand(node: Node) -> Value:
            return self.vector(node, ctx) if lanes > 1 else self.get(node, ctx)

        values = [operand(red.args[0])]
        if red.reducer.kind in ("argmax", "argmin"):
            values.append(operand(red.args[1]) if len(red.args) > 1 else self._position(red, ctx, lanes))
        return values

    def _position(self, red: Reduction, ctx: Lanes, lanes: int) -> Value:
        """The position along the flattened reduction variables."""
        flat = _flat_position(red.rvars)
        elem = red.reducer.position
        if lanes > 1 or self.expr_varies(flat, ctx):
            return self.lanes_of(flat, ctx, elem)
        return self.fb.trunc(self.scalar(flat), elem)

    def _run_pass(
        self, accumulators: list[Accumulators], ctxs: list[Lanes], loops: Sequence[Symbol], ranges: Ranges
    ) -> list[list[State]]:
        """One pass over ``loops``; a row's copies come back merged into one vector state (and a scalar
        one), or, for the sums of a variance, into one scalar."""
        layout = [(a.reducer, a.lanes) for a in accumulators]

        def leaf(inner: list[Lanes], carried: list[Value]) -> list[Value]:
            out: list[Value] = []
            for acc, states in zip(accumulators, self._unpack(carried, layout), strict=True):
                for state in self._leaf_states(acc, states, inner):
                    out += state
            return out

        flat = self.nest_carried(loops, ranges, ctxs, self._identities(layout), leaf)
        out: list[list[State]] = []
        for acc, states in zip(accumulators, self._unpack(flat, layout), strict=True):
            if self.plan.strategy != "row":
                out.append(states)
                continue
            merged = self._merge_copies(acc, states)
            out.append([self._to_scalar(acc.reducer, merged)] if self._is_variance(acc) else merged)
        return out

    def _is_variance(self, acc: Accumulators) -> bool:
        return acc.reduction.reducer.kind == "welford"

    def _merge_copies(self, acc: Accumulators, states: list[State]) -> list[State]:
        count = len(acc.lanes) - (1 if len(acc.lanes) > 1 and acc.lanes[-1] != acc.lanes[0] else 0)
        vectors, scalars = states[:count], states[count:]
        while len(vectors) > 1:
            half = len(vectors) // 2
            vectors = [
                acc.reducer.merge(self.fb, a, b) for a, b in zip(vectors[:half], vectors[half:], strict=True)
            ]
        return vectors + scalars

    def _leaf_states(self, acc: Accumulators, states: list[State], ctxs: list[Lanes]) -> list[State]:
        if self.plan.strategy != "row":
            out = []
            for k, state in enumerate(states):
                out.append(acc.update(state, ctxs[k : k + 1], acc.lanes[k]))
            return out
        states = list(states)
        if ctxs[0].lanes < self.plan.lanes:  # the scalar tail has a state of its own, the last
            states[-1] = acc.update(states[-1], ctxs, 1)
        elif not acc.reducer.copies:
            states[0] = acc.update(states[0], ctxs, self.plan.lanes)
        else:
            for k, ctx in enumerate(ctxs):
                states[k] = acc.update(states[k], [ctx], self.plan.lanes)
        return states

    def nest_carried(
        self,
        loops: Sequence[Symbol],
        ranges: Ranges,
        ctxs: list[Lanes],
        carried: list[Value],
        leaf: Callable[[list[Lanes], list[Value]], list[Value]],
    ) -> list[Value]:
        """Loops that carry values, none of them empty; the vector variable of a row comes last."""
        if not loops:
            return leaf(ctxs, carried)
        var, rest = loops[0], loops[1:]
        low, high = ranges.get(var) or (self.i64(0), self.scalar(var.size))
        if self.plan.strategy == "row" and var == self.plan.vector:
            self.prepare_splats(var, self.plan.lanes)

            def body(inner: list[Lanes], values: list[Value]) -> list[Value]:
                self.prepare(inner)
                return leaf(inner, values)

            for segment in self.lane_segments(self.plan, low, high):
                carried = self.lane_loop(var, segment, carried, body)
            return carried
        fb = self.fb
        with (
            fb.for_range(low, high, 1, carried, runs=True, label=var.name) as loop,
            self.bind(var, loop.index),
        ):
            self.prepare(ctxs)
            loop.set_next(*self.nest_carried(rest, ranges, ctxs, loop.carried, leaf))
        return loop.results

    def prepare_splats(self, var: Symbol, lanes: int) -> None:
        """Spread uniform operands before a loop over lanes."""
        raise NotImplementedError

    # -- partial results of chunks ------------------------------------------------------------------------
    def partial_name(self, red: Reduction, component: int) -> str:
        """The name under which a component's partial results are addressed."""
        return f"{self.partial_prefix}.{red.number}.{component}"

    def partial_index(self, red: Reduction, chunk: Expr) -> Expr:
        """Where the partial result of ``chunk`` lies, for the current point of the kept variables."""
        flat = chunk
        kept = list(self.plan.loops)
        if self.plan.strategy != "row" and self.plan.vector is not None:
            kept.append(self.plan.vector)
        for v in kept:
            flat = flat * v.size + v.expr
        return flat

    def store_partials(self, ctxs: list[Lanes], chunk: Expr, states: list[list[State]]) -> None:
        """Write the states of one chunk."""
        for red, per_copy in zip(self.reductions, states, strict=True):
            at = self.partial_index(red, chunk)
            for k, ctx in enumerate(ctxs):
                state = per_copy[min(k, len(per_copy) - 1)]
                for component, value in enumerate(state):
                    memory = self.to_memory(
                        self.fb.splat(value, ctx.lanes) if value.type.lanes == 1 and ctx.lanes > 1 else value
                    )
                    self.store(self.partial_name(red, component), at, memory, None, ctx)

    def merge_partials(self, ctxs: list[Lanes], chunk: Symbol, count: Value) -> list[list[State]]:
        """Merge the states of all chunks, in order, at the current point."""
        layout = self._final_lanes(ctxs)
        with (
            self.fb.for_range(
                self.i64(0), count, 1, self._identities(layout), runs=_is_positive(count), label="chunk"
            ) as loop,
            self.bind(chunk, loop.index),
        ):
            totals = self._unpack(loop.carried, layout)
            out: list[Value] = []
            for red, (reducer, lanes), states in zip(self.reductions, layout, totals, strict=True):
                at = self.partial_index(red, chunk.expr)
                for k, state in enumerate(states):
                    part = [
                        self._load_partial(self.partial_name(red, c), at, ctxs[k], type)
                        for c, type in enumerate(reducer.types(lanes[k]))
                    ]
                    out += reducer.merge(self.fb, state, part)
            loop.set_next(*out)
        return self._unpack(loop.results, layout)

    def _load_partial(self, name: str, at: Expr, ctx: Lanes, type: Type) -> Value:
        if type.lanes < ctx.lanes:  # all lanes have the same result
            value = self.fb.load(self.pointer(name, at), Type(self.memory_elem(name)))
        else:
            value = self.load(name, at, None, ctx, varies=ctx.var is not None)
        if type.elem == "i1":
            value = self.fb.icmp("ne", value, constant(value.type, 0))
        return value


def _flat_position(rvars: Sequence[Symbol]) -> Expr:
    """The position along the flattened variables."""
    flat = ZERO
    for v in rvars:
        flat = flat * v.size + v.expr
    return flat


def _position_elem(args: Sequence[Node], rvars: Sequence[Symbol]) -> str:
    """Positions fit into 32 bits where their bounds say so; those that a node computes are int64."""
    highest = _flat_position(rvars).bounds()[1]
    return "i32" if len(args) == 1 and highest is not None and highest < 2**31 - 1 else "i64"


def _above_reductions(stage: Stage) -> list[Node]:
    """What the stores need besides the reductions' results, inputs before users."""
    wanted = {n.id for n in stage.roots}
    for node in reversed(stage.nodes):
        if node.id in wanted and node.op != "reduction":
            wanted.update(i.id for i in node.inputs)
    return [n for n in stage.nodes if n.id in wanted]


def _is_positive(value: Value) -> bool:
    return value.text.isdigit() and value.text != "0"
