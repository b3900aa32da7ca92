"""A trace's symbols and conditions taken apart into plain facts, and a ShapeEnv made of such facts."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, cast

import sympy
import torch
from torch.fx.experimental import sym_node
from torch.fx.experimental import symbolic_shapes as shapes
from torch.fx.experimental.symbolic_shapes import RuntimeAssert, ShapeEnv, ValueRangesSLoc
from torch.utils._sympy.functions import Mod
from torch.utils._sympy.numbers import int_oo
from torch.utils._sympy.value_ranges import ValueRanges
from torch.utils._traceback import CapturedTraceback

__all__ = [
    "ShapeEnv",
    "SymbolFacts",
    "assume",
    "conditions_of",
    "facts_of",
    "guards_added",
    "install_guard",
    "mark_guards",
    "new_shape_env",
    "raw_expression",
    "suppressed_guards",
    "symbolic",
    "symbols_by_name",
    "values_in_trace",
    "whole_number",
]

# these are not typed, or not exported
SymNode: Any = sym_node.SymNode
_shapes: Any = shapes
_stack: Any = CapturedTraceback
_UNBACKED = re.compile(r"(u|zuf)(\d+)")


@dataclass(frozen=True)
class SymbolFacts:
    """What is known of a symbol. Bounds are inclusive, None where there is none; a symbol of a float has no
    bounds. `hint`: its value in the trace, None for one that depends on data. `positive`: sympy is told so
    (for sizes); `size_like`: it is the size of a tensor, which tests may take to be neither 0 nor 1."""

    name: str
    lower: int | None = None
    upper: int | None = None
    hint: int | float | None = None
    is_float: bool = False
    positive: bool = False
    size_like: bool = False

    @property
    def is_positive_by_name(self) -> bool:
        """What `positive` is for all but a few: sizes of inputs are positive, other symbols may not be."""
        return self.name.startswith("s") and self.lower is not None and self.lower > 0


def facts_of(env: ShapeEnv, symbol: sympy.Symbol) -> SymbolFacts:
    """What a trace knows of one of its symbols."""
    known = env.var_to_range.get(symbol)
    is_float = not symbol.is_integer
    lower = upper = None
    if known is not None and not is_float:
        # sympy has infinities of its own, and PyTorch adds one for integers: none of them is an Integer
        lower = int(known.lower) if known.lower.is_Integer else None
        upper = int(known.upper) if known.upper.is_Integer else None
    value = values_in_trace(env).get(symbol)
    hint = float(value) if is_float and value is not None else whole_number(value)
    return SymbolFacts(
        symbol.name, lower, upper, hint, is_float, bool(symbol.is_positive), symbol in env.size_like
    )


def new_shape_env(facts: Iterable[SymbolFacts]) -> tuple[ShapeEnv, dict[str, sympy.Symbol]]:
    """A ShapeEnv that knows these symbols and nothing else, and the symbols by name. Those without a hint
    have to be named as PyTorch names data-dependent ones (`u0`, `zuf0`)."""
    env = ShapeEnv()
    symbols: dict[str, sympy.Symbol] = {}
    for fact in facts:
        assumptions: dict[str, bool] = {"positive": True} if fact.positive else {}
        if not fact.is_float:
            assumptions["integer"] = True
        elif fact.hint is not None:
            assumptions["real"] = True
        symbol = symbols[fact.name] = sympy.Symbol(fact.name, **assumptions)
        env.var_to_range[symbol] = (
            ValueRanges.unknown() if fact.is_float else ValueRanges(*_bounds(fact.lower, fact.upper))
        )
        here = env._get_sloc()
        env.var_to_range_sloc[symbol] = ValueRangesSLoc(here, here)
        env.var_to_stack[symbol] = _stack.extract()
        if fact.hint is not None:
            number = sympy.Float if fact.is_float else sympy.Integer
            values_in_trace(env)[symbol] = number(fact.hint)
        if fact.size_like:
            env.size_like.add(symbol)
        _count_unbacked(env, fact.name)
    env._update_version_counter()
    return env, symbols


def _bounds(lower: int | None, upper: int | None) -> tuple[Any, Any]:
    return -int_oo if lower is None else lower, int_oo if upper is None else upper


def values_in_trace(env: ShapeEnv) -> dict[sympy.Symbol, Any]:
    """What the symbols stood for in the trace; those that depend on data may be absent."""
    # its name in newer versions of PyTorch, and in older ones
    name = "backed_var_to_val" if "backed_var_to_val" in vars(env) else "var_to_val"
    return cast("dict[sympy.Symbol, Any]", vars(env)[name])


def whole_number(value: Any) -> int | None:
    """The integer that a symbol stood for; None for None, and for the ragged size of a nested tensor, which
    stands for no number."""
    return int(value) if isinstance(value, int) or getattr(value, "is_Integer", False) else None


def _count_unbacked(env: ShapeEnv, name: str) -> None:
    """The next data-dependent symbol that the ShapeEnv makes must have another name."""
    found = _UNBACKED.fullmatch(name)
    if found is not None:
        counter = "unbacked_symint_counter" if found[1] == "u" else "unbacked_symfloat_counter"
        setattr(env, counter, max(getattr(env, counter), int(found[2]) + 1))


def raw_expression(value: torch.SymInt | torch.SymFloat | torch.SymBool) -> Any:
    """A symbolic value's sympy expression, or plain number, with known equalities put in but not simplified.
    Raises ValueError for one that belongs to no ShapeEnv (the ragged size of a nested tensor)."""
    node = value.node
    if not isinstance(node, SymNode) or node.shape_env is None:
        raise ValueError(f"{value} is a symbolic number of another kind ({type(node).__name__})")
    return node.expr


def symbolic(env: ShapeEnv, expression: sympy.Basic, kind: type) -> Any:
    """The symbolic value of an expression, of kind `int`, `float` or `bool`; its hint follows from those of
    the symbols."""
    wrap: Any = {int: torch.SymInt, float: torch.SymFloat, bool: torch.SymBool}[kind]
    return wrap(SymNode(expression, env, kind, None))


def conditions_of(env: ShapeEnv, symbols: Iterable[sympy.Symbol]) -> list[sympy.Basic]:
    """What the trace has assumed so far of these symbols and no others: guards first, then what is checked
    at run time, each without those that known equalities make trivial."""
    among = set(symbols)
    found: dict[sympy.Basic, None] = {}
    if among:
        for expression in (*(g.expr for g in env.guards), *(a.expr for a in _asserts(env))):
            known = env.replace(expression)
            if known.free_symbols and known.free_symbols <= among:
                found[known] = None
    return list(found)


def _asserts(env: ShapeEnv) -> list[RuntimeAssert]:
    return [a for for_symbol in env.deferred_runtime_asserts.values() for a in for_symbol]


def assume(env: ShapeEnv, condition: sympy.Basic) -> None:
    """Take a condition for granted: what another trace had found, as `conditions_of` gives it. Ranges and
    replacements are facts of their own, and stay as they are."""
    unbacked = sorted(
        (s for s in condition.free_symbols if _UNBACKED.fullmatch(s.name)),
        key=lambda s: (int(_UNBACKED.fullmatch(s.name)[2]), s.name),  # type: ignore[index]
    )
    if unbacked:
        # found there for the symbol that was made last
        kept = env.deferred_runtime_asserts.setdefault(unbacked[-1], [])
        kept.append(RuntimeAssert(condition, "", _stack.extract(skip=1)))
        env.num_deferred_runtime_asserts += 1
    else:
        env.guards.append(_shapes.ShapeGuard(condition, env._get_sloc(), False))
    if isinstance(condition, sympy.Eq) and condition.rhs == 0 and isinstance(condition.lhs, Mod):
        env.divisible.add(condition.lhs)
    env.axioms.update(dict(env.get_implications(env.simplify(condition))))
    env._update_version_counter()


def suppressed_guards(env: ShapeEnv) -> AbstractContextManager[Any]:
    """Inside this block the ShapeEnv decides by hints and records nothing."""
    return env.suppress_guards()


def mark_guards(env: ShapeEnv) -> int:
    """This moment, for `guards_added`."""
    return len(env.guards)


def guards_added(env: ShapeEnv, since: int) -> list[Any]:
    """The guards that a ShapeEnv recorded since a moment, oldest first: sympy booleans over its symbols."""
    return [g.expr for g in env.guards[since:]]


def symbols_by_name(env: ShapeEnv) -> dict[str, sympy.Symbol]:
    """The symbols of a ShapeEnv. (One of a program that was stored has ranges of expressions, too.)"""
    return {symbol.name: symbol for symbol in env.var_to_range if isinstance(symbol, sympy.Symbol)}


def install_guard(env: ShapeEnv, condition: sympy.Basic) -> bool:
    """Make a condition over the ShapeEnv's own symbols a guard of the trace. False, and no use, where it does
    not hold for the sizes of this trace. Raises what PyTorch raises where it depends on data."""
    return bool(env.evaluate_expr(condition))
