"""Stages in the making."""

from __future__ import annotations

from dataclasses import dataclass, field

from braze.ops.dag import Node, loads, topological
from braze.ops.kernel import Store
from braze.runtime.expr import Expr, Symbol, product


@dataclass(eq=False)
class StageDraft:
    """A stage in the making: see :class:`braze.ops.kernel.Stage`. Its stores still name every buffer."""

    vars: tuple[Symbol, ...]
    rvars: tuple[Symbol, ...]
    stores: list[Store]
    _loads: list[Node] | None = field(default=None, repr=False)

    @property
    def nodes(self) -> list[Node]:
        """Every node below the stores, inputs before users."""
        return topological(r for s in self.stores for r in s.roots)

    @property
    def loads(self) -> list[Node]:
        """The distinct loads below the stores."""
        if self._loads is None:
            self._loads = loads(r for s in self.stores for r in s.roots)
        return self._loads

    @property
    def reads(self) -> set[str]:
        return {n.buffer for n in self.loads}

    @property
    def indices(self) -> list[Expr]:
        """Every index with which memory is touched."""
        return [n.index for n in self.loads] + [s.index for s in self.stores]

    @property
    def iterations(self) -> Expr:
        return product(v.size for v in (*self.vars, *self.rvars))

    def absorb(self, other: StageDraft) -> None:
        """Run ``other``'s stores in this stage too, after its own."""
        self.rvars = self.rvars or other.rvars
        self.stores = [*self.stores, *other.stores]
        self._loads = None
