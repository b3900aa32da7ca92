"""The kinds of reduction as small algebras: identity, update by one value for each lane, and merging two
states.

A state is a list of values with one number of lanes, scalars included; the same code runs on lanes, merges
lanes with each other, and merges the partial results of threads.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from braze.codegen.llvm.builder import FunctionBuilder, Type, Value, constant
from braze.codegen.llvm.emit_convert import register_type
from braze.codegen.llvm.math_ops import emit_math
from braze.errors import CodegenError
from braze.ops.dtypes import integer_limits, is_float

__all__ = ["Reducer", "State", "horizontal", "make_reducer"]

State = list[Value]
Extremum = Callable[[bool, Value, Value, torch.dtype], Value]


@dataclass(frozen=True)
class Reducer:
    """One kind of reduction of one element type.

    ``copies``: whether unrolled copies keep states of their own; otherwise ``update`` takes all their values
    together. ``position``: the integer type of positions;
    ``ordered``: updates of a lane come in the order of their positions.
    """

    kind: str
    dtype: torch.dtype
    extremum: Extremum
    copies: bool = True
    position: str = "i64"
    ordered: bool = False

    def types(self, lanes: int) -> list[Type]:
        """The types of a state's values."""
        value = register_type(self.dtype, lanes)
        if self.kind in ("argmax", "argmin"):
            return [value, Type(self.position, lanes)]
        if self.kind == "online_softmax":
            return [value, value]
        if self.kind == "welford":
            return [value, value, value]
        return [value]

    def identity(self, lanes: int) -> State:
        """The state of no values."""
        types = self.types(lanes)
        if self.kind in ("argmax", "argmin"):
            least = self.kind == "argmin"
            return [constant(types[0], self._worst(least)), constant(types[1], self.no_position)]
        if self.kind == "online_softmax":
            return [constant(types[0], -math.inf), constant(types[1], 0.0)]
        start: float = {"sum": 0, "xor_sum": 0, "any": 0, "welford": 0, "prod": 1, "all": 1}.get(self.kind, 0)
        if self.kind in ("max", "min"):
            start = self._worst(self.kind == "min")
        return [constant(t, start) for t in types]

    @property
    def no_position(self) -> int:
        """The position in a state of no values: behind all others."""
        return 2**31 - 1 if self.position == "i32" else 2**63 - 1

    def _worst(self, least: bool) -> float:
        if is_float(self.dtype):
            return math.inf if least else -math.inf
        low, high = integer_limits(self.dtype)
        return high if least else low

    def update(
        self, fb: FunctionBuilder, state: State, values: Sequence[Sequence[Value]], mask: Value | None
    ) -> State:
        """The state with one more value (or one of each copy) in each lane where ``mask`` holds."""
        if self.kind == "online_softmax":
            new = self._softmax_update(fb, state, [v[0] for v in values], mask)
            return new
        new = state
        for value in values:
            if self.ordered:
                new = self._later(fb, new, list(value))
            else:
                new = self._merge(fb, new, list(value))
        return new if mask is None else [fb.select(mask, n, o) for n, o in zip(new, state, strict=True)]

    def merge(self, fb: FunctionBuilder, a: State, b: State) -> State:
        """Both states' values together, a's first."""
        if self.kind == "online_softmax":
            return self._softmax_merge(fb, a, b)
        if self.kind == "welford":
            return _welford_merge(fb, a, b)
        return self._merge(fb, a, b)

    def _merge(self, fb: FunctionBuilder, a: State, b: State) -> State:
        kind = self.kind
        floating = is_float(self.dtype)
        if kind == "sum":
            return [fb.fadd(a[0], b[0]) if floating else fb.add(a[0], b[0])]
        if kind == "prod":
            return [fb.fmul(a[0], b[0]) if floating else fb.mul(a[0], b[0])]
        if kind == "xor_sum":
            return [fb.xor(a[0], b[0])]
        if kind == "any":
            return [fb.or_(a[0], b[0])]
        if kind == "all":
            return [fb.and_(a[0], b[0])]
        if kind in ("max", "min"):
            return [self.extremum(kind == "min", a[0], b[0], self.dtype)]
        if kind in ("argmax", "argmin"):
            return self._position_merge(fb, a, b)
        raise CodegenError(f"no machine code for reduction {kind}", node=kind)

    def _later(self, fb: FunctionBuilder, a: State, b: State) -> State:
        """``b``, whose position is the greater one, where its value is better, or the first NaN."""
        least = self.kind == "argmin"
        if is_float(self.dtype):
            take = fb.and_(fb.fcmp("ult" if least else "ugt", b[0], a[0]), fb.fcmp("ord", a[0], a[0]))
        else:
            sign = "u" if self.dtype in (torch.uint8, torch.bool) else "s"
            take = fb.icmp(sign + ("lt" if least else "gt"), b[0], a[0])
        return [fb.select(take, b[0], a[0]), fb.select(take, b[1], a[1])]

    def _position_merge(self, fb: FunctionBuilder, a: State, b: State) -> State:
        """The better value, NaN best of all; the lower position where neither is better."""
        least = self.kind == "argmin"
        earlier = fb.icmp("slt", b[1], a[1])
        if is_float(self.dtype):
            better = fb.fcmp("olt" if least else "ogt", b[0], a[0])
            a_nan, b_nan = fb.fcmp("uno", a[0], a[0]), fb.fcmp("uno", b[0], b[0])
            better = fb.or_(better, fb.and_(b_nan, fb.not_(a_nan)))
            same = fb.or_(fb.fcmp("oeq", a[0], b[0]), fb.and_(a_nan, b_nan))
        else:
            sign = "u" if self.dtype in (torch.uint8, torch.bool) else "s"
            better = fb.icmp(sign + ("lt" if least else "gt"), b[0], a[0])
            same = fb.icmp("eq", a[0], b[0])
        take = fb.or_(better, fb.and_(same, earlier))
        return [fb.select(take, b[0], a[0]), fb.select(take, b[1], a[1])]

    # -- online softmax: (maximum, sum of exp(x - maximum)) ----------------------------------------------
    def _finite(self, fb: FunctionBuilder, maximum: Value) -> Value:
        """What to subtract: 0 for a maximum of -inf, so that exp sees -inf and not NaN."""
        return fb.select(fb.fcmp("oeq", maximum, -math.inf), 0.0, maximum)

    def _softmax_update(
        self, fb: FunctionBuilder, state: State, values: Sequence[Value], mask: Value | None
    ) -> State:
        maximum, total = state
        if mask is not None:
            values = [fb.select(mask, v, -math.inf) for v in values]
        tops = list(values)
        while len(tops) > 1:
            pairs = [
                self.extremum(False, a, b, self.dtype) for a, b in zip(tops[::2], tops[1::2], strict=False)
            ]
            tops = pairs + (tops[-1:] if len(tops) % 2 else [])
        top = self.extremum(False, maximum, tops[0], self.dtype)
        shift = self._finite(fb, top)
        terms = [emit_math(fb, "exp", [fb.fsub(v, shift)]) for v in values]
        while len(terms) > 1:
            sums = [fb.fadd(a, b) for a, b in zip(terms[::2], terms[1::2], strict=False)]
            terms = sums + (terms[-1:] if len(terms) % 2 else [])
        scale = emit_math(fb, "exp", [fb.fsub(maximum, shift)])
        return [top, fb.fma(total, scale, terms[0])]

    def _softmax_merge(self, fb: FunctionBuilder, a: State, b: State) -> State:
        top = self.extremum(False, a[0], b[0], self.dtype)
        return [top, fb.fadd(self.rescaled(fb, a, top), self.rescaled(fb, b, top))]

    def rescaled(self, fb: FunctionBuilder, state: State, top: Value) -> Value:
        """The sum of a state relative to a maximum that is at least its own."""
        return fb.fmul(state[1], emit_math(fb, "exp", [fb.fsub(state[0], self._finite(fb, top))]))


def _welford_merge(fb: FunctionBuilder, a: State, b: State) -> State:
    """Chan, Golub, LeVeque: Algorithms for computing the sample variance (1983). States (mean, m2, count);
    a count of 0 on either side leaves the other's state."""
    count = fb.fadd(a[2], b[2])
    some = fb.select(fb.fcmp("oeq", count, 0.0), 1.0, count)
    weight = fb.fdiv(b[2], some)
    delta = fb.fsub(b[0], a[0])
    mean = fb.fma(delta, weight, a[0])
    m2 = fb.fma(fb.fmul(delta, delta), fb.fmul(a[2], weight), fb.fadd(a[1], b[1]))
    empty = fb.fcmp("oeq", a[2], 0.0)  # then inf - 0 must not make a NaN of the mean
    return [fb.select(empty, b[0], mean), fb.select(empty, b[1], m2), count]


def horizontal(fb: FunctionBuilder, reducer: Reducer, state: State) -> State:
    """The lanes of a state merged into a scalar state: upper half onto lower half, again and again."""
    lanes = state[0].type.lanes
    if reducer.kind == "online_softmax" and lanes > 1:
        (top,) = horizontal(fb, make_reducer("max", reducer.dtype, reducer.extremum), state[:1])
        scaled = reducer.rescaled(fb, state, fb.splat(top, lanes))
        return [top, fb.reduce("fadd", scaled)]
    while lanes > 1:
        lanes //= 2
        low = [fb.slice(v, 0, lanes) for v in state]
        high = [fb.slice(v, lanes, lanes) for v in state]
        state = reducer.merge(fb, low, high)
    return state


def make_reducer(
    kind: str, dtype: torch.dtype, extremum: Extremum, position: str = "i64", ordered: bool = False
) -> Reducer:
    """The reducer of a kind for operands of ``dtype``."""
    return Reducer(kind, dtype, extremum, kind != "online_softmax", position, ordered)
