"""What a tensor is, and where its elements lie: the one place that knows sizes, strides and offsets.

Numbers are counted in elements. They are plain integers, or expressions where a size is a symbol: the
functions here take both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Generic, TypeAlias, TypeVar, overload

import torch
from msgspec import Struct

from braze._torch.devices import HOST
from braze.dtypes import torch_name
from braze.errors import InputMismatchError
from braze.runtime.expr import ONE, ZERO, Expr, ExprLike, as_expr, known_nonnegative, maximum, product

__all__ = [
    "Layout",
    "Node",
    "TensorSpec",
    "byte_span",
    "contiguous_strides",
    "exprs",
    "is_dense",
    "listed",
    "overlaps_itself",
    "restrided",
    "same_strides",
    "span",
    "stride_order",
    "tensor_spec",
]

N = TypeVar("N", covariant=True)


class Node(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A part of a plan: immutable, and stored without what is as always."""


def listed(values: Sequence[object]) -> str:
    """Values as plans print them; None stands for what does not matter."""
    return ", ".join("_" if v is None else str(v) for v in values)


def exprs(values: Sequence[ExprLike]) -> tuple[Expr, ...]:
    """Each value as an `Expr`: for writing sizes and strides as plain integers."""
    return tuple([as_expr(v) for v in values])


# -- sizes and strides ------------------------------------------------------------------------------------
def contiguous_strides(sizes: Sequence[Any]) -> tuple[Any, ...]:
    """Row-major strides; a dimension of size 0 counts as 1, as in torch. Sizes may be sympy's, too."""
    strides: list[Any] = []
    step: Any = 1
    for n in reversed(sizes):
        strides.append(step)
        if not (isinstance(n, (int, Expr)) and n == 0):  # to ask sympy costs more than all the rest
            step = n * step
    return tuple(reversed(strides))


def stride_order(sizes: Sequence[ExprLike], strides: Sequence[ExprLike]) -> list[int]:
    """The dimensions from innermost to outermost, by increasing stride; ties keep the later one inside."""
    if all(isinstance(step, int) for step in strides):
        return sorted(range(len(sizes)), key=lambda dim: (strides[dim], -dim))
    steps = exprs(strides)

    def key(dim: int) -> tuple[int, int, int]:
        value = steps[dim].constant
        if value is None:
            low = steps[dim].bounds()[0]
            return max(low or 0, 1), len(steps[dim].terms[0][0]), -dim
        return value, 0, -dim

    dims = sorted(range(len(sizes)), key=key)
    # Symbolic strides: adjacent swaps where the order is provable otherwise, until there are none.
    for last in range(len(dims) - 1, 0, -1):
        swapped = False
        for a in range(last):
            more = steps[dims[a]] - steps[dims[a + 1]]
            if more.constant is None and known_nonnegative(more):
                dims[a], dims[a + 1] = dims[a + 1], dims[a]
                swapped = True
        if not swapped:
            break
    return dims


def is_dense(sizes: Sequence[ExprLike], strides: Sequence[ExprLike]) -> bool:
    """Whether the elements lie without gaps and without overlap, in some order of the dimensions."""
    running: ExprLike = 1
    for dim in stride_order(sizes, strides):
        if sizes[dim] == 1:
            continue
        if strides[dim] != running:
            return False
        running = running * sizes[dim]
    return True


def same_strides(sizes: Sequence[object], have: Sequence[object], want: Sequence[object]) -> bool:
    """Whether strides agree wherever they count: not in dimensions of size 1, and nowhere in a tensor
    without elements."""
    pairs = zip(sizes, have, want, strict=True)
    return have == want or 0 in sizes or all(n == 1 or a == b for n, a, b in pairs)


@overload
def span(sizes: Sequence[int], strides: Sequence[int]) -> int: ...
@overload
def span(sizes: Sequence[ExprLike], strides: Sequence[ExprLike]) -> ExprLike: ...
def span(sizes: Sequence[Any], strides: Sequence[Any]) -> Any:
    """Elements from a tensor's first to its last, both included; 0 where there are none."""
    if 0 in sizes:
        return 0
    return 1 + sum([(n - 1) * step for n, step in zip(sizes, strides, strict=True)])


def overlaps_itself(sizes: Sequence[int], strides: Sequence[int]) -> bool:
    """Whether two elements of a tensor may share a place in memory: False where each step is longer than all
    that the smaller ones span."""
    if 0 in sizes:
        return False
    reach = 0
    for stride, size in sorted((s, n) for n, s in zip(sizes, strides, strict=True) if n > 1):
        if stride <= reach:
            return True
        reach += (size - 1) * stride
    return False


# -- tensors ------------------------------------------------------------------------------------------------
def byte_span(tensor: torch.Tensor) -> int:
    """Bytes from a tensor's first element to the end of its last."""
    return span(tensor.shape, tensor.stride()) * tensor.element_size()


def restrided(tensor: torch.Tensor, strides: Sequence[int]) -> torch.Tensor:
    """A tensor with these strides: itself where those that count are the same, else a copy. Raises
    `InputMismatchError` for strides by which elements of the copy would share memory."""
    if same_strides(tensor.shape, tensor.stride(), strides):
        return tensor
    if overlaps_itself(tensor.shape, strides):
        raise InputMismatchError(
            f"its strides are {tensor.stride()}, and not {tuple(strides)}, by which elements of a tensor of"
            f" {tuple(tensor.shape)} share memory"
        )
    return torch.empty_strided(tensor.shape, strides, dtype=tensor.dtype, device=tensor.device).copy_(tensor)


# -- the spec -----------------------------------------------------------------------------------------------
class TensorSpec(Node, Generic[N], frozen=True):
    """The type of a tensor's elements, and where they lie in its storage: ``offset`` is that of the first
    one. Numbers are expressions, or integers where nothing is symbolic; None stands for one that does not
    matter."""

    dtype: torch.dtype
    sizes: tuple[N, ...]
    strides: tuple[N, ...]
    offset: Expr = ZERO
    device: str = HOST

    def __str__(self) -> str:
        """``float32[2, s0] stride (s0, 1)``."""
        return torch_name(self.dtype) + self.geometry

    # -- of one whose numbers are all expressions ---------------------------------------------------------
    def index(self: TensorSpec[Expr], indices: Sequence[Expr]) -> Expr:
        """Where one element lies in the storage."""
        total = self.offset
        for i, step in zip(indices, self.strides, strict=True):
            total = total + i * step
        return total

    def at(
        self: TensorSpec[Expr], numbers: Mapping[str, int]
    ) -> tuple[tuple[int, ...], tuple[int, ...], int]:
        """Sizes, strides and offset for these values of the symbols."""
        sizes, strides = (tuple([e.evaluate(numbers) for e in each]) for each in (self.sizes, self.strides))
        return sizes, strides, self.offset.evaluate(numbers)

    @property
    def numel(self: TensorSpec[Expr]) -> Expr:
        return product(self.sizes)

    @property
    def extent(self: TensorSpec[Expr]) -> Expr:
        """One more than the greatest place in the storage that is addressed (0 for an empty tensor)."""
        reach = as_expr(span(self.sizes, self.strides))
        return ZERO if reach == 0 else self.offset + reach

    def has_strides(self: TensorSpec[Expr], strides: Sequence[Expr]) -> bool:
        """Whether the strides are these, wherever they count."""
        return same_strides(self.sizes, self.strides, strides)

    @property
    def is_contiguous(self: TensorSpec[Expr]) -> bool:
        """Row-major without gaps."""
        return self.has_strides(contiguous_strides(self.sizes))

    @property
    def is_dense(self: TensorSpec[Expr]) -> bool:
        """See the function of this name."""
        return is_dense(self.sizes, self.strides)

    @property
    def is_injective(self: TensorSpec[Expr]) -> bool:
        """Without overlap, so that every element can be written, though there may be gaps."""
        if self._is_stacked():
            return True
        reached = ONE
        for dim in stride_order(self.sizes, self.strides):
            if self.sizes[dim] == 1:
                continue
            if not known_nonnegative(self.strides[dim] - reached):
                return False
            reached = reached + (self.sizes[dim] - 1) * self.strides[dim]
        return True

    def _is_stacked(self: TensorSpec[Expr]) -> bool:
        """Whether each stride is the next smaller one times that one's size. A size that may be 0 can count
        as 1, as it does in torch: ``max(1, n)``, of which nothing else could be proven."""
        left = [dim for dim, n in enumerate(self.sizes) if n != 1]
        steps: tuple[Expr, ...] = (ONE,)
        while left:
            dim = next((d for d in left if self.strides[d] in steps), None)
            if dim is None:
                return False
            left.remove(dim)
            steps = (self.strides[dim] * self.sizes[dim], self.strides[dim] * maximum(1, self.sizes[dim]))
        return True

    def difference(
        self: TensorSpec[ExprLike | None], tensor: torch.Tensor, numbers: Mapping[str, int]
    ) -> tuple[str, object, object] | None:
        """The first property in which a tensor is not like this, what it has, and what it should have; None
        where it fits. ``numbers`` are the values of the symbols. Strides have to agree wherever they
        count."""
        device = str(tensor.device) if ":" in self.device else tensor.device.type
        for what, have, want in (
            ("device", device, self.device),
            ("layout", tensor.layout, torch.strided),
            ("dtype", tensor.dtype, self.dtype),
        ):
            if have != want:
                return what, have, want
        shape, steps = tuple(tensor.shape), tensor.stride()
        if len(shape) != len(self.sizes):
            return "sizes", shape, self.sizes
        sizes, strides = _values(self.sizes, numbers), _values(self.strides, numbers)
        if _filled(sizes, shape) != shape:
            return "sizes", shape, sizes
        if not same_strides(shape, steps, _filled(strides, steps)):
            return "strides", steps, strides
        return None

    @property
    def numbers(self) -> tuple[N | Expr, ...]:
        """The sizes, strides and offset."""
        return (*self.sizes, *self.strides, self.offset)

    @property
    def geometry(self) -> str:
        """The sizes and strides, for people."""
        return f"[{listed(self.sizes)}] stride ({listed(self.strides)})"


def _values(wanted: Sequence[ExprLike | None], numbers: Mapping[str, int]) -> tuple[int | None, ...]:
    return tuple([e.evaluate(numbers) if isinstance(e, Expr) else e for e in wanted])


def _filled(wanted: Sequence[int | None], have: Sequence[int]) -> tuple[int, ...]:
    """``wanted``, with what does not matter as it is."""
    return tuple([n if want is None else want for want, n in zip(wanted, have, strict=True)])


Layout: TypeAlias = TensorSpec[Expr]


def tensor_spec(
    dtype: torch.dtype,
    sizes: Sequence[ExprLike],
    strides: Sequence[ExprLike] | None = None,
    offset: ExprLike = ZERO,
    device: str = HOST,
) -> Layout:
    """A spec of numbers of either kind; row-major unless there are ``strides``."""
    strides = contiguous_strides(sizes) if strides is None else strides
    return TensorSpec(dtype, exprs(sizes), exprs(strides), as_expr(offset), device)
