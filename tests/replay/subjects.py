"""What the recorded graphs come from: programs that are compiled and run once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import braze
from tests.models import zoo

Program = Callable[..., Any]
Subject = Callable[[], Any]

_SEED = 20240


def _compiled(fn: Program, **options: Any) -> Program:
    return torch.compile(fn, backend="braze", **options)


def _inference(fn: Program, *shapes: Sequence[int], dtype: torch.dtype = torch.float32) -> Subject:
    def run() -> Any:
        with torch.no_grad():
            return _compiled(fn)(*[torch.rand(s, dtype=dtype) for s in shapes])

    return run


def _dynamic(fn: Program, *shapes: Sequence[int]) -> Subject:
    def run() -> Any:
        with torch.no_grad():
            return _compiled(fn, dynamic=True)(*[torch.rand(s) for s in shapes])

    return run


def _training(fn: Program, *shapes: Sequence[int], dynamic: bool = False) -> Subject:
    def run() -> Any:
        inputs = [torch.rand(s, requires_grad=True) for s in shapes]
        _compiled(fn, dynamic=dynamic)(*inputs).sum().backward()

    return run


def _fused(fn: Program, *shapes: Sequence[int]) -> Subject:
    return lambda: braze.fuse(fn)(*[torch.rand(s) for s in shapes])


def _model(name: str) -> Subject:
    def run() -> None:
        model = zoo.find(name)
        module, inputs = model.make("test")
        compiled = _compiled(module)
        with model.context():
            result = compiled(**inputs)
        if model.kind == "training":
            result.backward()

    return run


def _indexed(x: Tensor, y: Tensor) -> Tensor:
    places = (y[:, 0] * 15).long()
    return x[places] * 2 + x.gather(0, places[:, None].expand(-1, x.shape[1]))


def _scattered(x: Tensor, y: Tensor) -> Tensor:
    places = (y[:, 0] * 15).long()
    return torch.zeros_like(x).index_add(0, places, y).relu()


def _in_place(x: Tensor, y: Tensor) -> Tensor:
    x[:, 1:].add_(y[:, :-1])
    x.mul_(2)
    return x.sum(0)


def _attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    weights = (q @ k.transpose(-1, -2) * 0.125).softmax(-1)
    return F.dropout(weights, 0.1) @ v


def _norm_gelu(x: Tensor, w: Tensor) -> Tensor:
    return F.gelu(F.layer_norm(x, (x.shape[-1],), w)) + x


def _chain(x: Tensor, y: Tensor) -> Tensor:
    for _ in range(4):
        x = torch.tanh(x * y + 0.5).exp() - y.sqrt()
    return x


SUBJECTS: dict[str, Subject] = {
    # elementwise, at lengths with and without a tail
    "chain": _inference(_chain, (4096,), (4096,)),
    "chain-tail": _inference(_chain, (13, 7), (13, 7)),
    "chain-bfloat16": _inference(_chain, (64, 100), (64, 100), dtype=torch.bfloat16),
    "chain-float64": _inference(_chain, (64, 100), (64, 100), dtype=torch.float64),
    "broadcast": _inference(lambda x, y: x[:, None] * y + x.sum(), (33,), (50,)),
    "transposed": _inference(lambda x, y: (x.t() + y).exp(), (96, 70), (70, 96)),
    "channels": _inference(
        lambda x: F.relu(x.contiguous(memory_format=torch.channels_last)) * 2, (2, 16, 9, 11)
    ),
    "strided": _inference(lambda x: x[::2, 1::3] * 2 + x.flip(1)[::2, 1::3], (40, 60)),
    "integers": _inference(lambda x: ((x * 90).int() // 7 % 5 << 2) ^ 3, (1000,)),
    "bools": _inference(lambda x, y: ((x > 0.5) & (y < x)).any(1) | x.isnan().all(1), (20, 30), (20, 30)),
    "random": _inference(lambda x: torch.rand_like(x) * x + torch.randn_like(x), (999,)),
    # reductions and rows
    "sum-all": _inference(lambda x: (x * 2).sum(), (100_000,)),
    "sum-rows": _inference(lambda x: [x.sum(1), x.mean(1), x.amax(1)], (64, 1000)),
    "sum-columns": _inference(lambda x: x.sum(0) / x.amax(0), (1000, 70)),
    "arg-reductions": _inference(lambda x: [x.argmax(1), *x.min(0)], (33, 100)),
    "softmax": _inference(lambda x: x.softmax(-1), (64, 1000)),
    "softmax-columns": _inference(lambda x: x.softmax(0), (100, 64)),
    "softmax-bfloat16": _inference(lambda x: x.softmax(-1), (8, 50), dtype=torch.bfloat16),
    "norm-gelu": _inference(_norm_gelu, (32, 768), (768,)),
    "group-norm": _inference(lambda x: F.silu(F.group_norm(x, 4)), (2, 16, 12, 12)),
    "variance": _inference(lambda x: torch.var_mean(x, 1), (16, 5000)),
    "cumulative": _inference(lambda x: x.cumsum(1) * x.cumsum(0), (20, 130)),
    # memory
    "cat-pad": _inference(lambda x, y: F.pad(torch.cat([x, y * 2], 1), (1, 2)).exp(), (9, 20), (9, 31)),
    "indexed": _inference(_indexed, (16, 40), (30, 4)),
    "scattered": _inference(_scattered, (16, 4), (30, 4)),
    "in-place": _inference(_in_place, (30, 40), (30, 40)),
    "interpolated": _inference(lambda x: F.interpolate(x, scale_factor=2.0, mode="bilinear"), (1, 3, 8, 8)),
    "pooled": _inference(lambda x: F.max_pool2d(x, 3, 2) + F.avg_pool2d(x, 3, 2), (1, 8, 15, 15)),
    "sorted": _inference(lambda x: (x * 2).sort(1).values.exp(), (6, 20)),
    "branches": _inference(
        lambda x: torch.cond(x.sum() > 9, lambda x: x.sin() + 1, lambda x: x.cos() * 2, (x,)), (4, 5)
    ),
    # several sizes in one piece of code
    "dynamic-norm": _dynamic(_norm_gelu, (8, 48), (48,)),
    "dynamic-softmax": _dynamic(lambda x: x[1:].softmax(-1).sum(0), (7, 33)),
    "dynamic-attention": _dynamic(_attention, (2, 3, 9, 16), (2, 3, 9, 16), (2, 3, 9, 16)),
    "dynamic-train": _training(_norm_gelu, (8, 48), (48,), dynamic=True),
    # forward and backward
    "norm-train": _training(_norm_gelu, (32, 200), (200,)),
    "attention-train": _training(_attention, (2, 2, 12, 16), (2, 2, 12, 16), (2, 2, 12, 16)),
    "embedding-train": _training(lambda w, x: w[(x[:, 0] * 10).long()].tanh() @ x.t(), (10, 6), (5, 6)),
    # the fuser's
    "fused-chain": _fused(_chain, (100,), (100,)),
    "fused-broadcast": _fused(lambda x, y: torch.relu(x + y) * 2, (12, 20), (20,)),
    "fused-softmax": _fused(lambda x: torch.softmax(x * 2, -1), (12, 20)),
    # models
    **{
        f"model-{name}": _model(name)
        for name in (
            "bert",
            "llama-bfloat16",
            "resnet18",
            "mobilenet",
            "lstm",
            "dlrm",
            "gpt2-train",
            "convnet-train",
        )
    },
}


def run(name: str) -> None:
    """Compile and run one of them, from a fresh start."""
    torch._dynamo.reset()
    torch.manual_seed(_SEED)
    SUBJECTS[name]()
