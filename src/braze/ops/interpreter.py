"""The reference interpreter: runs a kernel's bodies with plain torch operations on flat storage.

It is the oracle of tests, of ``verify`` and of bisection, so it is written to be evidently right, not fast. A
stage is evaluated over its whole space at once: each value is a tensor with one dimension for each loop
(outer, then the stage's own, then those of its reductions), of size 1 where the value does not depend on that
loop.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from math import prod

import torch

from braze.errors import InternalError
from braze.ops import scalar
from braze.ops.dag import IndirectSymbol, Node
from braze.ops.dtypes import SHORT
from braze.ops.kernel import Kernel, Stage, Store
from braze.ops.vocabulary import COMBINING
from braze.runtime.checks import Check
from braze.runtime.expr import Atom, Expr, FloorDiv, Min, Mod, Symbol

Tensor = torch.Tensor
Observer = Callable[[Stage, Node, Tensor], None]


def interpret(
    kernel: Kernel,
    buffers: Mapping[str, Tensor],
    sizes: Mapping[str, int] | None = None,
    observe: Observer | None = None,
) -> None:
    """Run ``kernel``, writing its out and inout buffers.

    ``buffers``: flat 1-D storage for each buffer but the local ones, of the kernel's element types, at least
    as long as it says. ``sizes``: the value of each size symbol. ``observe`` is shown every value that is
    computed.

    Raises what a failed check raises, after the kernel has run, as compiled code does (the first that failed,
    in the order of the kernel's stages and nodes). Raises ``InternalError`` where the kernel itself is wrong:
    an access out of bounds, operands of the wrong type, an unbound symbol.
    """
    run = _Run(kernel, buffers, dict(sizes or {}), observe)
    for stage in kernel.stages:
        run.stage(stage)
    if run.failure is not None:
        raise run.failure


class _Run:
    """One run of a kernel: its memory, and the first failed check."""

    def __init__(
        self, kernel: Kernel, buffers: Mapping[str, Tensor], sizes: dict[str, int], observe: Observer | None
    ) -> None:
        self.kernel = kernel
        self.sizes = sizes
        self.observe = observe
        self.failure: Exception | None = None
        self.outer = [v.size.evaluate(sizes) for v in kernel.outer]
        self.numel = {b.name: b.numel.evaluate(sizes) for b in kernel.buffers}
        self.memory: dict[str, Tensor] = {}
        for b in kernel.buffers:
            numel = self.numel[b.name]
            if b.role == "local":  # one for each outer point
                self.memory[b.name] = torch.zeros(prod(self.outer) * numel, dtype=b.dtype)
                continue
            memory = buffers[b.name]
            if memory.dim() != 1 or memory.dtype is not b.dtype or memory.numel() < numel:
                raise InternalError(
                    f"{b} was given {SHORT[memory.dtype]}{list(memory.shape)}", node=kernel.name
                )
            self.memory[b.name] = memory

    def stage(self, stage: Stage) -> None:
        """All values of the stage, at all points, then its stores in order."""
        evaluation = _Evaluation(self, stage)
        if 0 in evaluation.shape:
            return
        evaluation.run()
        for store in stage.stores:
            evaluation.store(store)

    def fail(self, failed: Tensor, value: Tensor, size: Tensor, error: object) -> None:
        """Record the first of the points where ``failed`` holds, if nothing is recorded yet."""
        if self.failure is None and bool(failed.any()):
            where = failed.flatten().nonzero()[0, 0]
            v, s = (int(t.expand(failed.shape).flatten()[where]) for t in (value, size))
            self.failure = Check.decode(str(error)).error(v, s)


class _Evaluation:
    """The values of one stage. ``shape``: its points, one dimension a loop, the reductions' being 1."""

    def __init__(self, run: _Run, stage: Stage) -> None:
        self.run_ = run
        self.where = run.kernel.name
        self.stage_ = stage
        self.axes = (*run.kernel.outer, *stage.vars, *stage.rvars)
        self.extents = [v.size.evaluate(run.sizes) for v in self.axes]
        self.rank = len(self.axes)
        self.kept = self.rank - len(stage.rvars)
        self.shape = [*self.extents[: self.kept], *[1] * len(stage.rvars)]
        self.coordinates: dict[Symbol, Tensor] = {}
        for axis, (v, n) in enumerate(zip(self.axes, self.extents, strict=True)):
            shape = [1] * self.rank
            shape[axis] = n
            self.coordinates[v] = torch.arange(n).reshape(shape)
        self.values: dict[int, Tensor] = {}

    def full(self, value: float | int, dtype: torch.dtype) -> Tensor:
        return torch.full([1] * self.rank, value, dtype=dtype)

    # -- values -----------------------------------------------------------------------------------------
    def run(self) -> None:
        for node in self._needed():
            value = self.compute(node)
            if value.dtype is not node.dtype:
                raise InternalError(f"a {SHORT[node.dtype]} is computed as {value.dtype}", node=repr(node))
            self.values[node.id] = value
            if self.run_.observe is not None:
                self.run_.observe(self.stage_, node, value)
        for root in self.stage_.roots:
            if any(n != 1 for n in self.values[root.id].shape[self.kept :]):
                raise InternalError("a stored value depends on a reduction variable", node=repr(root))

    def _needed(self) -> list[Node]:
        """The nodes that are evaluated at all: nothing below a reduction that runs over nothing."""
        empty = 0 in self.extents
        needed = {r.id for r in self.stage_.roots}
        for node in reversed(self.stage_.nodes):
            if node.id in needed and not (empty and node.op == "reduction"):
                needed.update(i.id for i in node.inputs)
        return [n for n in self.stage_.nodes if n.id in needed]

    def compute(self, node: Node) -> Tensor:
        args = [self.values[a.id] for a in node.args if a.id in self.values]
        if node.op == "constant":
            return self.full(node.attrs[0], node.dtype)  # type: ignore[arg-type]
        if node.op == "index_expr":
            return self.index(node.index).to(node.dtype)
        if node.op == "load":
            return self.load(node)
        if node.op == "check_index":
            return self.check_index(node)
        if node.op == "check_nonzero":
            zero = args[0] == 0
            self.run_.fail(zero & self.mask(node.mask), args[0], args[0], node.attrs[0])
            return torch.where(zero, 1, args[0])
        if node.op == "check":
            self.run_.fail(~args[1], self.full(0, torch.int64), self.full(0, torch.int64), node.attrs[0])
            return args[0]
        if node.op == "to_dtype":
            return args[0].to(node.dtype)
        if node.op == "bitcast":
            return args[0].contiguous().view(node.dtype)
        if node.op == "reduction":
            return self.reduction(node)
        if node.op == "scan":
            return self.scan(node)
        return scalar.FUNCTIONS[node.op](*args)

    def mask(self, node: Node | None) -> Tensor:
        return self.full(True, torch.bool) if node is None else self.values[node.id]

    def check_index(self, node: Node) -> Tensor:
        value = self.values[node.args[0].id]
        extent, wrap, error = node.attrs
        assert isinstance(extent, Expr)
        size = self.index(extent)
        wrapped = torch.where(value < 0, value + size, value) if wrap else value
        bad = (wrapped < 0) | (wrapped >= size)
        self.run_.fail(bad & self.mask(node.mask), value, size, error)
        return torch.where(bad, 0, wrapped)

    def reduction(self, node: Node) -> Tensor:
        kind, component, rvars = node.attrs
        assert isinstance(kind, str) and isinstance(component, int) and isinstance(rvars, tuple)
        if sorted(v.key for v in rvars) != sorted(v.key for v in self.stage_.rvars):
            raise InternalError("a reduction runs over other variables than its stage", node=repr(node))
        if 0 in self.extents:
            return self.full(scalar.identity(kind, component, node.dtype), node.dtype)
        order = [self.axes.index(v) for v in rvars]
        lengths = [self.extents[axis] for axis in order]
        result = scalar.reduce(kind, component, *self._rows(node, order, lengths))
        return result.reshape([*result.shape, *[1] * len(rvars)])

    def _rows(self, node: Node, order: list[int], lengths: list[int]) -> tuple[Tensor, Tensor]:
        """The reduction's operand and positions, the reduced dimensions flattened into the last one."""

        def row(x: Tensor) -> Tensor:
            lead = list(x.shape[: self.kept])
            x = x.permute([*range(self.kept), *order]).expand([*lead, *lengths])
            return x.reshape(*lead, prod(lengths))

        x = row(self.values[node.args[0].id])
        if len(node.args) == 2:
            return x, row(self.values[node.args[1].id])
        return x, torch.arange(prod(lengths))

    def scan(self, node: Node) -> Tensor:
        kind, along = node.attrs
        assert isinstance(kind, str) and isinstance(along, Expr) and along.symbol is not None
        axis = self.axes.index(along.symbol)
        x = self.values[node.args[0].id]
        shape = list(x.shape)
        shape[axis] = self.extents[axis]
        return scalar.scan(kind, x.expand(shape), axis)

    # -- indices ----------------------------------------------------------------------------------------
    def index(self, e: Expr) -> Tensor:
        """The value of an index expression at every point, int64."""
        total = self.full(0, torch.int64)
        for factors, coefficient in e.terms:
            term = self.full(coefficient, torch.int64)
            for atom in factors:
                term = term * self.atom(atom)
            total = total + term
        return total

    def atom(self, atom: Atom) -> Tensor:
        if isinstance(atom, IndirectSymbol):
            return self.values[atom.node.id]
        if isinstance(atom, Symbol):
            if atom in self.coordinates:
                return self.coordinates[atom]
            if atom.name not in self.run_.sizes:
                raise InternalError(f"{atom} is neither a loop of this stage nor a size", node=self.where)
            return self.full(self.run_.sizes[atom.name], torch.int64)
        parts = [self.index(p) for p in atom.parts]
        return combined(atom, parts)

    # -- memory -----------------------------------------------------------------------------------------
    def address(self, buffer: str, e: Expr, mask: Node | None, access: str) -> tuple[Tensor, Tensor]:
        """The element of ``buffer``'s memory that each point accesses, and whether it does."""
        index, active = self.index(e), self.mask(mask)
        for s in e.free_symbols:
            if isinstance(
                s, IndirectSymbol
            ):  # an index into nothing has failed its check, and accesses nothing
                active = active & (self.index(s.size) > 0)
        numel = self.run_.numel[buffer]
        if bool((active & ((index < 0) | (index >= numel))).any()):
            raise InternalError(
                f"{access} of {buffer} at {e} is out of its {numel} elements", node=self.where
            )
        if self.run_.kernel.buffer(buffer).role == "local":
            stride = prod(self.run_.outer) * numel
            for v, n in zip(self.run_.kernel.outer, self.run_.outer, strict=True):
                stride //= n
                index = index + self.coordinates[v] * stride
        shape = (index + active).shape
        return index.expand(shape), active.expand(shape)

    def load(self, node: Node) -> Tensor:
        memory = self.run_.memory[node.buffer]
        index, active = self.address(node.buffer, node.index, node.mask, "load")
        result = torch.zeros(index.shape, dtype=memory.dtype)
        result[active] = memory[index[active]]
        return result

    def store(self, store: Store) -> None:
        memory = self.run_.memory[store.buffer]
        if self.run_.kernel.buffer(store.buffer).role == "in":
            raise InternalError(f"store to {store.buffer}, which is only read", node=self.where)
        index, active = self.address(store.buffer, store.index, store.mask, "store")
        value = self.values[store.value.id].to(memory.dtype)
        index, active, value = (t.expand(self.shape) for t in (index, active, value))
        if store.mode == "set":
            memory[index[active]] = value[active]
        else:
            scalar.combine(COMBINING[store.mode], memory, index[active], value[active])


def combined(atom: Atom, parts: Sequence[Tensor]) -> Tensor:
    """A floor division, remainder, minimum or maximum of integers."""
    if isinstance(atom, FloorDiv):
        return torch.div(parts[0], parts[1], rounding_mode="floor")
    if isinstance(atom, Mod):
        return torch.remainder(parts[0], parts[1])
    return functools.reduce(torch.minimum if isinstance(atom, Min) else torch.maximum, parts)
