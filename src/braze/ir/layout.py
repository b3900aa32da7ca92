"""Where the elements of a tensor lie in its storage: sizes, strides, offset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from braze._torch.devices import HOST_DEVICE, is_host
from braze.ops.dtypes import short_name
from braze.runtime import spec
from braze.runtime.expr import ONE, ZERO, Expr, as_expr, known_nonnegative, maximum, product
from braze.runtime.spec import exprs, is_dense, same_strides, span, stride_order

Sizes = tuple[Expr, ...]


def contiguous_strides(size: Sequence[Expr]) -> Sizes:
    """Row-major strides, as expressions."""
    return exprs(spec.contiguous_strides(size))


@dataclass(frozen=True)
class Layout:
    """Element type, sizes, strides and offset (in elements) of a tensor in its storage."""

    dtype: torch.dtype
    size: Sizes
    stride: Sizes
    offset: Expr = ZERO
    device: torch.device = HOST_DEVICE

    def index(self, indices: Sequence[Expr]) -> Expr:
        """The flat element index of one element."""
        total = self.offset
        for i, s in zip(indices, self.stride, strict=True):
            total = total + i * s
        return total

    @property
    def numel(self) -> Expr:
        return product(self.size)

    @property
    def extent(self) -> Expr:
        """One more than the greatest flat index that is addressed (0 for an empty tensor)."""
        reach = as_expr(span(self.size, self.stride))
        return self.offset + reach if reach != 0 else ZERO

    def has_strides(self, stride: Sequence[Expr]) -> bool:
        """Whether the strides are these; those of dimensions of size 1 do not matter."""
        return same_strides(self.size, self.stride, stride)

    @property
    def is_contiguous(self) -> bool:
        """Row-major without gaps; strides of dimensions of size 1 do not matter."""
        return self.has_strides(contiguous_strides(self.size))

    @property
    def is_dense(self) -> bool:
        """Without gaps and without overlap, in some order of the dimensions."""
        return is_dense(self.size, self.stride)

    def _is_stacked(self) -> bool:
        """Whether each stride is the next smaller one times that one's size. A size that may be 0 can count
        as 1, as it does in torch: ``max(1, n)``, of which nothing else could be proven."""
        left = [dim for dim, n in enumerate(self.size) if n.constant != 1]
        steps: tuple[Expr, ...] = (ONE,)
        while left:
            dim = next((d for d in left if self.stride[d] in steps), None)
            if dim is None:
                return False
            left.remove(dim)
            steps = (self.stride[dim] * self.size[dim], self.stride[dim] * maximum(1, self.size[dim]))
        return True

    @property
    def is_injective(self) -> bool:
        """Without overlap, so that every element can be written, though there may be gaps."""
        if self._is_stacked():
            return True
        reached = ONE
        for dim in stride_order(self.size, self.stride):
            if self.size[dim].constant == 1:
                continue
            if not known_nonnegative(self.stride[dim] - reached):
                return False
            reached = reached + (self.size[dim] - 1) * self.stride[dim]
        return True

    def __str__(self) -> str:
        size = ", ".join(map(str, self.size))
        text = f"{short_name(self.dtype)}[{size}]"
        if not self.is_contiguous:
            text += f" strides ({', '.join(map(str, self.stride))})"
        if self.offset != ZERO:
            text += f" + {self.offset}"
        return text if is_host(self.device) else f"{text} on {self.device.type}"


@dataclass(frozen=True)
class FixedLayout(Layout):
    """Sizes, strides and offset that nothing may change."""

    __str__ = Layout.__str__


@dataclass(frozen=True)
class FlexibleLayout(Layout):
    """A dense layout whose order of dimensions may still be chosen: nobody has relied on the strides yet."""

    __str__ = Layout.__str__

    def fix(self, stride: Sequence[Expr] | None = None) -> FixedLayout:
        """The layout with its present strides, or others, for good."""
        return FixedLayout(
            self.dtype, self.size, self.stride if stride is None else tuple(stride), self.offset, self.device
        )


@dataclass(frozen=True)
class NonOwningLayout(Layout):
    """Elements that lie in another buffer's storage, called ``storage``: a piece of it, or all of it, written
    in place."""

    storage: str = ""

    def __str__(self) -> str:
        return f"{Layout.__str__(self)} in {self.storage}"
