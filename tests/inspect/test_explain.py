"""`braze.explain` and `braze.inspect.stats`: what they say, and that they leave no trace."""

from __future__ import annotations

import io
import warnings

import pytest
import torch
from rich.cells import cell_len
from rich.console import Console
from torch import nn
from torch.nn import functional as F

import braze
from braze.errors import BrazeError, BrazeWarning
from braze.words import amount, duration
from tests import support


def normalised(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    return torch.softmax(F.layer_norm(x @ w, (48,)), -1)


@pytest.fixture(scope="module")
def normalised_report() -> braze.inspect.Explanation:
    torch.manual_seed(0)
    return braze.explain(normalised, torch.randn(64, 32), torch.randn(32, 48))


def test_kernels(normalised_report: braze.inspect.Explanation) -> None:
    (kernel,) = normalised_report.kernels
    assert kernel.launches == 1 and kernel.time_us > 0
    assert {"exp", "rsqrt"} <= set(kernel.operators)
    assert kernel.source.startswith(__file__) and "return torch.softmax" in kernel.source
    assert kernel.bytes == 2 * 4 * 64 * 48
    assert kernel.flops > 25 * 64 * 48
    assert kernel.vector.split()[1:2] == ["x"] or kernel.vector == "scalar"
    assert kernel.parallel == "-"  # too little work for a second thread
    assert kernel.held_by in ("memory", "arithmetic") and kernel.efficiency > 0


def test_handles(normalised_report: braze.inspect.Explanation) -> None:
    (kernel,) = normalised_report.kernels
    assert kernel.ir.startswith(f"kernel {kernel.name}(") and "reduce.max" in kernel.ir
    assert kernel.loop_plan.startswith("plan for ")
    assert kernel.program.startswith(f"program {kernel.name}(")
    assert f"define void @{kernel.report.symbol}" in kernel.code
    assert f"{kernel.report.symbol}:" in kernel.asm()


def test_externs_and_shares(normalised_report: braze.inspect.Explanation) -> None:
    (extern,) = normalised_report.externs
    assert extern.name == "mm" and extern.launches == 1 and not extern.fallback
    assert extern.flops == 2 * 64 * 32 * 48
    assert extern.bytes == 4 * (64 * 32 + 32 * 48 + 64 * 48)
    assert sum(w.share for w in (*normalised_report.kernels, *normalised_report.externs)) == pytest.approx(1)


def test_graphs(normalised_report: braze.inspect.Explanation) -> None:
    (graph,) = normalised_report.graphs
    assert (graph.kind, graph.calls, graph.kernels, graph.externs) == ("inference", 1, 1, 1)
    assert not normalised_report.graph_breaks and not normalised_report.fallbacks
    assert 0 < graph.compile_seconds < normalised_report.first_call_seconds


@pytest.mark.parametrize("width", [60, 80, 100, 140, 200])
def test_it_fits_the_terminal(normalised_report: braze.inspect.Explanation, width: int) -> None:
    console = Console(width=width, file=io.StringIO(), color_system=None)
    with console.capture() as capture:
        console.print(normalised_report)
    lines = capture.get().splitlines()
    assert max(map(cell_len, lines)) <= width
    assert any("mm" in line for line in lines)


def test_as_text(normalised_report: braze.inspect.Explanation) -> None:
    text = str(normalised_report)
    (kernel,) = normalised_report.kernels
    assert "normalised  became 1 graph, 1 kernel, 1 extern call" in text
    assert "test_explain.py" in text and kernel.operators[0] in text
    assert not any(line.endswith(" ") for line in text.splitlines())


def test_memory_says_what_sharing_saves() -> None:
    def function(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        for _ in range(6):
            x = torch.tanh(x) @ w
        return x

    report = braze.explain(function, torch.randn(64, 64), torch.randn(64, 64))
    memory = report.graphs[0].memory
    assert 4 * 64 * 64 <= memory.workspace <= 2 * 4 * 64 * 64 < memory.separate
    assert memory == report.memory
    assert "intermediates in" in str(report)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(16, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.tanh(self.linear(x))


def test_equal_kernels_are_one_entry_with_all_their_launches() -> None:
    model = nn.Sequential(*[Block() for _ in range(4)])
    with torch.no_grad():
        report = braze.explain(model, torch.randn(32, 16))
    (kernel,) = report.kernels
    (extern,) = report.externs
    assert kernel.launches == 4 == len(set(kernel.names))
    assert extern.launches == 4 and extern.flops == 4 * (2 * 32 * 16 * 16 + 32 * 16)
    assert kernel.bytes == 4 * 3 * 4 * 32 * 16


def test_training_runs_the_backward_and_touches_no_gradient() -> None:
    model = Block()
    x = torch.randn(8, 16, requires_grad=True)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    report = braze.explain(model, x)
    assert [g.kind for g in report.graphs] == ["forward", "backward"]
    assert all(g.calls == 1 and g.kernels for g in report.graphs)
    assert x.grad is None and all(p.grad is None for p in model.parameters())
    torch.testing.assert_close(dict(model.named_parameters()), before, rtol=0, atol=0)


def with_a_break(x: torch.Tensor) -> torch.Tensor:
    y = torch.sin(x)
    torch._dynamo.graph_break()
    return torch.cos(y)


def test_graph_breaks_say_where() -> None:
    report = braze.explain(with_a_break, torch.randn(10))
    assert len(report.graphs) == 2 and len(report.kernels) == 2
    (broken,) = report.graph_breaks
    assert "graph_break()" in broken.source and __file__ in broken.source
    assert "graph breaks" in str(report)


def test_fallbacks_say_why() -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        return torch._add_relu(x, x) * 2

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BrazeWarning)
        report = braze.explain(function, torch.randn(4, 4))
    (fallback,) = report.fallbacks
    assert "_add_relu" in fallback.op and fallback.reason and "torch._add_relu" in fallback.source
    assert [e.name for e in report.externs if e.fallback] == ["_add_relu"]
    assert fallback.reason in str(report)


def test_refusals_are_in_words_of_the_user() -> None:
    def function(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        y = torch.exp(x)
        return torch.sin(y @ w) + y

    report = braze.explain(function, torch.randn(16, 16), torch.randn(16, 16))
    assert all("op" not in r.consumer and "op" not in r.producer for r in report.refusals)
    assert any("mm runs between them" in r.reason for r in report.refusals)


def test_symbolic_sizes_count_as_they_are() -> None:
    x = torch.randn(100, 7)
    torch._dynamo.mark_dynamic(x, 0)
    report = braze.explain(lambda x: x.relu().sum(-1), x)
    (kernel,) = report.kernels
    assert kernel.bytes == 4 * (700 + 100)


def test_what_is_compiled_already_is_compiled_apart() -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(x) + 1

    x = torch.randn(100)
    compiled = torch.compile(function, backend="braze")
    expected = compiled(x)
    for _ in range(9):  # more often than Dynamo compiles one function before it gives up
        assert len(braze.explain(compiled, x).graphs) == 1
    before = braze.inspect.stats().graphs
    torch.testing.assert_close(compiled(x), expected, rtol=0, atol=0)
    assert braze.inspect.stats().graphs == before
    fresh = torch.randn(5, 5, dtype=torch.float64)
    torch.testing.assert_close(compiled(fresh), torch.tanh(fresh) + 1)
    assert braze.inspect.stats().graphs == before + 1


def test_random_numbers_go_on_as_if_nothing_had_been() -> None:
    torch.manual_seed(5)
    expected = torch.rand(4)
    torch.manual_seed(5)
    braze.explain(lambda x: F.dropout(x, 0.5), torch.ones(64))
    torch.testing.assert_close(torch.rand(4), expected, rtol=0, atol=0)


def test_nothing_to_compile_is_an_error() -> None:
    with pytest.raises(BrazeError, match="gave Dynamo no graph"):
        braze.explain(lambda: 3)


# -- stats ------------------------------------------------------------------------------------------------
def test_stats_count_graphs_kernels_and_externs() -> None:
    with support.watch("braze") as seen:
        torch.compile(normalised, backend="braze")(torch.randn(8, 32), torch.randn(32, 48))
    assert (seen.graphs, seen.kernels, seen.eager_graphs) == (1, 1, 0)
    assert seen.externs == {"aten.mm.default": 1} and not seen.fallbacks


def test_stats_are_a_copy() -> None:
    stats = braze.inspect.stats()
    stats.externs["nothing"] = 3
    stats.graphs += 100
    assert "nothing" not in braze.inspect.stats().externs
    assert braze.inspect.stats().graphs == stats.graphs - 100


# -- figures ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("microseconds", "text"),
    [(0.801, "0.80 us"), (9.996, "10.0 us"), (312.4, "312 us"), (999.6, "1.00 ms"), (1234, "1.23 ms"),
     (45_600, "45.6 ms"), (999_600, "1.00 s"), (2.9e6, "2.90 s"), (123e6, "123 s")],
)  # fmt: skip
def test_durations(microseconds: float, text: str) -> None:
    assert duration(microseconds) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, ""), (7, "7 B"), (999, "999 B"), (1000, "1.00 kB"), (8_388_608, "8.39 MB"), (999_600, "1.00 MB"),
     (12.5e9, "12.5 GB"), (2e12, "2.00 TB"), (5e15, "5 PB")],
)  # fmt: skip
def test_amounts(number: float, text: str) -> None:
    assert amount(number, "B") == text
