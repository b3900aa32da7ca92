"""Fake tensors made from their metadata, and graph modules whose code nobody needs yet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.fx import Graph, GraphModule
from torch.fx._lazy_graph_module import _LazyGraphModule
from torch.fx.experimental.symbolic_shapes import ShapeEnv

__all__ = ["is_plain", "make_fake", "new_fake_mode", "new_graph_module"]

_PLAIN = frozenset({FakeTensor, torch.Tensor, torch.nn.Parameter, torch.nn.Buffer})


def is_plain(tensor: torch.Tensor) -> bool:
    """Whether a tensor is an ordinary one, or stands for one in a trace."""
    return type(tensor) in _PLAIN


def new_fake_mode(env: ShapeEnv) -> FakeTensorMode:
    """A mode for fake tensors whose symbolic sizes are those of `env`."""
    return FakeTensorMode(shape_env=env)


def make_fake(
    mode: FakeTensorMode,
    dtype: torch.dtype,
    size: Sequence[Any],
    stride: Sequence[Any],
    offset: Any = 0,
    device: torch.device | None = None,
    *,
    shares: torch.Tensor | None = None,
    requires_grad: bool = False,
    parameter: bool = False,
) -> torch.Tensor:
    """A fake tensor, on the CPU unless told otherwise, with memory of its own or that of `shares`. Sizes,
    strides and offset are in elements, and may be symbolic. Raises what PyTorch raises for
    impossible ones."""
    if shares is not None:
        with mode:
            memory = shares.untyped_storage()
            value = torch.empty([0], dtype=dtype, device=device or "cpu")
            value.set_(memory, offset, tuple(size), tuple(stride))
    else:
        meta = torch.empty_strided(tuple(size), tuple(stride), dtype=dtype, device="meta")
        if not (isinstance(offset, int) and offset == 0):
            meta = meta.as_strided(tuple(size), tuple(stride), offset)
        value = FakeTensor(mode, meta, device or torch.device("cpu"))
    if requires_grad:
        value.requires_grad_()
    if parameter:
        value._is_param = True
    return value


def new_graph_module(root: torch.nn.Module, graph: Graph) -> GraphModule:
    """A module for a graph whose attributes are those of `root`. Its Python code is generated when it is
    first called."""
    return _LazyGraphModule(root, graph)
