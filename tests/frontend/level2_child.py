"""What a process of `test_level2_processes` runs: compiles, calls, and prints what it saw as JSON."""

from __future__ import annotations

import json
import sys

import torch
from torch import nn
from torch._dynamo.utils import counters


def main() -> None:
    torch.manual_seed(3)
    module = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.GELU(), nn.Linear(8, 3))
    train = torch.compile(module, backend="braze")
    x = torch.randn(5, 6)
    losses = []
    for _ in range(3):
        loss = train(x).square().mean()
        loss.backward()
        with torch.no_grad():
            for parameter in module.parameters():
                parameter -= 0.1 * parameter.grad
                parameter.grad = None
        losses.append(loss.item())
    grow = torch.compile(lambda x: (x.relu() + x.shape[0], x.t()), backend="braze", dynamic=True)
    with torch.no_grad():
        sums = [grow(torch.randn(n, 4))[0].sum().item() for n in (3, 6, 9)]
    json.dump(
        {
            "losses": losses,
            "mean": module[1].running_mean.tolist(),
            "sums": sums,
            "traced": counters["aot_autograd"]["total"],
            "compiler": "braze.compile.pipeline" in sys.modules,
        },
        sys.stdout,
    )


if __name__ == "__main__":
    main()
