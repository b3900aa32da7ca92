"""The guards that compiling a graph adds to its trace: found after a compile, evaluated and installed again
where the artefact of that compile is used by another trace."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import sympy

from braze._torch import shape_envs
from braze._torch.shape_envs import ShapeEnv
from braze.errors import ExpressionError
from braze.runtime.expr_parser import parse_condition
from braze.runtime.guard import BoolExpr
from braze.symbolic.from_sympy import SymbolTable, condition_from_sympy, condition_to_sympy

__all__ = ["GuardWatch", "from_text", "hold", "install", "to_text", "unsaid"]


class GuardWatch:
    """Watches a trace from now on; None is one without symbols."""

    def __init__(self, env: ShapeEnv | None) -> None:
        self._env = env
        self._since = 0 if env is None else shape_envs.mark_guards(env)
        # a guard narrows its symbols' ranges: by those of later it would seem to say nothing
        self._symbols = SymbolTable.of_trace(env)

    def added(self) -> tuple[BoolExpr, ...]:
        """The guards that were added. Raises ``ExpressionError`` for one that the integer grammar has no
        words for."""
        env = self._env
        if env is None:
            return ()
        found = [condition_from_sympy(g, self._symbols) for g in shape_envs.guards_added(env, self._since)]
        return tuple(dict.fromkeys(g for g in found if g.constant is not True))

    def assumed(self, converted: Callable[[Any, Any], BoolExpr]) -> tuple[BoolExpr, ...]:
        """Everything that the trace assumes of its sizes by now: ``converted`` makes a condition of a sympy
        boolean and its ShapeEnv. What the integer grammar has no words for is left out; see `unsaid`."""
        env = self._env
        found: dict[BoolExpr, None] = {}
        for condition in [] if env is None else shape_envs.conditions_of(env, env.var_to_range):
            try:
                found[converted(condition, env)] = None
            except ExpressionError:
                continue  # the guards of whoever traced it see to it
        return tuple([c for c in found if c.constant is not True])


def unsaid(env: ShapeEnv | None, names: Mapping[str, str]) -> list[str]:
    """What a trace assumes of sizes, and the integer grammar has no words for; symbols are written by
    ``names``."""
    symbols = SymbolTable.of_trace(env)
    found: list[str] = []
    for condition in [] if env is None else shape_envs.conditions_of(env, env.var_to_range):
        try:
            condition_from_sympy(condition, symbols)
        except ExpressionError:
            written = {s: sympy.Symbol(names.get(s.name, s.name)) for s in condition.free_symbols}
            found.append(str(condition.xreplace(written)))
    return found


def hold(guards: Sequence[BoolExpr], env: ShapeEnv | None) -> bool:
    """Whether the guards hold for the sizes that a graph was traced with. Guards over symbols that this trace
    does not have, or whose value it does not know, do not."""
    if env is None or not guards:
        return not guards
    sizes: dict[str, int] = {}
    for symbol in shape_envs.symbols_by_name(env).values():
        value = shape_envs.facts_of(env, symbol).hint
        if isinstance(value, int):
            sizes[symbol.name] = value
    try:
        return all(guard.evaluate(sizes) for guard in guards)
    except KeyError:
        return False


def install(guards: Sequence[BoolExpr], env: ShapeEnv | None) -> bool:
    """Make ``guards`` guards of a trace. False where one does not hold there."""
    if env is None:
        return not guards
    names = shape_envs.symbols_by_name(env) if guards else {}
    return all(shape_envs.install_guard(env, condition_to_sympy(g, names)) for g in guards)


def to_text(guards: Sequence[BoolExpr], names: Mapping[str, str]) -> str:
    """Guards as the cache keeps them, one on each line, over other names of the symbols."""
    return "\n".join(str(guard.renamed(names)) for guard in guards)


def from_text(text: str, names: Mapping[str, str], env: ShapeEnv | None) -> tuple[BoolExpr, ...]:
    """The guards that `to_text` wrote with the same ``names`` (this trace's to the cache's), over the trace's
    own symbols. Raises ``ValueError`` for a text that is none."""
    own = SymbolTable.of_trace(env)
    symbols = {kept: own[name] for name, kept in names.items() if name in own}
    return tuple(parse_condition(line, symbols) for line in text.splitlines())
