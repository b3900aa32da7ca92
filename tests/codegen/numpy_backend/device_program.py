"""Graphs on the made-up device, from tracing to results. A process of its own: PyTorch keeps the device."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

from braze import config
from braze.artifact.compiled_graph import CompiledFxGraph
from braze.compile.cached import CachedFxCompile
from braze.compile.fx_compile import CompileRequest
from braze.compile.in_process import InProcessFxCompile
from braze.compile.out_of_process import OutOfProcessFxCompile
from braze.compile.workers.pool import CompilePool
from braze.frontend.decompositions import decompositions
from braze.runtime.callgen import source_of
from tests.codegen.numpy_backend import device, on_device
from tests.codegen.numpy_backend.backend import DEVICE, LAUNCHED

aten = torch.ops.aten


def softmax(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return (aten._softmax.default(aten.mul.Tensor(x, y), -1, False),)


def pointwise(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return (aten.add.Tensor(aten.sin.default(x), y), aten.tanh.default(x))


def reductions(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return (aten.sum.dim_IntList(x, [0]), aten.amax.default(y, [1]))


def normalised(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, ...]:
    centred = aten.sub.Tensor(x, aten.mean.dim(x, [1], True))
    return (aten.mul.Tensor(centred, aten.sum.dim_IntList(aten.exp.default(y), [0])),)


GRAPHS: tuple[Callable[..., Any], ...] = (softmax, pointwise, reductions, normalised)


def request_of(function: Callable[..., Any], number: int, **options: Any) -> CompileRequest:
    """A function of two matrices on the device as a request."""
    mode = FakeTensorMode()
    with mode:
        example = tuple([torch.empty(6, 8, device=DEVICE) for _ in range(2)])
        gm = make_fx(function, decompositions(config.current()))(*example)
    for node, value in zip(gm.graph.find_nodes(op="placeholder"), example, strict=True):
        node.meta["val"] = value
    (output,) = gm.graph.find_nodes(op="output")
    output.args = (tuple(output.args[0]),)
    gm.recompile()
    options = config.current().replace(strict=True, **options)
    count = len(output.args[0])
    return CompileRequest(gm, example, frozenset(), count, options, "inference", number)


def check(code: Any, function: Callable[..., Any]) -> None:
    """That code on the device agrees with eager PyTorch here."""
    assert isinstance(code, CompiledFxGraph), code
    (part,) = code.variant().info.parts
    assert part.kind == "numpy" and all(i.device == DEVICE for i in code.info.inputs)  # type: ignore[union-attr]
    x, y = torch.randn(6, 8), torch.randn(6, 8)
    LAUNCHED.clear()
    results = code.run([device.to_device(x), device.to_device(y)])
    assert LAUNCHED
    for result, wanted in zip(results, function(x, y), strict=True):
        assert result.device.type == DEVICE
        torch.testing.assert_close(result.array, wanted)


def main() -> None:
    assert on_device.NUMPY.kind == "numpy"
    with config.patch(cache=False):
        for number, function in enumerate(GRAPHS):
            code = InProcessFxCompile().compile(request_of(function, number))
            check(code, function)
            plan = str(code.info.variants[0].plan)  # type: ignore[attr-defined]
            assert "stream of numpy" in plan and f"on {DEVICE}" in plan, plan
            assert "_stream" in source_of(code.run), source_of(code.run)
            loaded = CompiledFxGraph.after_deserialization(code.prepare_for_serialization(), trusted=True)
            loaded.post_compile()
            check(loaded, function)
        with CompilePool(workers=1) as pool:
            code = OutOfProcessFxCompile(pool).compile(request_of(softmax, 10))
            assert code.report is None, "it was compiled in this process"
            check(code, softmax)
    with tempfile.TemporaryDirectory() as folder, config.patch(cache=True, cache_dir=folder):
        for _ in range(2):
            code = CachedFxCompile(InProcessFxCompile()).compile(
                request_of(softmax, 11, cache=True, cache_dir=folder)
            )
            check(code, softmax)
        assert code.report is None, "it was not in the cache"  # type: ignore[attr-defined]
    print("all agree")


if __name__ == "__main__":
    main()
