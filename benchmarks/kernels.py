"""The kernels that are measured, each with the least number of bytes that it has to move."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional


@dataclasses.dataclass(frozen=True)
class Kernel:
    """A function and its inputs.

    make(scale) returns the inputs; scale 1 is the full size, smaller ones shrink the first dimension.
    traffic: bytes read and written by one call that keeps everything else in registers and cache, from
    inputs and outputs.
    """

    name: str
    function: Callable[..., Any]
    make: Callable[[float], tuple[torch.Tensor, ...]]

    def inputs(self, scale: float = 1.0) -> tuple[torch.Tensor, ...]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(11)
            return self.make(scale)

    def traffic(self, inputs: tuple[torch.Tensor, ...]) -> int:
        """Bytes of all inputs and all outputs, once each."""
        outputs = self.function(*inputs)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        return sum(t.numel() * t.element_size() for t in (*inputs, *outputs))


def _rows(count: int, scale: float) -> int:
    return max(2, int(count * scale))


def _gelu_chain(x: torch.Tensor) -> torch.Tensor:
    return functional.gelu(torch.tanh(x) * torch.sigmoid(x))


def _softmax_of_layer_norm(x: torch.Tensor, w: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return torch.softmax(functional.layer_norm(x, (x.shape[-1],), w, b), dim=-1)


def _rmsnorm_silu(x: torch.Tensor, w: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
    y = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * w
    return functional.silu(y) * gate


def _bf16_chain(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return functional.relu(x * 1.5 + y) * torch.sigmoid(y) - x


def _group_norm_silu(x: torch.Tensor, w: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return functional.silu(functional.group_norm(x, 32, w, b))


def _dropout(x: torch.Tensor) -> torch.Tensor:
    return functional.dropout(x, 0.5, training=True)


KERNELS: tuple[Kernel, ...] = (
    Kernel("gelu(tanh*sigmoid) 1M", _gelu_chain, lambda s: (torch.randn(_rows(1 << 20, s)),)),
    Kernel(
        "softmax(layer_norm) 2048x1024",
        _softmax_of_layer_norm,
        lambda s: (torch.randn(_rows(2048, s), 1024), torch.rand(1024) + 0.5, torch.randn(1024)),
    ),
    Kernel(
        "silu(rmsnorm)*mul 4096x2048",
        _rmsnorm_silu,
        lambda s: (
            torch.randn(_rows(4096, s), 2048),
            torch.rand(2048) + 0.5,
            torch.randn(_rows(4096, s), 2048),
        ),
    ),
    Kernel("sum dim 0 4096x4096", lambda x: x.sum(0), lambda s: (torch.randn(_rows(4096, s), 4096),)),
    Kernel("sum dim 1 4096x4096", lambda x: x.sum(1), lambda s: (torch.randn(_rows(4096, s), 4096),)),
    Kernel(
        "transpose+add 2048x2048",
        lambda x, y: x.t() + y,
        lambda s: (torch.randn(_rows(2048, s), 2048), torch.randn(2048, _rows(2048, s))),
    ),
    Kernel(
        "bf16 chain 4M",
        _bf16_chain,
        lambda s: tuple(torch.randn(_rows(1 << 22, s)).to(torch.bfloat16) for _ in range(2)),
    ),
    Kernel(
        "cross entropy 256x32000",
        lambda x, t: functional.cross_entropy(x, t),
        lambda s: (torch.randn(_rows(256, s), 32000), torch.randint(0, 32000, (_rows(256, s),))),
    ),
    Kernel(
        "silu(group_norm) 8x256x32x32",
        _group_norm_silu,
        lambda s: (torch.randn(_rows(8, s), 256, 32, 32), torch.rand(256) + 0.5, torch.randn(256)),
    ),
    Kernel("dropout 4M", _dropout, lambda s: (torch.randn(_rows(1 << 22, s)),)),
    Kernel("argmax 2048x4096", lambda x: x.argmax(-1), lambda s: (torch.randn(_rows(2048, s), 4096),)),
)


def one_kernel(x: torch.Tensor) -> torch.Tensor:
    """A function of one small kernel."""
    return torch.tanh(x) * 2 + 1


def chain(steps: int) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """z = z*z + c, `steps` times: each value is used twice."""

    def run(z: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        for _ in range(steps):
            z = z * z + c
        return z

    return run


def chain_inputs() -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs for which the chain stays bounded."""
    generator = torch.Generator().manual_seed(5)
    return torch.rand(1024, generator=generator) * 0.4, torch.rand(1024, generator=generator) * 0.2
