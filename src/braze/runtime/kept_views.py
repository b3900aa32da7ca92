"""Tensors in a workspace that are made once for each of its blocks, and kept with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from braze._torch import native
from braze.runtime.expr import Expr
from braze.runtime.memory import Block
from braze.runtime.plan import Slice, View

__all__ = ["view_maker"]


def view_maker(views: Sequence[Slice | View], key: object) -> Callable[[Block], tuple[torch.Tensor, ...]]:
    """A function that makes these tensors of a block, and keeps them with it."""

    def ints(values: Sequence[Expr]) -> tuple[int, ...]:
        return tuple([v.evaluate({}) for v in values])

    def make(block: Block) -> tuple[torch.Tensor, ...]:
        made: dict[str, torch.Tensor] = {}
        with torch.inference_mode(False):  # they will be used in every mode
            for one in views:
                shape = ints(one.sizes), ints(one.strides)
                offset = one.offset.evaluate({})
                if isinstance(one, Slice):
                    made[one.out] = block.tensor(offset, one.dtype, *shape)
                else:
                    made[one.out] = native.reinterpret_tensor(made[one.base], *shape, offset)
        block.views[key] = tuple(made.values())
        return tuple(made.values())

    return make
