"""Calls of operators that Braze does not generate itself.

Arguments are a tree (tuples, lists, dicts) whose leaves are :class:`TensorRef`, ``Expr`` and plain values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from braze._torch.schema import Effect
from braze.ir.buffers import Buffer, Operation, layout_text
from braze.runtime.expr import Expr
from braze.runtime.guard import BoolExpr
from braze.runtime.spec import Layout


@dataclass(frozen=True)
class TensorRef:
    """A tensor as an extern sees it: ``layout`` within the storage of ``buffer``. ``whole`` if it is the
    buffer itself, with the buffer's own layout."""

    buffer: Buffer
    layout: Layout

    @property
    def whole(self) -> bool:
        return self.layout == self.buffer.layout

    def __str__(self) -> str:
        return self.buffer.name if self.whole else f"{self.buffer.name} as {layout_text(self.layout)}"


@dataclass(frozen=True)
class ItemRef:
    """The number that a tensor of one element holds, as Python has it."""

    ref: TensorRef

    def __str__(self) -> str:
        return f"item({self.ref})"


@dataclass(eq=False)
class NumberBuffer(Buffer):
    """A tensor without dimensions that stands for a number which Python computed, or an operator returned: a
    float is float64, an integer int64."""


def tensor_of(leaf: Any) -> TensorRef | None:
    """The tensor that a leaf is, or whose number it is."""
    if isinstance(leaf, ItemRef):
        return leaf.ref
    return leaf if isinstance(leaf, TensorRef) else None


def leaves(tree: Any) -> Iterator[Any]:
    """The leaves of an argument tree, left to right."""
    if isinstance(tree, (tuple, list)):
        for item in tree:
            yield from leaves(item)
    elif isinstance(tree, dict):
        for item in tree.values():
            yield from leaves(item)
    else:
        yield tree


def map_leaves(tree: Any, fn: Callable[[Any], Any]) -> Any:
    """The tree with ``fn`` applied to each leaf."""
    if isinstance(tree, tuple):
        return tuple(map_leaves(t, fn) for t in tree)
    if isinstance(tree, list):
        return [map_leaves(t, fn) for t in tree]
    if isinstance(tree, dict):
        return {k: map_leaves(v, fn) for k, v in tree.items()}
    return fn(tree)


def show(tree: Any) -> str:
    """The tree as it would be written in Python."""
    if isinstance(tree, tuple):
        return "(" + ", ".join(map(show, tree)) + ("," if len(tree) == 1 else "") + ")"
    if isinstance(tree, list):
        return "[" + ", ".join(map(show, tree)) + "]"
    if isinstance(tree, dict):
        return "{" + ", ".join(f"{k}: {show(v)}" for k, v in tree.items()) + "}"
    return str(tree)


@dataclass(eq=False)
class ExternKernel(Operation):
    """A call of ``target`` (an ``OpOverload``, a higher-order operator, or a Python callable).

    ``pattern``: what the call returns, with the names of ``results`` in it: a name, ``None``, or a tuple of
    such.
    """

    target: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    results: list[Buffer] = field(default_factory=list)
    pattern: Any = None

    @property
    def outputs(self) -> list[Buffer]:
        return self.results

    @property
    def qualified_name(self) -> str:
        """``aten.mm.default`` and the like."""
        return (
            str(self.target) if not callable(getattr(self.target, "__name__", None)) else self.target.__name__
        )

    def refs(self) -> list[TensorRef]:
        """Every tensor argument."""
        return [t for t in map(tensor_of, leaves((self.args, self.kwargs))) if t is not None]

    def sizes(self) -> list[Expr]:
        """Every symbolic integer argument."""
        return [x for x in leaves((self.args, self.kwargs)) if isinstance(x, Expr)]

    def reads(self) -> set[str]:
        return {r.buffer.storage for r in self.refs()}

    def __str__(self) -> str:
        args = [show(a) for a in self.args] + [f"{k}={show(v)}" for k, v in self.kwargs.items()]
        out = ", ".join(map(str, self.results)) or "()"
        text = f"{out} = {type(self).__name__} {self.qualified_name}({', '.join(args)})"
        return text + ("  # " + "; ".join(dict.fromkeys(map(str, self.origins))) if self.origins else "")


@dataclass(eq=False)
class ExternKernelOut(ExternKernel):
    """An operator with an out-variant, ``target``, that writes into memory which the plan provides
    (``out=``)."""

    __str__ = ExternKernel.__str__


@dataclass(eq=False)
class ExternKernelAlloc(ExternKernel):
    """An operator that allocates its own results.

    ``mutated``: storages that it writes by its schema. What its results may share, ``Graph.sharing`` knows.
    ``effects``: of the operator.
    ``binds``: (symbol, result name, dimension) where sizes are known only once it has run.
    """

    mutated: set[str] = field(default_factory=set)
    effects: Effect = Effect.NONE
    binds: list[tuple[str, str, int]] = field(default_factory=list)

    @property
    def effect(self) -> Effect:
        return self.effects | Effect.CHECK if self.binds else self.effects

    __str__ = ExternKernel.__str__

    def writes(self) -> set[str]:
        return super().writes() | self.mutated


@dataclass(eq=False)
class FallbackKernel(ExternKernelAlloc):
    """An operator that Braze cannot compile, run as eager PyTorch runs it; ``reason`` says why."""

    reason: str = ""

    __str__ = ExternKernel.__str__


@dataclass(eq=False)
class MultiOutput(Buffer):
    """One tensor among the results of an extern that returns several; ``path`` finds it in the result."""

    producer: str = ""
    path: tuple[int, ...] = ()


@dataclass(eq=False)
class MutationOutput(Buffer):
    """An existing buffer after an operation has written to it: same memory, later contents."""


@dataclass(eq=False)
class ConcatKernel(Operation):
    """Allocates a buffer whose pieces are computed in place by other operations (it is their
    ``home``). It runs nothing itself."""

    buffer: Buffer

    @property
    def outputs(self) -> list[Buffer]:
        return [self.buffer]

    def reads(self) -> set[str]:
        return set()

    def __str__(self) -> str:
        return f"{self.buffer} = ConcatKernel (filled in place)"


@dataclass(eq=False)
class ComputeNumber(Operation):
    """``result`` is what the function on numbers of that name (`NUMBER_FUNCTIONS`) gives for ``args``, as
    Python computes it."""

    function: str
    args: tuple[Any, ...]
    result: NumberBuffer

    @property
    def outputs(self) -> list[Buffer]:
        return [self.result]

    def reads(self) -> set[str]:
        return {t.buffer.storage for t in map(tensor_of, leaves(self.args)) if t is not None}

    def __str__(self) -> str:
        return f"{self.result} = {self.function}({', '.join(map(show, self.args))})"


@dataclass(eq=False)
class CheckCondition(Operation):
    """Raises an exception, by the name of a built-in one, unless a condition on sizes holds. What comes after
    it in the graph may rely on it, and so runs after it."""

    condition: BoolExpr
    message: str
    exception: str = "RuntimeError"

    @property
    def outputs(self) -> list[Buffer]:
        return []

    def reads(self) -> set[str]:
        return set()

    def __str__(self) -> str:
        return f"check {self.condition}"


@dataclass(eq=False)
class BindSymbol(Operation):
    """``symbol`` becomes the value of a one-element tensor: where an unbacked size comes from."""

    symbol: str
    source: TensorRef

    @property
    def outputs(self) -> list[Buffer]:
        return []

    def reads(self) -> set[str]:
        return {self.source.buffer.storage}

    def __str__(self) -> str:
        return f"{self.symbol} = item({self.source})"
