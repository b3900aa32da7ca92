"""Steps of an index from lane to lane.

An index is *linear* along lanes where neighbouring lanes differ by one uniform step: then lane 0 and the step
are all that memory access needs. ``i // k`` and ``i % k`` stay linear where a block of lanes never crosses a
multiple of ``k``.
"""

from __future__ import annotations

from braze.codegen.program.grammar import ValueSymbol
from braze.ops.dag import IndirectSymbol
from braze.runtime.expr import ONE, ZERO, Atom, Expr, FloorDiv, Mod, Symbol, as_expr

__all__ = ["fits_32", "lane_step", "varies"]

_INT32 = 2**31 - 1


def fits_32(e: Expr) -> bool:
    """Whether the value, and every operand of a division in it, lies in the range of int32."""
    lo, hi = e.bounds()
    if lo is None or hi is None or lo < -_INT32 or hi > _INT32:
        return False
    return all(fits_32(part) for atom in e.atoms() for part in atom.parts)


def varies(s: Symbol, var: Symbol) -> bool:
    """Whether a symbol differs between lanes on which ``var`` lies."""
    if isinstance(s, ValueSymbol):
        return s.var.lanes > 1
    if isinstance(s, IndirectSymbol):
        return var in s.node.free
    return s == var


def lane_step(e: Expr, var: Symbol, group: int) -> Expr | None:
    """How much ``e`` grows from one value of ``var`` to the next; None where that is not the same
    throughout a group.

    A group are the values of ``var`` from a multiple of ``group`` up to the next one.
    """
    total = ZERO
    for mono, c in e.terms:
        step: Expr | None = None
        for position, atom in enumerate(mono):
            s = _atom_step(atom, var, group)
            if s is None or (step is not None and s.terms):
                return None
            if s.terms:
                step = Expr(((mono[:position] + mono[position + 1 :], c),)) * s
        if step is not None:
            total = total + step
    return total


def _atom_step(atom: Atom, var: Symbol, group: int) -> Expr | None:
    if isinstance(atom, Symbol):
        if isinstance(atom, IndirectSymbol | ValueSymbol):
            return None if varies(atom, var) else ZERO
        return ONE if atom == var else ZERO
    steps = [lane_step(p, var, group) for p in atom.parts]
    if any(s is None for s in steps):
        return None
    if all(not s.terms for s in steps if s is not None):
        return ZERO
    if not isinstance(atom, FloorDiv | Mod) or group == 1:
        return ONE if group == 1 else None  # a group of one: any step will do, it is never taken
    assert steps[0] is not None
    step, den = steps[0].constant, atom.den.constant
    if step is None or den is None or step <= 0:
        return None
    block = step * group
    for mono, c in atom.num.terms:
        c = c if mono != (var,) else c // step * block
        if c % block:
            return None
    if den % block:
        return None
    return ZERO if isinstance(atom, FloorDiv) else as_expr(step)
