"""Symbolic sizes through AOTAutograd: one graph serves many sizes, forward and backward."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.frontend.recording import Recorder


@pytest.fixture
def recorder() -> Recorder:
    torch.compiler.reset()
    return Recorder()


def symbols(recorder: Recorder, index: int = 0) -> list[object]:
    return [v for v in recorder.requests[index].example_inputs if isinstance(v, torch.SymInt)]


def test_one_graph_for_many_sizes(recorder: Recorder) -> None:
    net = nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.LayerNorm(8), nn.Linear(8, 3)).eval()
    compiled = recorder.optimize(net, dynamic=True)
    with torch.no_grad():
        for rows in (5, 2, 9, 16):
            x = torch.randn(rows, 6)
            torch.testing.assert_close(compiled(x), net(x))
    assert recorder.kinds == ["inference"]
    assert len(symbols(recorder)) == 1


def test_marked_dimensions_are_symbols_and_others_numbers(recorder: Recorder) -> None:
    x = torch.randn(5, 7)
    torch._dynamo.mark_dynamic(x, 0)
    compiled = recorder.optimize(lambda t: t.softmax(-1))
    compiled(x)
    assert len(symbols(recorder)) == 1
    tensor = next(v for v in recorder.requests[0].example_inputs if isinstance(v, torch.Tensor))
    assert isinstance(tensor.shape[0], torch.SymInt)
    assert tensor.shape[1] == 7
    y = torch.randn(11, 7)
    torch.testing.assert_close(compiled(y), y.softmax(-1))
    assert recorder.kinds == ["inference"]


def test_training_saves_sizes_for_the_backward(recorder: Recorder) -> None:
    def f(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return (x @ w).view(-1).sin() * x.shape[0]

    compiled = recorder.optimize(f, dynamic=True)
    for rows in (4, 3, 8):
        x, w = torch.randn(rows, 5, requires_grad=True), torch.randn(5, 6, requires_grad=True)
        copies = [t.detach().clone().requires_grad_() for t in (x, w)]
        result, expected = compiled(x, w), f(*copies)
        torch.testing.assert_close(result, expected)
        result.sum().backward()
        expected.sum().backward()
        torch.testing.assert_close(x.grad, copies[0].grad)
        torch.testing.assert_close(w.grad, copies[1].grad)
    # the backward's guards are part of the forward's: it is compiled at once
    assert recorder.kinds == ["forward", "backward"]
    assert symbols(recorder, 1)


def test_random_operators_with_symbolic_sizes(recorder: Recorder) -> None:
    compiled = recorder.optimize(
        lambda x: nn.functional.dropout(x, 0.5) + torch.rand(x.shape[0], 3), dynamic=True
    )
    for rows in (4, 7):
        torch.manual_seed(2)
        first = compiled(torch.ones(rows, 3))
        torch.manual_seed(2)
        torch.testing.assert_close(compiled(torch.ones(rows, 3)), first)
        assert first.shape == (rows, 3)
        assert first.min() >= 0
        assert first.max() < 3
    assert recorder.kinds == ["inference"]
    assert recorder.operators()["rand"] == 2


def test_passes_add_no_guard(recorder: Recorder) -> None:
    """Two sizes that were equal in the trace stay independent."""
    compiled = recorder.optimize(
        lambda a, b: (a.view(a.shape) * 1 + 0, b.expand(b.shape).clone() / 1), dynamic=True
    )
    for n, m in ((4, 4), (4, 6), (9, 2)):
        a, b = torch.randn(n), torch.randn(m)
        first, second = compiled(a, b)
        torch.testing.assert_close(first, a)
        torch.testing.assert_close(second, b)
    assert recorder.kinds == ["inference"] * len(recorder.kinds)
    assert len(recorder.kinds) <= 2  # Dynamo itself may take two equal sizes for one


def test_data_dependent_sizes(recorder: Recorder) -> None:
    def f(x: torch.Tensor) -> torch.Tensor:
        return x.nonzero().to(torch.float32) * 2

    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
        compiled = recorder.optimize(f, fullgraph=True)
        for x in (torch.tensor([1, 0, 2]), torch.tensor([0, 0, 2])):
            torch.testing.assert_close(compiled(x), f(x))


def test_integers_that_are_no_sizes_may_be_negative(recorder: Recorder) -> None:
    def f(x: torch.Tensor, n: int) -> torch.Tensor:
        return x * torch.sym_max(n, 0)

    compiled = recorder.optimize(f, dynamic=True)
    for n in (5, 7, -3):
        torch.testing.assert_close(compiled(torch.ones(4), n), f(torch.ones(4), n))
