"""LSTM layers in traces that record gradients.

A file of its own: it replaces a function of PyTorch's, and goes when that is mended there.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch._decomp import decompositions
from torch.utils._pytree import tree_leaves

__all__ = ["differentiable_lstm"]

_CHOICE, _STEPS = "select_one_layer_lstm_function", "one_layer_lstm"


@contextmanager
def differentiable_lstm() -> Iterator[None]:
    """Inside this block a traced LSTM of a module in evaluation becomes steps of plain operators where
    gradients are recorded, as that of one in training does.

    Otherwise PyTorch traces it as a call of oneDNN's layer, whose forward, run where gradients are off, as in
    compiled code, gives nothing that its backward could use."""
    choose, steps = getattr(decompositions, _CHOICE, None), getattr(decompositions, _STEPS, None)
    if choose is None or steps is None:
        yield
        return

    def choose_with_gradients(input: Any, hx: Any, params: Any) -> Any:
        if torch.is_grad_enabled() and any(t.requires_grad for t in tree_leaves((input, hx, params))):
            return steps
        return choose(input, hx, params)

    with mock.patch.object(decompositions, _CHOICE, choose_with_gradients):
        yield
