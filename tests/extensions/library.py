"""A library with operators of its own, which tests teach Braze about."""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["library", "ops"]

ops = torch.ops.braze_tests_extensions
library = torch.library.Library("braze_tests_extensions", "DEF")

OUT_CALLS: list[str] = []
"""The out-variants that were called."""


def _define(schema: str, function: Any, fake: Any = None) -> None:
    name = schema.partition("(")[0]
    library.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
    library.impl(name, function, "CompositeExplicitAutograd")
    torch.library.register_fake(f"braze_tests_extensions::{name}", fake or function, lib=library)


def _swish(x: torch.Tensor, beta: float) -> torch.Tensor:
    return x * torch.sigmoid(x * beta)


def _mix(
    a: torch.Tensor, b: torch.Tensor, mask: torch.Tensor, *, scale: float = 2.0, mode: str = "sum"
) -> tuple[torch.Tensor, torch.Tensor]:
    mixed = torch.where(mask, a + b, a - b) if mode == "sum" else torch.where(mask, a * b, a)
    return mixed * scale, mixed > 0


def _middle(x: torch.Tensor) -> torch.Tensor:
    return (x - x.mean(-1, keepdim=True)).contiguous()


def _scaled(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return (x * 3 + y).contiguous()


def _scaled_out(x: torch.Tensor, y: torch.Tensor, out: torch.Tensor) -> None:
    OUT_CALLS.append("scaled_out")
    torch.mul(x, 3, out=out)
    out.add_(y)


_define("swish(Tensor x, float beta) -> Tensor", _swish)
_define('mix(Tensor a, Tensor b, Tensor mask, *, float scale=2.0, str mode="sum") -> (Tensor, Tensor)', _mix)
_define("middle(Tensor x) -> Tensor", _middle)
_define("scaled(Tensor x, Tensor y) -> Tensor", _scaled)
_define("scaled_out(Tensor x, Tensor y, Tensor(a!) out) -> ()", _scaled_out, lambda x, y, out: None)
_define("head(Tensor x) -> Tensor", lambda x: x[:2].clone())
_define("count(Tensor x) -> int", lambda x: x.numel(), lambda x: 1)
library.define("several(Tensor x) -> Tensor")
library.define("several.two(Tensor x, Tensor y) -> Tensor")


def _keep(ctx: Any, inputs: Any, output: Any) -> None:
    x, ctx.beta = inputs
    ctx.save_for_backward(x)


def _swish_backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
    (x,) = ctx.saved_tensors
    s = torch.sigmoid(x * ctx.beta)
    return grad * (s + x * ctx.beta * s * (1 - s)), None


torch.library.register_autograd(
    "braze_tests_extensions::swish", _swish_backward, setup_context=_keep, lib=library
)
