"""Results that are written to tensors of the caller's."""

from __future__ import annotations

from typing import Any

import torch

from braze.fuser.arguments import Unfusable, describe

__all__ = ["write_results"]


def write_results(out: Any, result: Any) -> Any:
    """Write what a function returned to ``out``, which has the same structure, as torch's functions do: a
    tensor without elements is resized, a result is converted to the tensor's type if that loses no category.
    Returns ``out``. Raises ``TypeError`` for another structure, ``RuntimeError`` for sizes or types that do
    not fit."""
    given: list[Any] = []
    made: list[Any] = []
    try:
        same = describe(out, "out", given) == describe(result, "the result", made, numbers=False)
    except Unfusable as error:
        raise TypeError(error.what) from None
    if not same:
        raise TypeError("out has to be made like what the function returns: the same tuples, lists and dicts")
    for target, value in zip(given, made, strict=True):
        if not torch.can_cast(value.dtype, target.dtype):
            raise RuntimeError(
                f"result type {value.dtype} can't be cast to the desired output type {target.dtype}"
            )
        if target.device != value.device:
            raise RuntimeError(f"out is on {target.device}, and the result on {value.device}")
        if target.shape != value.shape:
            if target.numel():
                raise RuntimeError(
                    f"out has the sizes {list(target.shape)}, and the result {list(value.shape)}"
                )
            target.resize_(value.shape)
        target.copy_(value)
    return out
