"""The last resort: a graph that could not be compiled, run by eager operators."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch.fx import GraphModule

from braze._torch import tracing
from braze.artifact.output_code import OpaqueCode
from braze.compile.fx_compile import CompileRequest
from braze.runtime.spec import restrided

__all__ = ["run_eagerly"]


def run_eagerly(request: CompileRequest, reason: str | None) -> OpaqueCode:
    """The graph of `request` as a callable that runs its nodes one by one, exactly as PyTorch would.

    Outputs get the strides that the trace promised: a caller, and a backward graph compiled for them, may
    count on those, and an operator may give others than its fake version says."""
    gm = request.gm
    gm.recompile()
    strides = _promised_strides(gm)
    return OpaqueCode(request.name, _runner(gm, strides), tuple(None for _ in strides), reason)


def _promised_strides(gm: GraphModule) -> list[tuple[int, ...] | None]:
    """Those that are plain numbers."""
    return [
        s if s is not None and all(type(n) is int for n in s) else None for s in tracing.promised_strides(gm)
    ]


def _runner(
    gm: GraphModule, promised: Sequence[tuple[int, ...] | None]
) -> Callable[[list[Any]], Sequence[Any]]:
    def run(inputs: list[Any]) -> Sequence[Any]:
        arguments = tuple(inputs)
        inputs.clear()
        outputs = list(gm.forward(*arguments))
        for i, strides in enumerate(promised):
            if strides is not None:
                outputs[i] = restrided(outputs[i], strides)
        return outputs

    return run
