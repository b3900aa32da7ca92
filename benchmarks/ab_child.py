"""One side of `benchmarks.ab`: prepares a workload and times turns of it, as the parent asks."""

from __future__ import annotations

import json
import os
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.kernels import KERNELS
from tests.models import zoo

REST = 0.01
"""Seconds before a turn: the other side's threads go on waiting for work for a while."""


def prepared(name: str, quick: bool) -> Callable[[], Any]:
    """The workload of that name, compiled when first called."""
    torch.compiler.reset()
    torch.manual_seed(0)
    for kernel in KERNELS:
        if kernel.name == name:
            inputs = kernel.inputs(1 / 64 if quick else 1.0)
            function = torch.compile(kernel.function, backend="braze", dynamic=False)
            return lambda: function(*inputs)
    (model,) = [m for m in zoo.MODELS if m.name == name]
    module, given = model.make("test" if quick else "bench")
    call = torch.compile(module, backend="braze", dynamic=False)

    def step() -> None:
        if model.kind == "inference":
            with model.context():
                call(**given)
        else:
            module.zero_grad(set_to_none=True)
            zoo.run(model, call, given)

    return step


def main(threads: int) -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever operators and compilers print
    warnings.filterwarnings("ignore")
    torch.set_num_threads(threads)
    step: Callable[[], Any] = int  # nothing, until something is prepared
    for line in sys.stdin:
        request = json.loads(line)
        start = time.perf_counter()
        if "prepare" in request:
            step = prepared(request["prepare"], request["quick"])
            start = time.perf_counter()
            step()
            answer = time.perf_counter() - start
            step()
        else:
            time.sleep(REST)
            step()
            calls, start = 0, time.perf_counter()
            while time.perf_counter() - start < request["seconds"]:
                step()
                calls += 1
            answer = (time.perf_counter() - start) / calls
        print(json.dumps(answer), file=answers)


if __name__ == "__main__":
    main(int(sys.argv[1]))
