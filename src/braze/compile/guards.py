"""The guards that compiling a graph adds to its trace: found after a compile, evaluated and installed again
where the artefact of that compile is used by another trace."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import sympy

from braze._torch import shape_envs, shapes
from braze.errors import ExpressionError
from braze.runtime.expr import Symbol
from braze.runtime.guard import BoolExpr, parse_guard
from braze.symbolic.from_sympy import SymbolTable, condition_to_sympy, to_guard

__all__ = ["GuardWatch", "from_text", "hold", "install", "to_text", "unsaid"]


class GuardWatch:
    """Watches the trace that made ``inputs`` (fake tensors, symbolic integers) from now on."""

    def __init__(self, inputs: Iterable[Any]) -> None:
        self._env = shapes.shape_env_of(inputs)
        self._since = 0
        self._ranges: dict[str, tuple[int, int | None]] = {}
        if self._env is not None:
            self._since = shape_envs.mark_guards(self._env)
            # a guard narrows its symbols' ranges: by those of later it would seem to say nothing
            for name, symbol in shape_envs.symbols_by_name(self._env).items():
                self._ranges[name] = shapes.range_of(symbol, self._env)

    def added(self) -> tuple[BoolExpr, ...]:
        """The guards that were added. Raises ``ExpressionError`` for one that the integer grammar has no
        words for."""
        env = self._env
        if env is None:
            return ()
        symbols = SymbolTable(lambda name: self._ranges.get(name, (0, None)))
        found = [to_guard(g, symbols) for g in shape_envs.guards_added(env, self._since)]
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


def unsaid(inputs: Iterable[Any], names: Mapping[str, str]) -> list[str]:
    """What the trace that made ``inputs`` assumes of sizes, and the integer grammar has no words for; symbols
    are written by ``names``."""
    env = shapes.shape_env_of(inputs)
    if env is None:
        return []
    symbols = SymbolTable(lambda name: shapes.range_of(shape_envs.symbols_by_name(env)[name], env))
    found: list[str] = []
    for condition in shape_envs.conditions_of(env, env.var_to_range):
        try:
            to_guard(condition, symbols)
        except ExpressionError:
            found.append(_written(condition, names))
    return found


def _written(condition: sympy.Basic, names: Mapping[str, str]) -> str:
    return str(
        condition.xreplace({s: sympy.Symbol(names.get(s.name, s.name)) for s in condition.free_symbols})
    )


def hold(guards: Sequence[BoolExpr], inputs: Iterable[Any]) -> bool:
    """Whether the guards hold for the sizes that ``inputs`` were traced with. Guards over symbols that this
    trace does not have, or whose value it does not know, do not."""
    env = shapes.shape_env_of(inputs) if guards else None
    if env is None:
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


def install(guards: Sequence[BoolExpr], inputs: Iterable[Any]) -> bool:
    """Make ``guards`` guards of the trace that made ``inputs``. False where one does not hold there."""
    env = shapes.shape_env_of(inputs) if guards else None
    if env is None:
        return not guards
    names = shape_envs.symbols_by_name(env)
    return all(shape_envs.install_guard(env, condition_to_sympy(g, names)) for g in guards)


def to_text(guards: Sequence[BoolExpr], names: Mapping[str, str]) -> str:
    """Guards as the cache keeps them, one on each line, over other names of the symbols."""
    symbols = {s for guard in guards for s in guard.free_symbols}
    renamed = {s: Symbol(names.get(s.name, s.name), s.lower, s.upper).expr for s in symbols}
    return "\n".join(str(guard.substitute(renamed)) for guard in guards)


def from_text(text: str, names: Mapping[str, str], inputs: Iterable[Any]) -> tuple[BoolExpr, ...]:
    """The guards that `to_text` wrote with the same ``names`` (this trace's to the cache's), over the symbols
    of the trace that made ``inputs``. Raises ``ValueError`` for a text that is none."""
    env = shapes.shape_env_of(inputs)
    own = {} if env is None else shape_envs.symbols_by_name(env)
    symbols = {}
    for name, kept in names.items():
        if env is not None and name in own:
            symbols[kept] = Symbol(name, *shapes.range_of(own[name], env))
    return tuple(parse_guard(line, symbols) for line in text.splitlines())
