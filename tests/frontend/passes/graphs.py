"""Functional ATen graphs for tests of passes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

from tests.frontend.recording import operator_name


def trace(fn: Callable[..., Any], *inputs: torch.Tensor) -> GraphModule:
    """The ATen graph of `fn`, its outputs a tuple, with fake tensors of its own as metadata."""
    mode = FakeTensorMode()
    fakes = [mode.from_tensor(t) for t in inputs]

    def as_tuple(*args: torch.Tensor) -> tuple[Any, ...]:
        result = fn(*args)
        return tuple(result) if isinstance(result, (list, tuple)) else (result,)

    with mode:
        return make_fx(as_tuple)(*fakes)


def operators(gm: GraphModule) -> Counter[str]:
    """What the graph calls, and how often."""
    return Counter(operator_name(n.target) for n in gm.graph.nodes if n.op == "call_function")


def check(
    run: Callable[[GraphModule], bool], fn: Callable[..., Any], *inputs: torch.Tensor, changes: bool = True
) -> Counter[str]:
    """Run a pass on the graph of `fn`: results, mutations, metadata must stay. Returns what it calls then."""
    gm = trace(fn, *inputs)
    theirs = [t.clone() for t in inputs]
    ours = [t.clone() for t in inputs]
    expected = gm(*theirs)
    assert run(gm) is changes
    gm.graph.lint()
    gm.recompile()
    results = gm(*ours)
    for ours_result, theirs_result in zip(results, expected, strict=True):
        torch.testing.assert_close(ours_result, theirs_result, rtol=0, atol=0, equal_nan=True)
        if isinstance(theirs_result, torch.Tensor):
            assert ours_result.stride() == theirs_result.stride()
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    for node in gm.graph.nodes:
        if node.op == "call_function":
            assert "val" in node.meta, f"{node} has no metadata"
    return operators(gm)
