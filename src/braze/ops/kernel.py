"""Kernels as data: loop nests whose stages hold bodies. What the scheduler makes and code generators take.

A kernel runs its stages in order for each point of its outer loops. A stage loops over its own ``vars``;
reduction nodes in its bodies loop over ``rvars`` inside them. So softmax over rows is one kernel with the
rows outside and three stages: a maximum, a sum, and the quotients.

Stages talk through buffers. A ``local`` buffer does not outlive its kernel: where it is indexed by no stage
variable it is one value for each outer point and stays in a register; otherwise it is a row of scratch
memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

import torch

from braze._torch.devices import HOST
from braze.ops.dag import Dag, IndirectSymbol, Node, indirect_nodes, loads, topological
from braze.ops.dtypes import SHORT
from braze.ops.printer import print_stage
from braze.runtime.expr import Expr, ExprLike, Symbol

StoreMode = Literal["set", "atomic_add", "atomic_mul", "atomic_max", "atomic_min"]
Role = Literal["in", "out", "inout", "local"]
NO_MAPPING: Mapping[Symbol, ExprLike] = {}


@dataclass(frozen=True)
class Store:
    """Write ``value`` (converted to the buffer's type) to element ``index`` of ``buffer``.

    ``atomic_add`` adds to what is there, the other modes multiply it or keep the greater or lesser value;
    several iterations may then hit one element. ``mask`` suppresses it. ``continues``: with the store before
    it, it writes one element of two parts, so what it writes was computed before that store.
    """

    buffer: str
    index: Expr
    value: Node
    mode: StoreMode = "set"
    mask: Node | None = None
    continues: bool = field(default=False, compare=False)

    @property
    def roots(self) -> list[Node]:
        """The nodes this store evaluates: value, mask, and those that its index refers to."""
        return [self.value, *([self.mask] if self.mask is not None else []), *indirect_nodes(self.index)]

    def rewritten(
        self,
        dag: Dag,
        rewrite: Callable[[Sequence[Node]], Sequence[Node]],
        mapping: Mapping[Symbol, ExprLike] = NO_MAPPING,
    ) -> Store:
        """The store with its nodes passed through ``rewrite``, and ``mapping`` applied to its index."""
        computed = [s for s in self.index.free_symbols if isinstance(s, IndirectSymbol)]
        roots = [self.value, *([self.mask] if self.mask is not None else []), *(s.node for s in computed)]
        new = list(rewrite(roots))
        local: dict[Symbol, ExprLike] = dict(mapping)
        for s, node in zip(computed, new[len(new) - len(computed) :], strict=True):
            local[s] = dag.indirect(node, s.size.substitute(mapping))
        mask = new[1] if self.mask is not None else None
        return replace(self, index=self.index.substitute(local), value=new[0], mask=mask)

    def substituted(self, dag: Dag, mapping: Mapping[Symbol, ExprLike]) -> Store:
        """The store with symbols replaced throughout."""
        return self.rewritten(dag, lambda roots: dag.substitute(roots, mapping), mapping)


@dataclass(frozen=True)
class Stage:
    """For each point of ``vars``: the reductions over ``rvars`` that the stores need, then the stores in
    order.

    All reduction nodes of a stage run over the same ``rvars``, and none depends on another. A scan runs along
    one of ``vars``, and all scans of a stage along the same one.
    """

    vars: tuple[Symbol, ...]
    rvars: tuple[Symbol, ...]
    stores: tuple[Store, ...]

    @cached_property
    def roots(self) -> list[Node]:
        return [r for s in self.stores for r in s.roots]

    @cached_property
    def nodes(self) -> list[Node]:
        """Every node of the stage, inputs before users."""
        return topological(self.roots)

    @cached_property
    def loads(self) -> list[Node]:
        return loads(self.roots)

    @cached_property
    def reductions(self) -> list[Node]:
        """The reduction nodes, in order."""
        return [n for n in self.nodes if n.op == "reduction"]

    def __str__(self) -> str:
        return print_stage(self.vars, self.rvars, self.stores, self.nodes)


@dataclass(frozen=True)
class BufferArg:
    """A buffer that a kernel touches. ``numel``: how many elements may be addressed from its start."""

    name: str
    dtype: torch.dtype
    role: Role
    numel: Expr

    def __str__(self) -> str:
        return f"{self.role} {self.name}: {SHORT[self.dtype]}[{self.numel}]"


@dataclass(frozen=True)
class Kernel:
    """One fused loop nest. ``sizes``: the size symbols that it takes at run time, in order. ``device``: the
    type of device on which it runs, and on which all its buffers lie.

    ``origins``: the qualified ATen operators that it fuses, in graph order, ``sources`` the user's lines, and
    ``nodes`` the names of the graph's nodes.
    """

    name: str
    outer: tuple[Symbol, ...]
    stages: tuple[Stage, ...]
    buffers: tuple[BufferArg, ...]
    sizes: tuple[Symbol, ...] = ()
    origins: tuple[str, ...] = field(default=(), compare=False)
    sources: tuple[str, ...] = field(default=(), compare=False)
    nodes: tuple[str, ...] = field(default=(), compare=False)
    device: str = HOST

    def buffer(self, name: str) -> BufferArg:
        """The buffer called ``name``. Raises ``KeyError`` if the kernel has none."""
        for b in self.buffers:
            if b.name == name:
                return b
        raise KeyError(name)

    def __str__(self) -> str:
        sizes = f"; {', '.join(map(_print_size, self.sizes))}" if self.sizes else ""
        on = "" if self.device == HOST else f" on {self.device}"
        lines = [f"kernel {self.name}({', '.join(map(str, self.buffers))}{sizes}){on}:"]
        indent = "  "
        if self.outer:
            lines.append(indent + "for " + ", ".join(f"{v.name} < {v.size}" for v in self.outer) + ":")
            indent += "  "
        for stage in self.stages:
            lines.extend(indent + line for line in str(stage).splitlines())
        return "\n".join(lines)


def _print_size(s: Symbol) -> str:
    return f"{s.name} >= {s.lower}" if s.upper is None else f"{s.lower} <= {s.name} <= {s.upper}"


def referenced(stages: Iterable[Stage]) -> tuple[set[str], set[str]]:
    """The names of the buffers that ``stages`` load from and store to."""
    read: set[str] = set()
    written: set[str] = set()
    for stage in stages:
        read.update(n.buffer for n in stage.loads)
        read.update(s.buffer for s in stage.stores if s.mode != "set")
        written.update(s.buffer for s in stage.stores)
    return read, written
