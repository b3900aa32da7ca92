"""What becomes one kernel, what does not and why, and that the result is right either way."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from braze.artifact.output_code import OpaqueCode
from braze.codegen.backends import limits_under
from braze.codegen.llvm.backend import LIMITS
from braze.compile.fx_compile import CompileRequest
from braze.frontend.backend import make_backend
from braze.lowering import families as families
from braze.lowering.graph import GraphLowering
from braze.schedule.fusion import Fuser
from braze.schedule.nodes import build_nodes
from braze.schedule.schedule import Schedule, Segment, schedule, segmented
from tests.compile.requests import request_of
from tests.schedule.reference import ReferenceRun


class Reference:
    """Compiles by scheduling, and runs the schedules by the reference interpreter."""

    def __init__(self) -> None:
        self.schedules: list[Schedule] = []

    def compile(self, request: CompileRequest) -> OpaqueCode:
        lowering = GraphLowering(request.gm, request.config, visible_outputs=request.visible_outputs)
        result = schedule(lowering.run(), limits_under(request.config))
        assert not lowering.fallbacks
        self.schedules.append(result)

        def run(inputs: list[Any]) -> list[Any]:
            values = list(inputs)
            inputs.clear()
            return ReferenceRun(result, values).run()

        return OpaqueCode(request.name, run, tuple(None for _ in result.graph.outputs))


def check(fn: Callable[..., Any], *inputs: torch.Tensor, dynamic: bool = False) -> Schedule:
    """Compile ``fn``, run its kernels by the reference interpreter, and compare with eager."""
    torch._dynamo.reset()
    reference = Reference()
    compiled = torch.compile(fn, backend=make_backend(reference), dynamic=dynamic)
    mine, theirs = [x.clone() for x in inputs], [x.clone() for x in inputs]
    torch.testing.assert_close(compiled(*mine), fn(*theirs), equal_nan=True)
    torch.testing.assert_close(mine, theirs, equal_nan=True)
    (result,) = reference.schedules
    return result


def rand(*size: int) -> torch.Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(len(size)))


def softmax(x: torch.Tensor) -> torch.Tensor:
    return torch.softmax(x, -1)


def gelu_and_sum(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    y = F.gelu(x)
    return y, y.sum(-1)


def norm_then_softmax(x: torch.Tensor) -> torch.Tensor:
    return torch.softmax(F.layer_norm(x, x.shape[-1:]), -1)


def transposed_consumer(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    y = torch.exp(x)
    return y, y.t() * 2


def reshaped_consumer(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    y = torch.exp(x)
    return y, y.view(2, -1, x.shape[1]) + 1


def batch_norm(x: torch.Tensor) -> torch.Tensor:
    return F.relu(F.batch_norm(x, None, None, training=True))


def two_sums(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return x.sum(0), (x * x).sum(0)


def diamond(x: torch.Tensor) -> torch.Tensor:
    y = torch.tanh(x)
    return torch.sin(y) * torch.exp(y) + y


ONE_KERNEL = [
    (softmax, (rand(64, 48),)),
    (gelu_and_sum, (rand(64, 48),)),
    (norm_then_softmax, (rand(64, 96),)),
    (transposed_consumer, (rand(64, 48),)),
    (reshaped_consumer, (rand(64, 48),)),
    (batch_norm, (rand(4, 16, 6, 6),)),
    (two_sums, (rand(64, 48),)),
    (diamond, (rand(64, 48),)),
    (lambda x, w: F.rms_norm(x, (48,), w) * F.silu(x), (rand(64, 48), rand(48))),
    (lambda x: F.silu(F.group_norm(x, 4)), (rand(4, 16, 6, 6),)),
    (lambda x, w: F.group_norm(x, 4, w, w), (rand(4, 16, 6, 6), rand(16))),
    (lambda x: torch.logsumexp(x, -1), (rand(64, 48),)),
    (lambda x: x / x.norm(dim=-1, keepdim=True), (rand(64, 48),)),
]


@pytest.mark.parametrize(("fn", "inputs"), ONE_KERNEL)
def test_one_kernel(fn: Callable[..., Any], inputs: tuple[torch.Tensor, ...]) -> None:
    assert len(check(fn, *inputs).kernels) == 1


def test_a_reduction_over_columns_does_not_join_rows() -> None:
    """Its sums are complete only after all rows, so what uses them starts another kernel."""
    result = check(lambda x: x - x.sum(0), rand(64, 48))
    assert len(result.kernels) == 2
    assert any("repeat" in r.reason or "contiguous" in r.reason for r in result.refusals)


def test_a_shifted_reader_is_refused_with_a_reason() -> None:
    def fn(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = torch.exp(torch.sin(x) + torch.tanh(x))
        return y, y[1:] - y[:-1]

    result = check(fn, rand(4097))
    assert len(result.kernels) == 2
    assert [r for r in result.refusals if "places" in r.reason]


def test_few_long_rows_are_not_fused() -> None:
    """Two long rows would leave threads without work."""
    result = check(softmax, rand(2, 1 << 18))
    assert len(result.kernels) > 1
    assert any("too few" in r.reason for r in result.refusals)


def test_in_place_update_of_an_input() -> None:
    def fn(x: torch.Tensor) -> torch.Tensor:
        y = x * 2
        x.add_(1)
        return y

    check(fn, rand(40))


def test_reading_the_neighbour_of_what_is_overwritten() -> None:
    """The old contents are read at other places than are written: the update must come after."""

    def fn(x: torch.Tensor) -> torch.Tensor:
        y = x.flip(0) + 1
        x.mul_(2)
        return y

    result = check(fn, rand(33))
    assert len(result.kernels) == 2
    segment = result.steps[0]
    assert isinstance(segment, Segment)
    assert segment.kernels[1].barrier


def test_dead_code_is_dropped() -> None:
    def fn(x: torch.Tensor) -> torch.Tensor:
        torch.exp(x).sum()
        return x + 1

    assert len(check(fn, rand(16, 16)).kernels) == 1


def test_externs_split_segments_and_independent_ones_do_not() -> None:
    def fn(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        a = torch.relu(x)
        free = w @ w  # needs nothing of the kernels: it moves before them
        b = torch.tanh(a.sum(0))
        return b + (a @ w).sum(0) + free.sum(0)

    result = check(fn, rand(32, 32), rand(32, 32))
    kinds = ["segment" if isinstance(s, Segment) else "extern" for s in result.steps]
    assert kinds == ["extern", "segment", "extern", "segment"]


def test_symbolic_sizes_keep_one_kernel() -> None:
    torch._dynamo.reset()
    reference = Reference()
    compiled = torch.compile(softmax, backend=make_backend(reference), dynamic=True)
    for size in ((64, 48), (3, 5), (17, 64)):
        x = rand(*size)
        torch.testing.assert_close(compiled(x), softmax(x))
    (result,) = reference.schedules
    (kernel,) = result.kernels
    assert kernel.sizes


def test_the_schedule_prints_as_it_runs() -> None:
    text = str(check(softmax, rand(8, 16)))
    assert "for i0 < 8:" in text
    assert "reduce.max" in text
    assert "workspace of" in text


def test_nothing_is_fused_across_devices() -> None:
    request = request_of(lambda x: (x.sin() + 1, x.cos() * 2), torch.randn(64, 64))
    lowering = GraphLowering(request.gm, request.config, visible_outputs=request.visible_outputs)
    graph = lowering.run()
    limits = limits_under(request.config)
    assert len(Fuser(graph, build_nodes(graph), limits).run()) == 1
    nodes = build_nodes(graph)
    nodes[1].device = "meta"
    one, two = Fuser(graph, nodes, lambda device: LIMITS).run()
    assert (one.device, two.device) == ("cpu", "meta")
    assert len(segmented([one, two])) == 2


def test_how_much_is_fused_is_the_backends_to_say() -> None:
    request = request_of(lambda x: (x.sin() + 1, x.cos() * 2), torch.randn(64, 64))
    lowering = GraphLowering(request.gm, request.config, visible_outputs=request.visible_outputs)
    graph = lowering.run()
    for changed, kernels in ({}, 1), ({"stores": 1}, 2), ({"buffers": 2}, 2), ({"shared_elements": 9999}, 2):
        answers = dataclasses.replace(LIMITS, **changed)
        assert len(schedule(graph, lambda device, answers=answers: answers).kernels) == kernels
