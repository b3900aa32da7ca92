"""A fused function against the function itself, by results, gradients and what became of the arguments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

import braze
from tests.numerics import assert_agrees, in_float64, leaves, map_tensors

__all__ = ["check", "copies", "gradients_of", "made"]


def copies(tree: Any) -> Any:
    """The same values in the same layout, in memory of their own; leaves that require gradients as before."""
    if isinstance(tree, torch.Tensor):
        base = torch.empty(0, dtype=tree.dtype).set_(tree.detach().untyped_storage().clone())
        fresh = base.as_strided(tree.shape, tree.stride(), tree.storage_offset())
        return fresh.requires_grad_(tree.requires_grad)
    if isinstance(tree, (list, tuple)):
        items = [copies(item) for item in tree]
        return type(tree)(*items) if hasattr(tree, "_fields") else type(tree)(items)
    if isinstance(tree, dict):
        return {key: copies(item) for key, item in tree.items()}
    return tree


def gradients_of(result: Any, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor | None]:
    """Gradients of the inputs for the same random gradients of the results, every time."""
    outputs = [leaf for _, leaf in leaves(result) if isinstance(leaf, torch.Tensor) and leaf.requires_grad]
    generator = torch.Generator().manual_seed(3)
    # numbers that every type has: the reference in float64 gets the very same ones
    seeds = [torch.randn(o.shape, generator=generator).bfloat16().to(o.dtype) for o in outputs]
    return list(torch.autograd.grad(outputs, inputs, seeds, allow_unused=True))


def outcome(function: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Everything that a call does."""
    args, kwargs = copies(list(args)), copies(kwargs)
    inputs = [leaf for _, leaf in leaves([args, kwargs]) if isinstance(leaf, torch.Tensor)]
    wanted = [t for t in inputs if t.requires_grad]
    result = function(*args, **kwargs)
    differentiable = any(isinstance(t, torch.Tensor) and t.requires_grad for _, t in leaves(result))
    gradients = gradients_of(result, wanted) if wanted and differentiable else []
    flags = [t.requires_grad for _, t in leaves(result) if isinstance(t, torch.Tensor)]
    return {
        "result": result,
        "arguments": [t.detach() for t in inputs],
        "gradients": gradients,
        "flags": flags,
    }


def check(fused: Callable[..., Any], *args: Any, times: int = 3, strides: bool = True, **kwargs: Any) -> Any:
    """Call a fused function several times (the first call prepares, later ones are fast) and compare each
    with the function itself. Returns the last result."""
    function = fused.__wrapped__  # type: ignore[attr-defined]
    expected = outcome(function, args, kwargs)

    def reference() -> Any:
        return outcome(function, map_tensors(list(args), doubled), map_tensors(kwargs, doubled))

    for _ in range(times):
        actual = outcome(fused, args, kwargs)
        assert_agrees(actual, expected, reference, check_strides=False)
        if strides:  # a gradient may lie in memory as it likes: who adds it up puts it where it belongs
            assert_agrees(actual["result"], expected["result"], check_values=False)
    return actual["result"]


def doubled(tensor: torch.Tensor) -> torch.Tensor:
    """In float64, and a leaf that requires gradients if the tensor does."""
    return in_float64(tensor.detach()).requires_grad_(tensor.requires_grad)  # type: ignore[no-any-return]


def made() -> int:
    """How many kernels there are so far, compiled or found in the cache."""
    return braze.fuser.compiled_kernel_count()
