"""Where a thread is."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch

from braze._torch.frames import is_compiling


def test_it_is_compiling_while_dynamo_traces_and_not_while_its_code_runs() -> None:
    seen: list[bool] = []

    def look() -> None:
        seen.append(is_compiling(sys._getframe()))

    def backend(module: torch.fx.GraphModule, _: Any) -> Callable[..., Any]:
        look()

        def run(*inputs: Any) -> Any:
            look()
            return module.forward(*inputs)

        return run

    compiled: Callable[..., Any] = torch.compile(lambda x: x + 1, backend=backend)
    look()
    compiled(torch.ones(3))
    compiled(torch.ones(3))
    assert seen == [False, True, False, False]
    assert not is_compiling(None)
