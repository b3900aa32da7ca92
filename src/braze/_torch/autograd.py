"""What a hand-made `autograd.Function` and the code around it need of PyTorch's private side."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any, cast

import torch

__all__ = [
    "autocast_enabled",
    "base_of",
    "creates_graph",
    "current_node",
    "detached_if_view",
    "grad_enabled",
    "in_transform",
    "increment_version",
    "leave_undefined_gradients",
    "mark_dynamic",
    "release_saved",
    "set_grad_enabled",
    "unconnected_inputs",
    "without_autocast",
]

increment_version = cast("Callable[[Iterable[torch.Tensor]], None]", torch.autograd.graph.increment_version)
"""Make autograd notice that these tensors were written to."""

grad_enabled: Callable[[], bool] = torch.is_grad_enabled

set_grad_enabled = cast("Callable[[bool], None]", torch._C._set_grad_enabled)
"""Sets the calling thread's grad mode; a plain function, at a fraction of the context manager's cost."""

without_autocast = cast("Callable[[], AbstractContextManager[None]]", torch._C._DisableAutocast)
"""Inside this context no operator is autocast, on any device."""


current_node = cast("Callable[[], Any]", torch._C._current_autograd_node)
"""The node of autograd's graph whose backward runs in the calling thread, or None."""

_keeps_graph: Callable[[], bool] = torch._C._autograd._get_current_graph_task_keep_graph


def base_of(tensor: torch.Tensor) -> torch.Tensor:
    """What autograd knows a tensor to be a view of; itself where it is none."""
    return tensor if tensor._base is None else tensor._base


def creates_graph() -> bool:
    """Whether the backward that runs in the calling thread was started with ``create_graph=True``. That turns
    the grad mode on; inside the forward of an `autograd.Function` it is off again, as is the mode that
    nothing else turns off."""
    return torch.is_grad_enabled() or (not torch._C._is_fwd_grad_enabled() and _keeps_graph())


def unconnected_inputs(node: Any, tensors: Sequence[Any]) -> list[int]:
    """The inputs of a node of autograd's graph, by number, that require gradients and that nothing computed
    from `tensors` is seen to depend on: neither they nor a result of the node are among these."""
    known = set()
    for tensor in tensors:
        if isinstance(tensor, torch.Tensor) and tensor.requires_grad:
            if tensor.grad_fn is node:
                return []
            edge = torch.autograd.graph.get_gradient_edge(tensor)
            known.add((edge.node, edge.output_nr))
    return [i for i, (into, nr) in enumerate(node.next_functions) if into and (into, nr) not in known]


autocast_enabled: Callable[[], bool] = torch._C._is_any_autocast_enabled
"""Whether autocast is on in the calling thread, for any device."""


def leave_undefined_gradients(ctx: Any) -> None:
    """Gradients of outputs that were marked as not differentiable arrive as None, not as zeros."""
    ctx._materialize_non_diff_grads = False


def release_saved(ctx: Any) -> None:
    """Let go of the saved tensors before the backward runs, unless the graph is to be kept."""
    ctx.maybe_clear_saved_tensors()


def detached_if_view(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor to save for the backward: one that is a view is detached, so that neither its base nor what
    made it are kept alive; its version counter stays the base's."""
    return tensor.detach() if tensor._is_view() else tensor


def in_transform() -> bool:
    """Whether a functorch transform (`vmap`, `grad`, `vjp`, ...) runs in the calling thread."""
    return torch._C._functorch.peek_interpreter_stack() is not None


def mark_dynamic(tensor: torch.Tensor, dims: Sequence[int]) -> None:
    """Tell Dynamo that these dimensions differ from call to call, should the tensor enter another graph."""
    found: set[int] = tensor.__dict__.setdefault(_DYNAMIC, set())
    found.update(dims)


# since torch 2.13 a name of its own for what no guard looks at
_DYNAMIC = (
    "_dynamo_propagated_dynamic_indices"
    if torch.__version__ >= torch.torch_version.TorchVersion("2.13")
    else "_dynamo_weak_dynamic_indices"
)
