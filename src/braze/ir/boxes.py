"""What lowerings pass around: tensors whose storage may not have been decided yet.

A :class:`TensorBox` refers to a :class:`StorageBox`, whose content changes once, from loops to a buffer, when
somebody needs it in memory (``Graph.realize``); or to a :class:`ReinterpretView` of a buffer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from braze.ir.buffers import Buffer, Origin, layout_text
from braze.ir.loops import Loops, Pointwise, Sizes
from braze.ir.views import BaseView
from braze.ops.dag import Dag, Node
from braze.ops.dtypes import compute_dtype
from braze.runtime.expr import Expr, ExprLike, as_expr, product
from braze.runtime.spec import Layout


@dataclass(eq=False)
class StorageBox:
    """Loops that are not stored anywhere yet, or the buffer (or part of one) that they became.

    ``stride_hint``: the strides that eager PyTorch gives this tensor, taken where they are dense.
    ``base``: a tensor of which this one is a view, not stored either when this one was made.
    """

    data: Loops | Buffer | ReinterpretView
    stride_hint: Sizes | None = None
    origins: list[Origin] = field(default_factory=list)
    base: tuple[StorageBox, BaseView] | None = None


@dataclass(frozen=True, eq=False)
class ReinterpretView:
    """Part of a buffer's storage under other sizes, strides and offset."""

    buffer: Buffer
    layout: Layout

    def __str__(self) -> str:
        return f"ReinterpretView({self.buffer.name}: {layout_text(self.layout)})"


@dataclass(frozen=True, eq=False)
class TensorBox:
    """A tensor, wherever its elements may come from."""

    data: StorageBox | ReinterpretView

    @staticmethod
    def of(data: Loops | Buffer) -> TensorBox:
        """A tensor in a storage box of its own."""
        return TensorBox(StorageBox(data))

    @property
    def content(self) -> Loops | Buffer | ReinterpretView:
        """The loops, buffer or view behind the boxes."""
        return self.data.data if isinstance(self.data, StorageBox) else self.data

    @property
    def layout(self) -> Layout | None:
        """The layout in memory, ``None`` while there is none."""
        content = self.content
        return None if isinstance(content, Loops) else content.layout

    @property
    def dtype(self) -> torch.dtype:
        content = self.content
        return content.dtype if isinstance(content, Loops) else content.layout.dtype

    @property
    def size(self) -> Sizes:
        content = self.content
        return content.size if isinstance(content, Loops) else content.layout.sizes

    @property
    def ndim(self) -> int:
        return len(self.size)

    @property
    def numel(self) -> Expr:
        return product(self.size)

    @property
    def device(self) -> str:
        content = self.content
        return content.device if isinstance(content, Loops) else content.layout.device

    def load(self, dag: Dag, indices: Sequence[ExprLike]) -> Node:
        """The element at ``indices`` (one for each dimension), in the compute type of ``dtype``."""
        content = self.content
        if isinstance(content, Pointwise):
            return content.at(dag, indices)
        if isinstance(content, Loops):
            raise TypeError(f"{content.kind} must be realized before it is read")
        buffer = content if isinstance(content, Buffer) else content.buffer
        layout = content.layout
        index = layout.index([as_expr(i) for i in indices])
        node = dag.load(buffer.storage, index, layout.dtype)  # a complex index counts pairs, like its layout
        return dag.to_dtype(node, compute_dtype(layout.dtype))

    def __str__(self) -> str:
        return f"TensorBox({self.content})"
