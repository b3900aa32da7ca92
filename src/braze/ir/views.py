"""Views as data: how the indices of the new tensor map to those of the old one, and, where strides can say
the same, the new layout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from msgspec.structs import replace

from braze.ops.dtypes import PARTS
from braze.runtime.expr import ONE, ZERO, Expr, ExprLike, product
from braze.runtime.spec import Layout, contiguous_strides, exprs

Sizes = tuple[Expr, ...]


@dataclass(frozen=True)
class BaseView:
    """A view that gives a tensor of ``size``."""

    size: Sizes

    def indices(self, new: Sequence[Expr]) -> list[Expr]:
        """The old tensor's indices for the new tensor's ``new``."""
        raise NotImplementedError(type(self).__name__)

    def layout(self, old: Layout) -> Layout | None:
        """The new layout over the same storage, ``None`` if strides cannot express the view."""
        raise NotImplementedError(type(self).__name__)


def with_geometry(old: Layout, size: Sizes, stride: Sequence[ExprLike], offset: Expr) -> Layout:
    """``old`` with another geometry over the same storage."""
    return replace(old, sizes=size, strides=exprs(stride), offset=offset)


@dataclass(frozen=True)
class ExpandView(BaseView):
    """Broadcasting to ``size``; the old tensor has ``old_size``, aligned at the last dimension."""

    old_size: Sizes

    def _lead(self) -> int:
        return len(self.size) - len(self.old_size)

    def _repeated(self, dim: int) -> bool:
        return self.old_size[dim] == ONE and self.size[dim + self._lead()] != ONE

    def indices(self, new: Sequence[Expr]) -> list[Expr]:
        lead = self._lead()
        return [ZERO if self._repeated(d) else new[d + lead] for d in range(len(self.old_size))]

    def layout(self, old: Layout) -> Layout | None:
        kept = [ZERO if self._repeated(d) else s for d, s in enumerate(old.strides)]
        return with_geometry(old, self.size, [ZERO] * self._lead() + kept, old.offset)


@dataclass(frozen=True)
class PermuteView(BaseView):
    """Dimension ``k`` of the new tensor is dimension ``dims[k]`` of the old one."""

    dims: tuple[int, ...]

    def indices(self, new: Sequence[Expr]) -> list[Expr]:
        old = [ZERO] * len(new)
        for k, d in enumerate(self.dims):
            old[d] = new[k]
        return old

    def layout(self, old: Layout) -> Layout | None:
        return with_geometry(old, self.size, [old.strides[d] for d in self.dims], old.offset)


@dataclass(frozen=True)
class SqueezeView(BaseView):
    """Without the dimensions ``dropped``, each of size 1 (or selected at index 0)."""

    dropped: tuple[int, ...]

    def indices(self, new: Sequence[Expr]) -> list[Expr]:
        rest = iter(new)
        return [ZERO if d in self.dropped else next(rest) for d in range(len(new) + len(self.dropped))]

    def layout(self, old: Layout) -> Layout | None:
        stride = [s for d, s in enumerate(old.strides) if d not in self.dropped]
        return with_geometry(old, self.size, stride, old.offset)


@dataclass(frozen=True)
class UnsqueezeView(BaseView):
    """With a new dimension of size 1 at ``dim``."""

    dim: int

    def indices(self, new: Sequence[Expr]) -> list[Expr]:
        return [*new[: self.dim], *new[self.dim + 1 :]]

    def layout(self, old: Layout) -> Layout | None:
        inner = old.sizes[self.dim] * old.strides[self.dim] if self.dim < len(old.sizes) else ONE
        stride = [*old.strides[: self.dim], inner, *old.strides[self.dim :]]
        return with_geometry(old, self.size, stride, old.offset)


@dataclass(frozen=True)
class SliceView(BaseView):
    """Elements ``start, start + step, ...`` of dimension ``dim``; a negative step reverses (no layout: torch
    has no negative strides)."""

    dim: int
    start: Expr
    step: int

    def indices(self, new: Sequence[Expr]) -> list[Expr]:
        old = list(new)
        old[self.dim] = old[self.dim] * self.step + self.start
        return old

    def layout(self, old: Layout) -> Layout | None:
        if self.step < 0:
            return None
        stride = list(old.strides)
        offset = old.offset + stride[self.dim] * self.start
        stride[self.dim] = stride[self.dim] * self.step
        return with_geometry(old, self.size, stride, offset)


@dataclass(frozen=True)
class SelectView(BaseView):
    """Index ``index`` of dimension ``dim``, which disappears."""

    dim: int
    index: Expr

    def indices(self, new: Sequence[Expr]) -> list[Expr]:
        return [*new[: self.dim], self.index, *new[self.dim :]]

    def layout(self, old: Layout) -> Layout | None:
        stride = [s for d, s in enumerate(old.strides) if d != self.dim]
        return with_geometry(old, self.size, stride, old.offset + old.strides[self.dim] * self.index)


@dataclass(frozen=True)
class DiagonalView(BaseView):
    """The diagonal ``offset`` of dimensions ``dim1`` and ``dim2``, as the last dimension."""

    dim1: int
    dim2: int
    offset: int

    def _starts(self) -> tuple[int, int]:
        return (0, self.offset) if self.offset >= 0 else (-self.offset, 0)

    def indices(self, new: Sequence[Expr]) -> list[Expr]:
        rest = iter(new[:-1])
        first, second = self._starts()
        place = {self.dim1: new[-1] + first, self.dim2: new[-1] + second}
        return [place[d] if d in place else next(rest) for d in range(len(new) + 1)]

    def layout(self, old: Layout) -> Layout | None:
        first, second = self._starts()
        s1, s2 = old.strides[self.dim1], old.strides[self.dim2]
        rest = [s for d, s in enumerate(old.strides) if d not in (self.dim1, self.dim2)]
        return with_geometry(old, self.size, [*rest, s1 + s2], old.offset + s1 * first + s2 * second)


@dataclass(frozen=True)
class UnfoldView(BaseView):
    """Windows of ``window`` elements, ``step`` apart, along ``dim``; the window is the last dimension."""

    dim: int
    step: int

    def indices(self, new: Sequence[Expr]) -> list[Expr]:
        old = list(new[:-1])
        old[self.dim] = old[self.dim] * self.step + new[-1]
        return old

    def layout(self, old: Layout) -> Layout | None:
        stride = list(old.strides)
        stride[self.dim] = stride[self.dim] * self.step
        return with_geometry(old, self.size, [*stride, old.strides[self.dim]], old.offset)


@dataclass(frozen=True)
class View(BaseView):
    """The same elements in row-major order under another ``size`` (``reshape``); ``old_size`` has as many."""

    old_size: Sizes

    def indices(self, new: Sequence[Expr]) -> list[Expr]:
        if any(s.constant == 0 for s in self.size):
            return [ZERO] * len(self.old_size)
        old: list[Expr] = []
        for old_dims, new_dims in reshape_groups(self.old_size, self.size):
            flat = ZERO
            for d in new_dims:
                flat = flat * self.size[d] + new[d]
            if len(old_dims) == 1:
                old.append(flat)
                continue
            inner = contiguous_strides([self.old_size[d] for d in old_dims])
            for position, d in enumerate(old_dims):
                index = flat // inner[position] if inner[position] != ONE else flat
                old.append(index % self.old_size[d] if position else index)
                if self.old_size[d] == ONE:
                    old[-1] = ZERO
        return old

    def layout(self, old: Layout) -> Layout | None:
        if any(s.constant == 0 for s in self.size):
            return with_geometry(old, self.size, contiguous_strides(self.size), old.offset)
        stride: list[Expr] = []
        for old_dims, new_dims in reshape_groups(self.old_size, self.size):
            real = [d for d in old_dims if old.sizes[d] != ONE]
            for outer, inner in pairwise(real):
                if old.strides[outer] != old.strides[inner] * old.sizes[inner]:
                    return None
            innermost = old.strides[real[-1]] if real else ONE
            local = contiguous_strides([self.size[d] for d in new_dims])
            stride.extend(s * innermost for s in local)
        return with_geometry(old, self.size, stride, old.offset)


@dataclass(frozen=True)
class ComplexAsReal(BaseView):
    """The two parts of complex numbers along a new last dimension. Only memory can be seen so: an element of
    a complex tensor is one value."""

    def layout(self, old: Layout) -> Layout | None:
        strides = [*(step * 2 for step in old.strides), ONE]
        return replace(with_geometry(old, self.size, strides, old.offset * 2), dtype=PARTS[old.dtype])


@dataclass(frozen=True)
class RealAsComplex(BaseView):
    """The last dimension, of two elements next to each other, as complex numbers."""

    def layout(self, old: Layout) -> Layout | None:
        places = (*old.strides[:-1], old.offset)
        halves = [e // 2 for e in places]
        if old.strides[-1] != ONE or any(half * 2 != e for half, e in zip(halves, places)):
            return None
        dtype = next(c for c, part in PARTS.items() if part is old.dtype)
        return replace(with_geometry(old, self.size, halves[:-1], halves[-1]), dtype=dtype)


def reshape_groups(old: Sequence[Expr], new: Sequence[Expr]) -> list[tuple[list[int], list[int]]]:
    """Pair the least runs of dimensions of ``old`` and ``new`` that hold equally many elements.

    The whole of both where the sizes' products cannot be compared on the way.
    """
    groups: list[tuple[list[int], list[int]]] = []
    a = b = 0
    while a < len(old) or b < len(new):
        left, right = [a] if a < len(old) else [], [b] if b < len(new) else []
        a, b = a + len(left), b + len(right)
        while (x := product(old[d] for d in left)) != (y := product(new[d] for d in right)):
            grow_left = _divides(x, y) if a < len(old) else False
            if not grow_left and b >= len(new):
                grow_left = True
            if grow_left and a < len(old):
                left.append(a)
                a += 1
            elif b < len(new):
                right.append(b)
                b += 1
            else:
                return [(list(range(len(old))), list(range(len(new))))]
        if (not left or not right) and groups:
            groups[-1][0].extend(left)
            groups[-1][1].extend(right)
        else:
            groups.append((left, right))
    return groups


def _divides(x: Expr, y: Expr) -> bool:
    """Whether the left side, ``x``, is the one that has to grow to reach ``y``."""
    if x.constant is not None and y.constant is not None:
        return x.constant < y.constant
    if x == ONE:
        return True
    if y == ONE:
        return False
    quotient = y // x
    return quotient * x == y
