"""Graphs on the made-up device, from tracing to results. A process of its own: PyTorch keeps the device."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

from braze import config
from braze.artifact.compiled_graph import CompiledFxGraph
from braze.compile.cached import CachedFxCompile
from braze.compile.fx_compile import CompileRequest
from braze.compile.in_process import InProcessFxCompile
from braze.compile.out_of_process import OutOfProcessFxCompile
from braze.compile.workers import CompilePool
from braze.errors import FallbackError
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


def request_of(
    function: Callable[..., Any], number: int, devices: tuple[str, str] = (DEVICE, DEVICE), **options: Any
) -> CompileRequest:
    """A function of two matrices on these devices as a request."""
    mode = FakeTensorMode()
    with mode:
        example = tuple([torch.empty(6, 8, device=one) for one in devices])
        gm = make_fx(function, decompositions(config.current()))(*example)
    for node, value in zip(gm.graph.find_nodes(op="placeholder"), example, strict=True):
        node.meta["val"] = value
    (output,) = gm.graph.find_nodes(op="output")
    output.args = (tuple(output.args[0]),)
    gm.recompile()
    options = config.current().replace(strict=True, **options)
    count = len(output.args[0])
    return CompileRequest(gm, None, frozenset(), count, options, "inference", number)


def mixed(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Two halves that have nothing to do with each other, with something in between on each side."""
    return tuple([aten.add.Tensor(aten.sum.dim_IntList(aten.sin.default(z), [0]), 1) for z in (x, y)])


def check_mixed() -> None:
    """A graph on two devices: a segment, a workspace and a part of the code for each."""
    code = InProcessFxCompile().compile(request_of(mixed, 20, devices=("cpu", DEVICE)))
    assert isinstance(code, CompiledFxGraph), code
    assert sorted(part.kind for part in code.variant().info.parts) == ["cpu", "numpy"]
    assert {s.device for s in code.report.schedule.segments} == {"cpu", DEVICE}  # type: ignore[attr-defined]
    loaded = CompiledFxGraph.after_deserialization(code.prepare_for_serialization(), trusted=True)
    loaded.post_compile()
    x, y = torch.randn(6, 8), torch.randn(6, 8)
    for one in (code, loaded):
        here, there = one.run([x, device.to_device(y)])
        torch.testing.assert_close(here, mixed(x, y)[0])
        torch.testing.assert_close(there.array, mixed(x, y)[1])


def check_no_kernel_reads_both() -> None:
    """A number in this process's memory beside a matrix on the device: an operator of PyTorch's job."""
    mode = FakeTensorMode()
    with mode:
        example = torch.empty(6, 8, device=DEVICE), torch.empty(())
        gm = make_fx(aten.add.Tensor)(*example)
    for node, value in zip(gm.graph.find_nodes(op="placeholder"), example, strict=True):
        node.meta["val"] = value
    (output,) = gm.graph.find_nodes(op="output")
    output.args = ((output.args[0],),)
    options = config.current().replace(strict=True)
    with pytest.raises(FallbackError, match="it has tensors on cpu and on npy"):
        InProcessFxCompile().compile(CompileRequest(gm, None, frozenset(), 1, options, "inference", 30))


def check(code: Any, function: Callable[..., Any]) -> None:
    """That code on the device agrees with eager PyTorch here."""
    assert isinstance(code, CompiledFxGraph), code
    (part,) = code.variant().info.parts
    assert part.kind == "numpy" and all(i.spec.device == DEVICE for i in code.info.inputs)
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
        check_mixed()
        check_no_kernel_reads_both()
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
