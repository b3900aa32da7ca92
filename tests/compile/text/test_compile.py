"""A graph that was read back compiles to the same code as the graph that was printed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from braze._torch import shape_envs
from braze._torch.shapes import guard, hint
from braze.compile.fx_compile import CompileRequest
from braze.compile.guards import GuardWatch
from braze.compile.pipeline import compile_graph
from braze.compile.text.parser import parse_request
from braze.compile.text.printer import print_request
from tests.frontend.recording import Recorder


def requests_of(fn: Callable[..., Any], *args: Any, dynamic: bool = False) -> list[CompileRequest]:
    torch._dynamo.reset()
    recorder = Recorder()
    recorder.optimize(fn, dynamic=dynamic)(*args)
    return recorder.requests


def attention(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    y = F.layer_norm(x @ w, (w.shape[1],))
    return F.gelu(F.softmax(y @ y.transpose(-1, -2), -1).cumsum(-1)[:, 1:])


def indexed(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    rows = torch.arange(x.shape[0], device=x.device) % 2
    x.index_add_(0, rows, x * 2)
    return F.embedding(rows, w).sum(1) + x.mean(1)


def inputs() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(6, 5, generator=generator), torch.randn(5, 7, generator=generator)]


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("fn", [attention, indexed])
def test_same_plan_kernels_and_results(fn: Callable[..., Any], dynamic: bool) -> None:
    (request,) = requests_of(fn, *inputs(), dynamic=dynamic)
    printed = print_request(request)
    mine, theirs = compile_graph(request), compile_graph(parse_request(printed.text, printed.constants))
    assert mine.report is not None and theirs.report is not None
    assert str(mine.report.plan) == str(theirs.report.plan)
    assert str(mine.report.graph) == str(theirs.report.graph)
    texts = [[k.code for k in code.report.kernels] for code in (mine, theirs) if code.report is not None]
    assert texts[0] == texts[1]
    assert dynamic == any(isinstance(v, torch.SymInt) for v in request.example_inputs)
    eager_inputs = inputs()
    eager = fn(*eager_inputs)
    results = []
    for code in (mine, theirs):
        tensors = inputs()
        places = iter(tensors)
        (result,) = code.run(
            [next(places) if isinstance(v, torch.Tensor) else hint(v) for v in request.example_inputs]
        )
        results.append(result)
        torch.testing.assert_close([result, *tensors], [eager, *eager_inputs])
    assert torch.equal(*results)


def test_guards_that_a_compile_adds_are_found_and_installed() -> None:
    (request,) = requests_of(lambda x: x.sin(), torch.randn(6, 5), dynamic=True)
    printed = print_request(request)
    parsed = parse_request(printed.text)
    env = parsed.shape_env
    original = request.shape_env
    assert env is not None and original is not None and env is not original
    since, watch = shape_envs.mark_guards(env), GuardWatch(env)
    assert shape_envs.guards_added(env, since) == []
    size = parsed.example_inputs[-1].shape[0]
    assert guard(size % 2 == 0) and guard(size < 100) and not guard(size == 7)
    (even, small, other) = shape_envs.guards_added(env, since)
    assert len(watch.added()) == 3
    before = shape_envs.mark_guards(original)
    # a symbol of one trace equals the symbol of the other
    assert all(shape_envs.install_guard(original, g) for g in (even, small, other))
    assert len(shape_envs.guards_added(original, before)) == 3
    assert f"{size} < 100" in print_request(request).text
    assert not shape_envs.install_guard(original, even.func(even.lhs, 1))
    # a size that becomes a constant
    assert guard(size == 6) and str(parsed.example_inputs[-1].shape[0]) == "6"
    assert len(shape_envs.guards_added(env, since)) == 4


def test_what_was_known_is_known_after_the_round_trip() -> None:
    def fn(x: torch.Tensor) -> torch.Tensor:
        torch._check(x.shape[0] % 4 == 0)
        return x.view(x.shape[0] // 4, 4, -1) * 2

    (request,) = requests_of(fn, torch.randn(8, 5), dynamic=True)
    parsed = parse_request(print_request(request).text)
    env = parsed.shape_env
    assert env is not None
    since = shape_envs.mark_guards(env)
    assert guard(parsed.example_inputs[-1].shape[0] % 4 == 0)
    assert shape_envs.guards_added(env, since) == []
