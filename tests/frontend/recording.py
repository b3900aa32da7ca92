"""A compiler that runs graphs by eager operators and keeps what it was given."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from braze.artifact.output_code import OpaqueCode
from braze.compile.eager_graph import run_eagerly
from braze.compile.fx_compile import CompileRequest
from braze.frontend.backend import make_backend


@dataclass
class Recorder:
    """An `FxCompile`: its requests in order, and how often their graphs ran, by kind."""

    requests: list[CompileRequest] = field(default_factory=list)
    runs: Counter[str] = field(default_factory=Counter)

    def compile(self, request: CompileRequest) -> OpaqueCode:
        self.requests.append(request)
        code = run_eagerly(request, None)

        def counted(inputs: list[Any]) -> Any:
            self.runs[request.kind] += 1
            return code.run(inputs)

        return OpaqueCode(code.name, counted, code.output_strides)

    @property
    def kinds(self) -> list[str]:
        return [request.kind for request in self.requests]

    def operators(self, index: int = -1) -> Counter[str]:
        """What one recorded graph calls, and how often."""
        nodes = self.requests[index].gm.graph.nodes
        return Counter(operator_name(n.target) for n in nodes if n.op == "call_function")

    def backend(self) -> Callable[..., Any]:
        return make_backend(self)

    def optimize(self, fn: Any, **keywords: Any) -> Any:
        return torch.compile(fn, backend=self.backend(), **keywords)


def operator_name(target: Any) -> str:
    """`aten.add.Tensor`; the bare name of a function that is no operator."""
    text = str(target)
    return text if text.startswith(("aten.", "prims.")) else target.__name__
