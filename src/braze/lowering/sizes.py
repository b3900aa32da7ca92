"""Sizes of the traced tensors as expressions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from braze._torch.shapes import bounds_in, bounds_of, expression_of, range_of, value_in_trace
from braze.errors import ExpressionError
from braze.runtime.expr import ONE, Expr, Symbol, as_expr
from braze.runtime.guard import BoolExpr
from braze.symbolic.from_sympy import SymbolTable, condition_from_sympy, expr_from_sympy, unsayable_in

if TYPE_CHECKING:
    from braze.ir.graph import Graph


class SizeTable:
    """Converts PyTorch's symbolic integers, giving each symbol its bounds, once."""

    def __init__(self) -> None:
        self._ranges: dict[str, tuple[int, int | None]] = {}
        self._in_trace: dict[str, int] = {}
        self._symbols = SymbolTable(self._range)
        self._known: dict[Any, Expr] = {}

    @property
    def symbols(self) -> Mapping[str, Symbol]:
        """The symbols that were met so far, with the bounds that expressions are simplified by."""
        return self._symbols

    def _range(self, name: str) -> tuple[int, int | None]:
        return self._ranges.get(name, (0, None))

    def expr(self, value: int | torch.SymInt) -> Expr:
        """The expression of an int or SymInt. Raises ``ExpressionError`` for what the grammar cannot say."""
        if isinstance(value, int):
            return as_expr(value)
        expression, environment = expression_of(value)
        found = self._known.get(expression)
        if found is None:
            for symbol in getattr(expression, "free_symbols", ()):
                self._ranges.setdefault(str(symbol), range_of(symbol, environment))
                stood_for = value_in_trace(symbol, environment)
                if stood_for is not None:
                    self._in_trace[str(symbol)] = stood_for
            found = self._known[expression] = expr_from_sympy(expression, self._symbols)
        return found

    def define(self, value: int | torch.SymInt, known_as: Expr) -> None:
        """From now on ``known_as`` says what ``value`` does, also where it is a part of other expressions."""
        if not isinstance(value, int):
            expression, _ = expression_of(value)
            self._symbols.defined[expression] = known_as
            self._known.clear()

    def named(self, value: int | torch.SymInt) -> Expr:
        """The expression of ``value``; where the grammar cannot say it, a new symbol, which stands for it
        from now on."""
        found = self.try_expr(value)
        return self._whole(value) if found is None else found

    def measure(self, numbers: Iterable[int | torch.SymInt], lengths: Iterable[int | torch.SymInt]) -> None:
        """See to it that what a graph is given says all there is in its inputs' sizes.

        ``numbers`` are at hand by themselves; ``lengths`` are the sizes and strides of its tensors, which can
        be read. Where a length is made of numbers that follow from none of them, or cannot be said, a new
        symbol stands for it, or for the one part that cannot be said: other lengths often have the same part.
        """
        known = {e.symbol.name for e in map(self.named, numbers) if e.symbol is not None}
        pending = [v for v in lengths if not isinstance(v, int)]
        while pending := self._unread(pending, known):
            part = next(filter(None, map(self._unsayable_part, pending)), None)
            if part is None:
                known |= {s.name for s in self._whole(pending[0]).free_symbols}
            else:
                self._symbols.defined[part[0]] = self._new_symbol(bounds_in(*part))
                self._known.clear()

    def _unread(self, lengths: Sequence[torch.SymInt], known: set[str]) -> list[torch.SymInt]:
        """Those of ``lengths`` that neither follow from the symbols in ``known`` nor tell of one more, which
        is then ``known`` as well."""
        while True:
            left, count = [], len(known)
            for length in lengths:
                e = self.try_expr(length)
                unknown = e.unknown(known) if e is not None else None
                if unknown is not None:
                    known.add(unknown.symbol.name)
                elif e is None or any(s.name not in known for s in e.free_symbols):
                    left.append(length)
            lengths = left
            if len(known) == count:
                return left

    def _unsayable_part(self, value: torch.SymInt) -> tuple[Any, Any] | None:
        """The one part of a length that the grammar has no place for, and its trace's environment."""
        expression, environment = expression_of(value)
        parts = unsayable_in(expression, self._symbols)
        if len(parts) == 1 and parts[0].is_integer and not parts[0].is_number:
            return parts[0], environment
        return None

    def _whole(self, value: int | torch.SymInt) -> Expr:
        """A new symbol, which stands for all of ``value`` from now on."""
        found = self._new_symbol(bounds_of(value))
        self.define(value, found)
        return found

    def _new_symbol(self, bounds: tuple[int, int | None]) -> Expr:
        return Symbol(f"size{self.count}", *bounds).expr

    @property
    def count(self) -> int:
        """How many expressions have been given a name of their own."""
        return len(self._symbols.defined)

    def condition(self, condition: Any, environment: Any) -> BoolExpr:
        """A condition of the trace, a sympy boolean over the symbols of ``environment``, simplified by the
        bounds that these have here. Raises ``ExpressionError`` for what the grammar cannot say."""
        for symbol in condition.free_symbols:
            self._ranges.setdefault(str(symbol), range_of(symbol, environment))
        return condition_from_sympy(condition, self._symbols)

    def try_expr(self, value: int | torch.SymInt) -> Expr | None:
        """The same, or ``None`` where it cannot be said."""
        try:
            return self.expr(value)
        except ExpressionError:
            return None

    def in_trace(self, e: Expr) -> int | None:
        """The value of ``e`` in the trace; ``None`` where it depends on data."""
        if e.constant is not None:
            return e.constant
        known = self._in_trace
        return e.evaluate(known) if all(s.name in known for s in e.free_symbols) else None

    def is_repeated(self, own: Expr, common: Expr) -> bool:
        """Whether a dimension of size ``own`` is broadcast to ``common``. A size that was 1 in the trace,
        where the common one was not, is 1 by a guard, whatever its expression."""
        if own == common:
            return False
        if own.constant == 1:
            return True
        return self.in_trace(own) == 1 and self.in_trace(common) not in (None, 1)

    def broadcast(self, sizes: Sequence[tuple[Expr, ...]]) -> tuple[Expr, ...]:
        """The common size of tensors that broadcast."""
        result: list[Expr] = []
        for k in range(1, max(map(len, sizes)) + 1):
            common = ONE
            for own in (s[-k] for s in sizes if len(s) >= k):
                if self.is_repeated(common, own):
                    common = own
            result.append(common)
        return tuple(reversed(result))

    def try_condition(self, value: torch.SymBool) -> BoolExpr | None:
        """A symbolic truth value as a condition, or ``None`` where it cannot be said."""
        try:
            return self.condition(*expression_of(value))
        except ExpressionError:
            return None

    def is_bound(self, e: Expr | BoolExpr, graph: Graph) -> bool:
        """Whether every symbol of ``e`` has a value when the graph runs: an input's size, or computed."""
        return all(s.name in graph.known_symbols for s in e.free_symbols)
