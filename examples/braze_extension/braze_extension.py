"""Operators of a library that Braze is taught about, each in another way."""

from __future__ import annotations

from typing import Any

import torch

import braze

__all__ = ["blend", "centred", "drop_doubled_relus", "enable_passes", "gated"]


# -- a lowering ---------------------------------------------------------------------------------------------
@torch.library.custom_op("extension_example::gated", mutates_args=())
def gated(x: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
    """``x`` times the sigmoid of ``gate``."""
    return x * torch.sigmoid(gate)


@gated.register_fake
def _(x: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
    return x.new_empty(torch.broadcast_shapes(x.shape, gate.shape))


def _keep(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _gated_backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    x, gate = ctx.saved_tensors
    s = torch.sigmoid(gate)
    return (grad * s).sum_to_size(x.shape), (grad * x * s * (1 - s)).sum_to_size(gate.shape)


gated.register_autograd(_gated_backward, setup_context=_keep)


@braze.lowering(gated)
def _gated_element(x: Any, gate: Any) -> Any:
    return x * braze.ops.sigmoid(gate)


# -- a call by design, into planned memory ------------------------------------------------------------------
@torch.library.custom_op("extension_example::blend", mutates_args=())
def blend(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """A quarter of ``x`` and three of ``y``; it stands for a kernel that is worth a call."""
    return torch.lerp(x, y, 0.75)


@blend.register_fake
def _(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)


@torch.library.custom_op("extension_example::blend_out", mutates_args=("out",))
def blend_out(x: torch.Tensor, y: torch.Tensor, out: torch.Tensor) -> None:
    """The same, into ``out``."""
    torch.lerp(x, y, 0.75, out=out)


braze.extern(blend, out=blend_out, reason="the library's own kernel")


# -- a decomposition ----------------------------------------------------------------------------------------
@torch.library.custom_op("extension_example::centred", mutates_args=())
def centred(x: torch.Tensor) -> torch.Tensor:
    """``x`` less the mean of each row."""
    return x - x.mean(-1, keepdim=True)


@centred.register_fake
def _(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)


@braze.decomposition(centred)
def _centred_apart(x: torch.Tensor) -> torch.Tensor:
    return x - x.mean(-1, keepdim=True)


# -- a graph pass -------------------------------------------------------------------------------------------
def drop_doubled_relus(gm: torch.fx.GraphModule) -> None:
    """A relu of a relu is that relu."""
    relu = torch.ops.aten.relu.default
    for node in gm.graph.find_nodes(op="call_function", target=relu):
        inner = node.args[0]
        if inner.op == "call_function" and inner.target is relu:
            node.replace_all_uses_with(inner)
            gm.graph.erase_node(node)


def enable_passes() -> None:
    """Have `drop_doubled_relus` run on every graph of this process."""
    braze.graph_pass(drop_doubled_relus)
