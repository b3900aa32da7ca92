"""Fused functions under autograd, in modes, in transforms, and inside other compilers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional

import braze
from tests.fuser.compare import check, made
from tests.numerics import assert_agrees

pytestmark = pytest.mark.usefixtures("strict")


@braze.fuse
def swiglu(x: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
    return functional.silu(gate) * x


@braze.fuse
def scaled_softmax(x: torch.Tensor, bias: torch.Tensor, scale: float) -> torch.Tensor:
    return torch.softmax(x * scale + bias, -1)


def leaf(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64).to(dtype).requires_grad_()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_gradients(dtype: torch.dtype) -> None:
    for shape in [(6,), (3, 4), (2, 3, 4), (), (1, 1), (0, 3)]:
        check(swiglu, leaf(*shape, dtype=dtype), leaf(*shape, dtype=dtype))
    check(swiglu, leaf(3, 4, dtype=dtype), torch.randn(3, 4).to(dtype))
    check(swiglu, torch.randn(3, 4).to(dtype), leaf(3, 4, dtype=dtype))


def test_gradients_of_what_was_broadcast() -> None:
    for left, right in [((3, 4), (4,)), ((3, 4), (3, 1)), ((3, 1), (1, 4)), ((), (3,)), ((2, 1, 4), (3, 1))]:
        check(swiglu, leaf(*left), leaf(*right))
        check(swiglu, leaf(*left), torch.randn(right))


def test_gradients_in_every_layout() -> None:
    for other in (leaf(4, 3).t(), leaf(6, 4)[::2], leaf(3, 8)[:, ::2], leaf(4).expand(3, 4), leaf(3, 4)):
        check(swiglu, leaf(3, 4), other.detach().requires_grad_())
        check(swiglu, other.detach().requires_grad_(), leaf(3, 4))


def test_gradients_of_rows_with_numbers() -> None:
    check(scaled_softmax, leaf(3, 8), leaf(8), 0.5)
    before = made()
    for scale in (0.25, -1.0, 2.0):
        check(scaled_softmax, leaf(5, 12), leaf(12), scale)
        check(scaled_softmax, leaf(7, 9), leaf(9), scale)
    assert made() == before


def test_gradients_of_pieces_and_joined_results() -> None:
    @braze.fuse
    def f(x: torch.Tensor, y: torch.Tensor) -> Any:
        a, b = x.chunk(2, -1)
        return torch.cat([functional.gelu(a) * b, y.sin()], 0), torch.stack([a + b, a * b])

    for rows, columns in [(3, 8), (5, 6)]:
        check(f, leaf(rows, columns), leaf(rows + 1, columns // 2))


def test_a_kernel_for_gradients_serves_every_shape() -> None:
    @braze.fuse
    def f(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.tanh(x) * y

    check(f, leaf(4, 5), leaf(4, 5))
    before = made()
    for shape in [(7,), (2, 3), (2, 3, 4)]:
        check(f, leaf(*shape), leaf(*shape))
    assert made() == before


def test_only_some_results_are_used() -> None:
    @braze.fuse
    def f(x: torch.Tensor, y: torch.Tensor) -> Any:
        return x * y, x.exp(), y.detach() + 1, (x > 0)

    def used(function: Any, which: int) -> torch.Tensor | None:
        torch.manual_seed(1)
        x, y = leaf(3), leaf(3)
        function(x, y)[which].sum().backward()
        return torch.stack([x.grad, torch.zeros(3) if y.grad is None else y.grad])  # type: ignore[list-item]

    for which in (0, 1):
        for _ in range(2):
            torch.testing.assert_close(used(f, which), used(f.__wrapped__, which))  # type: ignore[attr-defined]
    assert [r.requires_grad for r in f(leaf(3), leaf(3))] == [True, True, False, False]


def test_a_view_of_an_argument_beside_what_is_computed_with_a_number() -> None:
    @braze.fuse
    def f(x: torch.Tensor, scale: float) -> Any:
        return x[..., :1], torch.tanh(x) * scale, x

    for shape in [(1, 1, 1), (3, 4)]:
        for scale in (0.5, 2.0):
            check(f, leaf(*shape), scale)
    x = leaf(3, 4)
    view, _, same = f(x, 0.5)
    assert same is x and view._base is x


def test_inputs_from_elsewhere_in_the_graph_and_gradients_that_add_up() -> None:
    def run(function: Any) -> Any:
        torch.manual_seed(1)
        x = leaf(4, 5)
        y = function(x.exp(), x.sin())
        z = function(y, x)
        (z.sum() + y.mean()).backward()
        return x.grad

    for _ in range(2):
        torch.testing.assert_close(run(swiglu), run(swiglu.__wrapped__))  # type: ignore[attr-defined]


def test_no_grad_and_inference_mode() -> None:
    x, y = leaf(3), leaf(3)
    for _ in range(2):
        assert swiglu(x, y).requires_grad
        with torch.no_grad():
            assert not swiglu(x, y).requires_grad
        with torch.inference_mode():
            result = swiglu(x, y)
            assert result.is_inference() and not result.requires_grad
            made_here = torch.randn(3)
            assert swiglu(made_here, made_here).is_inference()
        assert not swiglu(x.detach(), y.detach()).requires_grad
        with torch.no_grad(), torch.enable_grad():
            assert swiglu(x, y).requires_grad


def test_autocast() -> None:
    @braze.fuse
    def f(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return functional.softmax(x * 2, -1) + torch.prod(w)

    x, w = torch.randn(3, 4), torch.randn(3, dtype=torch.bfloat16)
    for _ in range(2):
        check(f, x.bfloat16(), w)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            check(f, x.bfloat16(), w)
            check(f, leaf(3, 4, dtype=torch.bfloat16), w)
        with torch.autocast("cpu", dtype=torch.float16):
            check(f, x, w)


def test_second_derivatives_are_refused_as_compiled_functions_do() -> None:
    x, y = leaf(3), leaf(3)
    (gradient,) = torch.autograd.grad(swiglu(x, y).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="double backward"):
        gradient.sum().backward()


def test_hooks_and_retained_graphs() -> None:
    x, y = leaf(3), leaf(3)
    seen: list[torch.Tensor] = []
    result = swiglu(x, y)
    result.register_hook(lambda g: seen.append(g.clone()))
    result.sum().backward(retain_graph=True)
    first = x.grad.clone()  # type: ignore[union-attr]
    result.sum().backward()
    torch.testing.assert_close(x.grad, first * 2)
    assert len(seen) == 2


# -- transforms and other compilers -------------------------------------------------------------------------
def test_transforms_run_the_function_as_it_is() -> None:
    x, y = torch.randn(4, 5), torch.randn(4, 5)
    plain = swiglu.__wrapped__  # type: ignore[attr-defined]
    for _ in range(2):
        torch.testing.assert_close(torch.vmap(swiglu)(x, y), torch.vmap(plain)(x, y))
        both = [torch.func.grad(lambda a, f=f: f(a, y).sum())(x) for f in (swiglu, plain)]
        torch.testing.assert_close(*both)
        both = [torch.func.jvp(lambda a, f=f: f(a, y), (x,), (y,))[1] for f in (swiglu, plain)]
        torch.testing.assert_close(*both)
    assert "transform" in "".join(braze.fuser.stats().fallbacks)


def test_forward_mode() -> None:
    import torch.autograd.forward_ad as forward

    def tangent(function: Any) -> torch.Tensor:
        torch.manual_seed(2)
        with forward.dual_level():
            dual = forward.make_dual(torch.randn(3), torch.ones(3))
            return forward.unpack_dual(function(dual, torch.randn(3))).tangent  # type: ignore[no-any-return]

    check(swiglu, torch.randn(3), torch.randn(3))
    with braze.config.patch(strict=False):
        torch.testing.assert_close(tangent(swiglu), tangent(swiglu.__wrapped__))  # type: ignore[attr-defined]


def test_inside_torch_compile_it_is_inlined() -> None:
    graphs = []

    def backend(gm: torch.fx.GraphModule, inputs: Any) -> Any:
        graphs.append(gm)
        return gm.forward

    def model(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return swiglu(x + 1, y) - 1

    x, y = torch.randn(3), torch.randn(3)
    swiglu(x, y)
    compiled = torch.compile(model, backend=backend, fullgraph=True)
    torch.testing.assert_close(compiled(x, y), model(x, y))
    assert len(graphs) == 1 and "silu" in str(graphs[0].graph)
    compiled = torch.compile(model, backend="braze", fullgraph=True)
    assert_agrees(compiled(x, y), swiglu.__wrapped__(x + 1, y) - 1)  # type: ignore[attr-defined]


def test_modes_see_the_operators() -> None:
    from torch.fx.experimental.proxy_tensor import make_fx
    from torch.utils.flop_counter import FlopCounterMode

    x, y = torch.randn(3), torch.randn(3)
    swiglu(x, y)
    assert "silu" in str(make_fx(swiglu)(x, y).graph)
    with FlopCounterMode(display=False):
        torch.testing.assert_close(swiglu(x, y), swiglu.__wrapped__(x, y))  # type: ignore[attr-defined]
    fill = braze.fuse(lambda x: x + torch.ones(3))
    check(fill, x)
    with torch.device("meta"):
        assert torch.zeros(1).device.type == "meta"
        with pytest.raises(RuntimeError):
            fill(x)
    exported = torch.export.export(_Wrapped(), (x, y))
    torch.testing.assert_close(exported.module()(x, y), swiglu(x, y))


class _Wrapped(torch.nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return swiglu(x, y)
