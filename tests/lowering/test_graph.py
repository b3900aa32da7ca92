"""The walk over the graph: what is stored when, externs, fallbacks, writes to inputs."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from braze.errors import FallbackError
from braze.ir.buffers import ComputedBuffer
from braze.ir.externs import ExternKernelAlloc, ExternKernelOut, FallbackKernel
from tests.lowering.execute import Execution, check, lower, run, trace


def test_cheap_values_are_not_stored() -> None:
    graph, _ = lower(trace(lambda x: (x + 1) * 2 - (x + 1), torch.randn(5)))
    assert len(graph.operations) == 1


def test_costly_values_with_several_users_are_stored_once() -> None:
    graph, _ = lower(trace(lambda x: _twice(x.exp()), torch.randn(5)))
    assert len(graph.operations) == 3


def _twice(x: torch.Tensor) -> list[torch.Tensor]:
    return [x + 1, x * 2]


def test_a_chain_that_uses_each_value_twice_is_linear() -> None:
    def fn(z: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        for _ in range(50):
            z = z * z + c
        return z

    inputs = torch.rand(4) / 9, torch.rand(4) / 9
    graph, _ = lower(trace(fn, *inputs))
    assert len(graph.dag) < 400
    check(fn, *inputs)


def test_many_reads_are_split() -> None:
    def fn(xs: list[torch.Tensor]) -> torch.Tensor:
        total = xs[0]
        for x in xs[1:]:
            total = total + x
        return total

    inputs = [torch.randn(3) for _ in range(80)]
    graph, _ = lower(trace(lambda *xs: fn(list(xs)), *inputs))
    assert all(len(op.stage.loads) <= 40 for op in graph.operations if isinstance(op, ComputedBuffer))
    check(lambda *xs: fn(list(xs)), *inputs)


def test_matrix_products_write_into_given_memory() -> None:
    inputs = torch.randn(90, 4), torch.randn(4, 100), torch.randn(100)
    graph, _ = lower(trace(lambda a, b, c: torch.addmm(c, a, b) + a @ b, *inputs))
    externs = [op for op in graph.operations if isinstance(op, ExternKernelOut)]
    assert [op.target for op in externs] == [torch.ops.aten.addmm.out, torch.ops.aten.mm.out]
    check(lambda a, b, c: torch.addmm(c, a, b) + a @ b, *inputs)
    check(lambda a, b: torch.bmm(a, b.transpose(1, 2)).relu(), torch.randn(2, 3, 4), torch.randn(2, 5, 4))


def test_externs() -> None:
    check(
        lambda x, w, b: F.conv2d(x, w, b, padding=1).relu(),
        torch.randn(2, 3, 6, 6),
        torch.randn(4, 3, 3, 3),
        torch.randn(4),
    )
    check(lambda x: list(F.max_pool2d(x * 2, 2, return_indices=True)), torch.randn(2, 3, 6, 6))
    check(lambda x: [*torch.topk(x + 1, 3), *torch.sort(x, stable=True)], torch.randn(4, 7))
    check(lambda x: F.adaptive_avg_pool2d(x, (2, 3)), torch.randn(1, 2, 7, 9))
    check(
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v), *[torch.randn(2, 2, 5, 8) for _ in range(3)]
    )


def test_fallback_is_named_and_right() -> None:
    x = torch.randn(4, 4)
    graph, fallbacks = lower(trace(lambda x: torch._add_relu(x + 1, x) * 2, x))
    assert any("_add_relu" in f for f in fallbacks)
    assert any(isinstance(op, FallbackKernel) for op in graph.operations)
    check(lambda x: torch._add_relu(x + 1, x) * 2, x, strict=False)


def test_strict_raises_and_says_which() -> None:
    with pytest.raises(FallbackError, match="_add_relu"):
        lower(trace(lambda x: torch._add_relu(x, x), torch.randn(8)), strict=True)


def test_other_types_fall_back() -> None:
    _, fallbacks = lower(trace(lambda x: x * 2, torch.randn(3, dtype=torch.complex32)))
    assert fallbacks == ["aten.mul.Tensor: torch.complex32 is not compiled"]
    _, fallbacks = lower(trace(lambda x: x.asin() * 2, torch.randn(3, dtype=torch.complex64)))
    assert fallbacks == ["aten.asin.default: torch.complex64 is not compiled"]
    check(lambda x: x.asin() * 2, torch.randn(3, dtype=torch.complex64), strict=False)


def test_writes_to_inputs_see_old_values_first() -> None:
    def fn(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        old = x + 1
        x.copy_(y * 2)
        y.add_(x)
        return old * 2

    gm = trace(fn, torch.randn(3), torch.randn(3))
    graph, _ = lower(gm)
    ours = [torch.arange(3.0), torch.ones(3)]
    theirs = [t.clone() for t in ours]
    expected = fn(*theirs)
    (result,) = Execution(graph, ours).run()
    torch.testing.assert_close([result, *ours], [expected, *theirs])


def test_writes_to_a_part_of_an_input() -> None:
    def fn(x: torch.Tensor) -> torch.Tensor:
        x[1:].mul_(2)
        return x.sum()

    ours, theirs = torch.arange(6.0).reshape(3, 2), torch.arange(6.0).reshape(3, 2)
    expected = fn(theirs)
    (result,) = run(fn, ours)
    torch.testing.assert_close([result, ours], [expected, theirs])


def test_origins_and_print() -> None:
    graph, _ = lower(trace(lambda x: (x.exp() + 1).sum(0), torch.randn(3, 4)))
    (op,) = graph.operations
    assert isinstance(op, ComputedBuffer)
    assert op.origins[-1].operator == "aten.sum.dim_IntList"
    text = str(graph)
    assert "Reduction(sum)" in text and "exp" in text and "return buf" in text


def test_multiple_results_of_an_extern() -> None:
    graph, _ = lower(trace(lambda x: list(torch.topk(x, 2)), torch.randn(5)))
    (op,) = graph.operations
    assert isinstance(op, ExternKernelAlloc)
    assert len(op.results) == 2


def test_a_new_value_moves_into_the_input_that_it_replaces() -> None:
    def fn(p: torch.Tensor, m: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
        average = m * 0.9 + g * 0.1
        step = average.sqrt() + p
        p.copy_(p - step * 0.01)
        m.copy_(average)
        return step.sum()

    inputs = torch.rand(5, 3), torch.rand(5, 3), torch.rand(5, 3)
    graph, _ = lower(trace(fn, *inputs))
    stored = [op for op in graph.operations if isinstance(op, ComputedBuffer)]
    into_inputs = [op for op in stored if op.buffer.storage in ("arg0_1", "arg1_1")]
    assert len(into_inputs) == 2 and len(stored) <= 4
    ours, theirs = [x.clone() for x in inputs], [x.clone() for x in inputs]
    (total,) = Execution(graph, ours).run()
    torch.testing.assert_close([fn(*theirs), *theirs], [total, *ours])


def test_a_value_that_reads_elsewhere_does_not_move() -> None:
    def fn(x: torch.Tensor) -> None:
        x.copy_(x.flip(0) + 1)

    ours, theirs = torch.arange(6.0), torch.arange(6.0)
    fn(theirs)
    run(lambda x: fn(x) or x.sum(), ours)
    assert torch.equal(ours, theirs)


def test_a_result_does_not_move_into_an_input() -> None:
    def fn(x: torch.Tensor) -> torch.Tensor:
        y = x * 2
        x.copy_(y)
        return y

    x = torch.arange(4.0)
    (y,) = run(fn, x)
    assert y.data_ptr() != x.data_ptr()
    assert torch.equal(x, y)


def test_costly_values_are_stored_before_outer_loops_repeat_them() -> None:
    def stored(fn: Callable[..., torch.Tensor], size: tuple[int, ...]) -> int:
        graph, _ = lower(trace(fn, torch.randn(4, 6), torch.randn(size)))
        return len(graph.operations)

    assert stored(lambda x, w: x * w.exp(), (6,)) == 2
    assert stored(lambda x, w: x * (w + 1), (6,)) == 1
    assert stored(lambda x, w: x * w.exp(), (4, 1)) == 1
    assert stored(lambda x, w: x * w.exp(), ()) == 1
    assert stored(lambda x, w: x * w.exp().expand(4, 6), (6,)) == 2
