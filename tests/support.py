"""The one place where the measuring side of the tests meets the compiler.

Everything under `tests/models`, `tests/opinfo`, `tests/bad_input` and `benchmarks` compiles through
`compile_with` and asks what happened through `watch`, so that the same checks can be run against any
Dynamo backend (`BRAZE_TEST_BACKEND=aot_eager`), which is how the checks themselves are checked.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

BACKEND = os.environ.get("BRAZE_TEST_BACKEND", "braze")

# The operators that stay whole and are called in ATen: matrix products, convolution, attention, pooling,
# sorting, and the backward operators of these. A name here is an ATen operator without namespace and
# overload. `seeds` is Braze's own: it draws the seeds of random kernels from torch's generator.
ALLOWED_EXTERNS = frozenset(
    """
    mm addmm bmm baddbmm linear
    convolution convolution_backward
    scaled_dot_product_attention
    _scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_flash_attention_for_cpu_backward
    avg_pool1d avg_pool2d avg_pool3d avg_pool2d_backward avg_pool3d_backward
    max_pool2d_with_indices max_pool3d_with_indices
    max_pool2d_with_indices_backward max_pool3d_with_indices_backward
    adaptive_avg_pool1d _adaptive_avg_pool2d _adaptive_avg_pool3d
    _adaptive_avg_pool2d_backward _adaptive_avg_pool3d_backward
    adaptive_max_pool2d adaptive_max_pool3d adaptive_max_pool2d_backward adaptive_max_pool3d_backward
    fractional_max_pool2d fractional_max_pool3d
    fractional_max_pool2d_backward fractional_max_pool3d_backward
    max_unpool2d max_unpool3d
    sort topk
    seeds
    """.split()
)


@dataclass(frozen=True)
class Fallback:
    """An operator, or a graph, that was given to eager PyTorch, and why."""

    op: str
    reason: str
    source: str = ""

    def __str__(self) -> str:
        return f"{self.op}: {self.reason}"


@dataclass
class Stats:
    """What a backend did between entering and leaving `watch`.

    graphs: graphs that Dynamo handed over. kernels, externs, fallbacks, eager_graphs: known for Braze only,
    where `detailed` is True. externs counts operators by name; eager_graphs counts graphs run wholly by
    eager operators.
    """

    graphs: int = 0
    kernels: int = 0
    externs: Mapping[str, int] = field(default_factory=dict)
    fallbacks: Sequence[Fallback] = ()
    eager_graphs: int = 0
    detailed: bool = False

    @property
    def foreign_externs(self) -> list[str]:
        """Names of the externs that are not on the list of operators kept whole, sorted."""
        return sorted(name for name in self.externs if bare_name(name) not in ALLOWED_EXTERNS)

    @property
    def undeclared_externs(self) -> list[str]:
        """Names of the externs that no row of Braze's own table declares (docs/operators.md), sorted."""
        from braze.lowering.externs import (
            BY_DESIGN,
        )  # lazily, so that the checks can be run on other backends

        declared = {name for _, names in BY_DESIGN for name in names.split()}
        return [name for name in self.foreign_externs if bare_name(name) not in declared]


def bare_name(op: str) -> str:
    """`aten.mm.default`, `aten::mm` and `torch.ops.aten.mm.out` are all `mm`."""
    name = op.replace("::", ".").removeprefix("torch.ops.").removeprefix("aten.")
    return name.split(".")[0]


def backend_by_name(name: str) -> Callable[..., Any]:
    """The Dynamo backend of that name, as a function of a graph and example inputs."""
    from torch._dynamo import lookup_backend  # heavy, and needed only for backends other than Braze

    backend: Callable[..., Any] = lookup_backend(name)
    return backend


class _Counting:
    """A Dynamo backend that counts the graphs which it passes on to another one."""

    def __init__(self, name: str) -> None:
        self.graphs = 0
        self._inner = backend_by_name(name)

    def __call__(
        self, graph: torch.fx.GraphModule, inputs: Sequence[Any], **kwargs: Any
    ) -> Callable[..., Any]:
        result = self._inner(graph, inputs, **kwargs)
        self.graphs += 1  # only now: AOTAutograd may ask Dynamo to trace again, which it does by an exception
        return result


_counting: dict[str, _Counting] = {}


def compile_with(
    fn: Callable[..., Any],
    backend: str = BACKEND,
    *,
    strict: bool = False,
    fallback_random: bool = False,
    dynamic: bool | None = None,
    fullgraph: bool = False,
) -> Callable[..., Any]:
    """`torch.compile` with a backend by name; `strict` and `fallback_random` mean something to Braze only."""
    if backend == "eager-python":
        return fn
    if backend == "braze":
        options = {
            name: True for name, on in (("strict", strict), ("fallback_random", fallback_random)) if on
        }
        compiled = torch.compile(
            fn, backend="braze", dynamic=dynamic, fullgraph=fullgraph, options=options or None
        )
        return compiled
    counting = _counting.setdefault(backend, _Counting(backend))
    return torch.compile(fn, backend=counting, dynamic=dynamic, fullgraph=fullgraph)


@contextlib.contextmanager
def watch(backend: str = BACKEND) -> Iterator[Stats]:
    """Yields a `Stats` which is filled when the block is left."""
    result = Stats()
    if backend == "braze":
        import braze.inspect  # lazily, so that the checks can be run on other backends

        before = braze.inspect.stats()
        try:
            yield result
        finally:
            _fill(result, before, braze.inspect.stats())
        return
    counting = _counting.setdefault(backend, _Counting(backend))
    start = counting.graphs
    try:
        yield result
    finally:
        result.graphs = counting.graphs - start


def _fill(result: Stats, before: Any, after: Any) -> None:
    """The difference of two cumulative `braze.inspect.stats()`."""
    result.detailed = True
    result.graphs = after.graphs - before.graphs
    result.kernels = after.kernels - before.kernels
    result.eager_graphs = after.eager_graphs - before.eager_graphs
    counts = {name: count - before.externs.get(name, 0) for name, count in after.externs.items()}
    result.externs = {name: count for name, count in counts.items() if count}
    new = after.fallbacks[len(before.fallbacks) :]
    result.fallbacks = tuple(
        Fallback(str(f.op), str(f.reason), str(getattr(f, "source", "") or "")) for f in new
    )


def reset() -> None:
    """Forgets every compiled function, as a new process would."""
    torch.compiler.reset()
