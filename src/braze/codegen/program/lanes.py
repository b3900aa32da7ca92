"""How loops lie on vector lanes: the copies of a body, and the parts of a loop over lanes, with what is left
at its end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from braze.codegen.program.grammar import SCALAR, Along, Var
from braze.codegen.program.loop_plan import StagePlan
from braze.runtime.expr import Expr, ExprLike, Symbol, as_expr

__all__ = ["Copy", "Part", "parts_of"]


@dataclass
class Copy:
    """One copy of a loop body: how it lies on lanes, the lanes that exist (``mask``; None: all), and the
    values that its nodes have by now, by their numbers. ``shift``: what stands for a loop variable in this
    copy, where that is not the variable itself."""

    along: Along = SCALAR
    mask: Var | None = None
    values: dict[int, Var] = field(default_factory=dict)
    shift: dict[Symbol, ExprLike] | None = None

    @cached_property
    def lanes(self) -> int:
        """How many lanes it has."""
        return self.along.lanes

    @cached_property
    def number(self) -> int:
        """Which of the copies of a group it is."""
        return self.along.offset // self.along.lanes


class Part(NamedTuple):
    """A part of a loop over lanes: ``copies`` times ``lanes`` iterations at once, the last ones masked or
    not; ``runs``: it is not empty."""

    start: Expr
    stop: Expr
    copies: int
    lanes: int
    masked: bool
    runs: bool

    @property
    def step(self) -> int:
        """Iterations at once."""
        return self.copies * self.lanes


def parts_of(plan: StagePlan, start: Expr, stop: Expr, named: Callable[[Expr], Expr]) -> list[Part]:
    """The parts of ``start..stop``, along the vector variable of ``plan``: interleaved copies, then single
    vectors, then what is left. ``named`` gives a name to where one ends and the next begins."""
    low, high = start.constant, stop.constant
    if low is not None and high is not None:
        return _static_parts(plan, low, high)
    lanes, copies = plan.lanes, plan.unroll
    assert plan.vector is not None
    multiple = plan.vector.size.constant or 0
    group = lanes * copies
    if group == 1:
        return [Part(start, stop, 1, 1, False, False)]

    def exact(step: int) -> bool:
        return bool(multiple) and multiple % step == 0 and plan.block % step == 0

    if copies > 1 and exact(group):
        return [Part(start, stop, copies, lanes, False, False)]
    out: list[Part] = []
    at = start
    if copies > 1:
        middle = named(at + (stop - at) // group * group)
        out.append(Part(at, middle, copies, lanes, False, False))
        at = middle
    if lanes == 1 or plan.tail == "mask" or exact(lanes):
        return [*out, Part(at, stop, 1, lanes, lanes > 1 and not exact(lanes), False)]
    middle = named(at + (stop - at) // lanes * lanes)
    return [*out, Part(at, middle, 1, lanes, False, False), Part(middle, stop, 1, 1, False, False)]


def _static_parts(plan: StagePlan, low: int, high: int) -> list[Part]:
    out: list[Part] = []
    for copies, lanes, masked in (
        (plan.unroll, plan.lanes, False),
        (1, plan.lanes, False),
        (1, plan.lanes if plan.tail == "mask" else 1, plan.tail == "mask"),
    ):
        step = copies * lanes
        end = high if masked else low + (high - low) // step * step
        if end > low:
            out.append(Part(as_expr(low), as_expr(end), copies, lanes, masked, True))
            low = end
    return out
