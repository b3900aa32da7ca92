"""The jobs of fuzzing in a worker whose compiler has three defects: erf is erfc, and sinh and cosh are the
end of it, by an abort and by waiting for ever."""

from __future__ import annotations

import os
import time
from typing import Any

import torch

from braze.inspect.fuzz import jobs
from braze.inspect.fuzz.jobs import JOBS
from braze.lowering import registry

__all__ = ["JOBS", "warm"]

aten = torch.ops.aten


def aborts(*arguments: Any) -> Any:
    os.write(2, b"LLVM ERROR: sinh is cursed\n")
    os.abort()


def hangs(*arguments: Any) -> Any:
    while True:
        time.sleep(60)


def warm() -> None:
    jobs.warm()
    registry.LOWERINGS[aten.erf.default] = registry.LOWERINGS[aten.erfc.default]
    registry.LOWERINGS[aten.sinh.default] = aborts
    registry.LOWERINGS[aten.cosh.default] = hangs
