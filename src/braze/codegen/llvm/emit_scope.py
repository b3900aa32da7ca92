"""What is known at the current point of the emitted code: bound loop variables, lanes, and values by node.

Memory of what was emitted is kept in plain dictionaries; whatever a loop body adds to them is taken out
again when the body ends, since values made there do not dominate what follows.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from braze.codegen.llvm.builder import I64, FunctionBuilder, Type, Value, constant
from braze.errors import InternalError
from braze.ops.dag import IndirectSymbol, Node
from braze.runtime.expr import Expr, Symbol

__all__ = ["Lanes", "ScopeEmitter"]


@dataclass
class Lanes:
    """How one copy of a loop body lies on vector lanes.

    Lane ``k`` runs ``var == base + offset + k``; ``mask`` marks the lanes that exist, None for all of them.
    Copies of an unrolled body form a group with one ``base``, a multiple of ``group``, the iterations that
    all its copies run together.
    """

    var: Symbol | None = None
    lanes: int = 1
    base: Value | None = None
    offset: int = 0
    mask: Value | None = None
    group: int = 1
    values: dict[int, Value] = field(default_factory=dict)
    vectors: dict[tuple[str, str], Value] = field(default_factory=dict)

    def type(self, elem: str) -> Type:
        """A vector of ``elem`` with one element for each lane."""
        return Type(elem, self.lanes)


class ScopeEmitter:
    """Bound variables, levels and remembered values; the lowest floor of the kernel emitter."""

    fb: FunctionBuilder

    def __init__(self) -> None:
        self.level = 0
        self.bound: dict[Symbol, tuple[int, Value]] = {}
        self.values: dict[int, Value] = {}
        self.node_levels: dict[int, int] = {}
        self.scalars: dict[Expr, Value] = {}
        self.pointers: dict[tuple[str, Expr], Value] = {}
        self.splats: dict[tuple[int, int], Value] = {}
        self.on_lanes: frozenset[int] = frozenset()
        self._log: list[tuple[MutableMapping[Any, Any], Any]] = []

    # -- remembering ------------------------------------------------------------------------------------
    def remember(self, table: MutableMapping[Any, Any], key: Any, value: Any) -> None:
        """``table[key] = value`` until the current scope ends."""
        if key not in table:
            self._log.append((table, key))
        table[key] = value

    @contextmanager
    def scope(self) -> Iterator[None]:
        """What is remembered inside is forgotten at the end."""
        mark = len(self._log)
        self.level += 1
        yield
        self.level -= 1
        for table, key in reversed(self._log[mark:]):
            table.pop(key, None)
        del self._log[mark:]

    @contextmanager
    def bind(self, symbol: Symbol, value: Value) -> Iterator[None]:
        """A loop body in which ``symbol`` has ``value`` (i64; for a lane variable: that of lane 0)."""
        with self.scope():
            self.remember(self.bound, symbol, (self.level, value))
            yield

    @contextmanager
    def bind_all(self, pairs: Sequence[tuple[Symbol, Value]]) -> Iterator[None]:
        """Several variables at one level."""
        with self.scope():
            for symbol, value in pairs:
                self.remember(self.bound, symbol, (self.level, value))
            yield

    # -- questions --------------------------------------------------------------------------------------
    def varies(self, node: Node, ctx: Lanes) -> bool:
        """Whether the node's value differs between lanes."""
        return ctx.var is not None and (ctx.var in node.free or node.id in self.on_lanes)

    def expr_varies(self, e: Expr, ctx: Lanes) -> bool:
        """Whether an index differs between lanes."""
        if ctx.var is None:
            return False
        return any(
            s == ctx.var or (isinstance(s, IndirectSymbol) and self.varies(s.node, ctx))
            for s in e.free_symbols
        )

    def symbol_level(self, s: Symbol) -> int:
        """The loop level at which a symbol gets its value."""
        if isinstance(s, IndirectSymbol):
            return self.node_levels.get(s.node.id, self.level)
        try:
            return self.bound[s][0]
        except KeyError:
            raise InternalError(f"loop variable {s.name} is used outside its loop") from None

    def expr_level(self, e: Expr) -> int:
        """The deepest loop level among an expression's symbols."""
        return max((self.symbol_level(s) for s in e.free_symbols), default=0)

    def get(self, node: Node, ctx: Lanes) -> Value:
        """The emitted value: a vector if it varies between lanes, else a scalar."""
        found = ctx.values.get(node.id)
        if found is None:
            found = self.values.get(node.id)
            if found is None:
                raise InternalError(f"value used before it was emitted: {node}")
        return found

    def vector(self, node: Node, ctx: Lanes) -> Value:
        """The emitted value with as many lanes as ``ctx`` has."""
        value = self.get(node, ctx)
        if value.type.lanes == ctx.lanes:
            return value
        key = (node.id, ctx.lanes)
        found = self.splats.get(key)
        if found is None:
            found = self.fb.splat(value, ctx.lanes)
            self.remember(self.splats, key, found)
        return found

    def i64(self, value: int) -> Value:
        """An i64 constant."""
        return constant(I64, value)
