"""A training step with all that the frontend does loads nothing of TorchInductor's compiler."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys
import torch
from torch import nn
from tests.frontend.recording import Recorder

net = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.LayerNorm(8), nn.Dropout(0.5), nn.Linear(8, 2))
for dynamic in (False, True):
    torch.compiler.reset()
    recorder = Recorder()
    compiled = recorder.optimize(net, dynamic=dynamic)
    compiled(torch.randn(3, 4)).sum().backward()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        compiled(torch.randn(3, 4))
    assert recorder.kinds == ["forward", "backward", "inference"], recorder.kinds
loaded = {"torch._inductor." + name for name in ("compile_fx", "lowering", "scheduler")} & set(sys.modules)
assert not loaded, loaded
"""


def test_training_loads_no_other_compiler() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
