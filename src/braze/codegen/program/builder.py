"""Builds programs, statement by statement, and remembers what was computed where.

What a block computes is known until the block ends: whatever its statements define does not exist after it.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch

from braze.codegen.program.grammar import (
    SCALAR,
    Along,
    Assign,
    Bind,
    Blocks,
    Check,
    Const,
    For,
    If,
    Index,
    Let,
    Load,
    Share,
    Shuffle,
    Statement,
    Store,
    Tail,
    Var,
)
from braze.codegen.program.lanes import Copy, Part
from braze.errors import InternalError
from braze.ops.dag import Node
from braze.ops.dtypes import is_float
from braze.ops.vocabulary import OPS
from braze.runtime.expr import Expr, ExprLike, Symbol, as_expr

__all__ = ["Builder"]


class Builder:
    """Statements, into the current block.

    ``bound`` are the symbols that have a value here; ``values`` the values of nodes that are the same on all
    lanes, by the nodes' numbers. ``checks``: the failures that can be recorded, by their numbers.
    """

    def __init__(self) -> None:
        self.body: list[Statement] = []
        self.checks: list[str] = []
        self.bound: dict[Symbol, None] = {}
        self.values: dict[int, Var] = {}
        self._splats: dict[tuple[Var, int], Var] = {}
        self._constants: dict[tuple[str, torch.dtype, int], Const] = {}
        self._counts: dict[str, int] = {}
        self._log: list[tuple[MutableMapping[Any, Any], Any]] = []

    # -- remembering ------------------------------------------------------------------------------------
    def remember(self, table: MutableMapping[Any, Any], key: Any, value: Any) -> None:
        """``table[key] = value`` until the current block or scope ends."""
        if key not in table:
            self._log.append((table, key))
        table[key] = value

    @contextmanager
    def scope(self, *symbols: Symbol) -> Iterator[None]:
        """What is remembered inside is forgotten at the end; ``symbols`` have values in it."""
        mark = len(self._log)
        for symbol in symbols:
            self.remember(self.bound, symbol, None)
        yield
        for table, key in reversed(self._log[mark:]):
            table.pop(key, None)
        del self._log[mark:]

    @contextmanager
    def _inside(self, body: list[Statement], *symbols: Symbol) -> Iterator[None]:
        outer, self.body = self.body, body
        with self.scope(*symbols):
            yield
        self.body = outer

    # -- names ------------------------------------------------------------------------------------------
    def _name(self, hint: str) -> str:
        count = self._counts.get(hint, 0)
        self._counts[hint] = count + 1
        return f"{hint}{count}"

    def symbol(self, hint: str) -> Symbol:
        """A new integer, not negative."""
        return Symbol(self._name(hint), 0)

    def _var(self, dtype: torch.dtype, lanes: int, hint: str = "v") -> Var:
        return Var(self._name(hint), dtype, lanes)

    def constant(self, value: float, dtype: torch.dtype, lanes: int = 1) -> Const:
        """A literal."""
        value = float(value) if is_float(dtype) else bool(value) if dtype is torch.bool else int(value)
        key = (repr(value), dtype, lanes)
        found = self._constants.get(key)
        if found is None:
            found = self._constants[key] = Const(value, dtype, lanes)
        return found

    def like(self, value: float, var: Var) -> Const:
        """A literal of the type and lanes of ``var``."""
        return self.constant(value, var.dtype, var.lanes)

    # -- values -----------------------------------------------------------------------------------------
    def op(self, name: str, *args: Var, dtype: torch.dtype | None = None) -> Var:
        """An operation; ``dtype`` where the vocabulary leaves its type to the node."""
        first = args[0]
        if any(a.lanes != first.lanes for a in args):
            raise InternalError(f"{name} of {', '.join(f'{a}<{a.lanes}>' for a in args)}")
        if dtype is None:
            result = OPS[name].result
            dtype = torch.bool if result == "bool" else args[-1].dtype
        var = self._var(dtype, first.lanes)
        self.body.append(Let(var, name, args))
        return var

    def convert(self, value: Var, dtype: torch.dtype) -> Var:
        """``value`` as another type, as torch converts."""
        return value if value.dtype is dtype else self.op("to_dtype", value, dtype=dtype)

    def splat(self, value: Var, lanes: int) -> Var:
        """A scalar in each of ``lanes`` lanes; what has as many already is left as it is."""
        if value.lanes == lanes:
            return value
        if isinstance(value, Const):
            return self.constant(value.value, value.dtype, lanes)
        found = self._splats.get((value, lanes))
        if found is None:
            found = self._var(value.dtype, lanes)
            self.body.append(Let(found, "splat", (value,)))
            self.remember(self._splats, (value, lanes), found)
        return found

    def shuffle(self, a: Var, b: Var | None, order: Sequence[int]) -> Var:
        """Lanes of a and b, chosen by number."""
        var = self._var(a.dtype, len(order))
        self.body.append(Shuffle(var, a, b, tuple(order)))
        return var

    def slice(self, value: Var, start: int, lanes: int) -> Var:
        """Some neighbouring lanes."""
        return value if lanes == value.lanes else self.shuffle(value, None, range(start, start + lanes))

    def both(self, a: Var | None, b: Var | None) -> Var | None:
        """The lanes that two masks have in common, None meaning all."""
        if a is None or b is None:
            return b if a is None else a
        return self.op("logical_and", a, b)

    def index(self, e: ExprLike, dtype: torch.dtype = torch.int64, along: Along = SCALAR) -> Var:
        """An integer expression as a value."""
        e = as_expr(e)
        if e.constant is not None and along.lanes == 1:
            return self.constant(e.constant, dtype)
        var = self._var(dtype, along.lanes)
        self.body.append(Index(var, e, along))
        return var

    def tail(self, count: Expr, lanes: int) -> Var:
        """Which of ``lanes`` lanes lie below ``count``."""
        var = self._var(torch.bool, lanes, "m")
        self.body.append(Tail(var, count))
        return var

    def bind(self, hint: str, value: Expr) -> Expr:
        """A name for what is more than a number or a name already."""
        if value.constant is not None or value.symbol is not None:
            return value
        symbol = self.symbol(hint)
        self.body.append(Bind(symbol, value))
        return symbol.expr

    # -- accumulators -----------------------------------------------------------------------------------
    def accumulator(self, start: Var) -> Var:
        """A value that is assigned again."""
        var = self._var(start.dtype, start.lanes, "acc")
        self.body.append(Assign(var, start))
        return var

    def assign(self, var: Var, value: Var) -> None:
        """The accumulator's next value."""
        if var.dtype is not value.dtype or var.lanes != value.lanes:
            raise InternalError(f"{var} is assigned {value.dtype}<{value.lanes}>")
        self.body.append(Assign(var, value))

    # -- memory and checks --------------------------------------------------------------------------------
    def load(
        self, buffer: str, index: Expr, dtype: torch.dtype, along: Along = SCALAR, mask: Var | None = None
    ) -> Var:
        """Elements of a buffer."""
        var = self._var(dtype, along.lanes)
        self.body.append(Load(var, buffer, index, along, mask))
        return var

    def store(
        self,
        buffer: str,
        index: Expr,
        value: Var,
        along: Along = SCALAR,
        mask: Var | None = None,
        combine: str | None = None,
    ) -> None:
        """Elements to a buffer."""
        self.body.append(Store(buffer, index, along, self.splat(value, along.lanes), mask, combine))

    def check(
        self,
        kind: Literal["index", "nonzero", "holds"],
        value: Var,
        mask: Var | None,
        error: str,
        bound: Expr | None = None,
        along: Along = SCALAR,
        wraps: bool = False,
    ) -> Var:
        """A check; what comes out of it (the value itself for a condition)."""
        if error not in self.checks:
            self.checks.append(error)
        var = None if kind == "holds" else self._var(value.dtype, value.lanes)
        number = self.checks.index(error)
        self.body.append(Check(kind, var, value, mask, number, bound, along, wraps))
        return value if var is None else var

    # -- control ----------------------------------------------------------------------------------------
    @contextmanager
    def loop(
        self, symbol: Symbol, start: ExprLike, stop: ExprLike, step: int = 1, runs: bool = False
    ) -> Iterator[None]:
        """What is emitted inside runs for each value."""
        statement = For(symbol, as_expr(start), as_expr(stop), step, runs)
        self.body.append(statement)
        with self._inside(statement.body, symbol):
            yield

    @contextmanager
    def share(self, loops: Sequence[Symbol], blocks: Blocks | None, serial: bool = False) -> Iterator[None]:
        """What is emitted inside runs for each of this thread's points."""
        statement = Share(tuple(loops), blocks, serial)
        self.body.append(statement)
        symbols = loops if blocks is None else (*loops, blocks.low, blocks.high)
        with self._inside(statement.body, *symbols):
            yield

    @contextmanager
    def when(self, positive: Sequence[Expr]) -> Iterator[None]:
        """What is emitted inside runs where all are greater than 0; at once where there are none."""
        if not positive:
            yield
            return
        statement = If(tuple(positive))
        self.body.append(statement)
        with self._inside(statement.body):
            yield

    @contextmanager
    def lane_loop(self, symbol: Symbol, part: Part) -> Iterator[list[Copy]]:
        """One part of a loop over lanes; the copies of its body."""
        with self.loop(symbol, part.start, part.stop, part.step, part.runs):
            mask = self.tail(part.stop - symbol.expr, part.lanes) if part.masked else None
            yield [
                Copy(Along(symbol, part.lanes, k * part.lanes, part.step), mask) for k in range(part.copies)
            ]

    # -- nodes --------------------------------------------------------------------------------------------
    def get(self, node: Node, copy: Copy) -> Var:
        """The value of a node: a vector if it differs between lanes, else a scalar."""
        found = copy.values.get(node.id)
        if found is None:
            found = self.values.get(node.id)
            if found is None:
                raise InternalError(f"value used before it was computed: {node}")
        return found

    def vector(self, node: Node, copy: Copy) -> Var:
        """The value of a node on as many lanes as the copy has."""
        return self.splat(self.get(node, copy), copy.lanes)
