"""What every thread of a segment runs is a program, too: calls of kernels, and barriers between them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from braze.codegen.backends import limits_under
from braze.codegen.llvm.generate import generate
from braze.codegen.llvm.segment import KernelCall, segment_program
from braze.codegen.program.grammar import Barrier
from braze.codegen.program.interpreter import run_program
from braze.codegen.program.program import Program
from braze.config import Config
from braze.ops.interpreter import interpret
from braze.schedule.schedule import Segment, schedule
from tests.lowering.execute import lower, trace

Function = Callable[[torch.Tensor], object]


def segment_of(function: Function, x: torch.Tensor) -> tuple[Segment, list[KernelCall]]:
    """The one segment that a function becomes, and its kernels called with arguments by position."""
    graph, fallbacks = lower(trace(function, x))
    (segment,) = schedule(graph, limits_under(Config())).steps
    assert not fallbacks and isinstance(segment, Segment)
    places: dict[str, int] = {}
    calls = []
    for item in segment.kernels:
        code = generate(item.kernel, 8)
        args = tuple(places.setdefault(name, len(places) + 1) for name in code.buffers)
        calls.append(KernelCall(code, args, (), None, 0, item.barrier, "one"))
    return segment, calls


FUNCTIONS: dict[str, Function] = {
    "rows, then columns": lambda x: torch.softmax(x, 1).exp().cumsum(0),
    "reversed": lambda x: (x.cumsum(1).flip(0) * 2).cumsum(0),
    "sums of sums": lambda x: (x.sum(0), x.sum(1), (x - x.sum()).cumsum(0)),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_segments(name: str) -> None:
    x = torch.randn(21, 35)
    segment, calls = segment_of(FUNCTIONS[name], x)
    program = segment_program("seg0", calls)
    callees = {call.code.name: call.code.program for call in calls}
    assert len(callees) > 1
    memory = {b.name: torch.zeros(b.numel.constant or 0, dtype=b.dtype) for b in program.buffers}
    named = {
        name: f"a{place}"
        for call in calls
        for name, place in zip(call.code.buffers, call.buffers, strict=True)
    }
    for buffer in memory.values():
        if buffer.numel() == x.numel():
            buffer.copy_(x.flatten())
    expected = {original: memory[a].clone() for original, a in named.items()}
    for item in segment.kernels:
        own = [b.name for b in item.kernel.buffers if b.role != "local"]
        interpret(item.kernel, {name: expected[name] for name in own})

    def right(own: Program, threads: int, backwards: bool) -> bool:
        actual = {a: t.clone() for a, t in memory.items()}
        run_program(own, actual, {}, threads, callees, backwards=backwards)
        return all(torch.allclose(actual[a], expected[original], atol=1e-5) for original, a in named.items())

    orders = (False, True)
    assert right(program, 1, False) and all(right(program, 3, backwards) for backwards in orders)
    barriers = [s for s in program.body if isinstance(s, Barrier)]
    broken = replace(program, body=[s for s in program.body if not isinstance(s, Barrier)])
    assert all(right(broken, 3, backwards) for backwards in orders) == (not barriers)
