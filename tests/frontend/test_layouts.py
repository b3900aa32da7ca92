"""Results lie in memory as eager's do: values, strides, and what views that are taken afterwards show."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch.fx.experimental.proxy_tensor import make_fx

from braze.config import Config
from braze.frontend.decompositions import decompositions
from tests.numerics import assert_agrees
from tests.support import compile_with

aten = torch.ops.aten
TABLE = decompositions(Config())


def permuted(*shape: int) -> torch.Tensor:
    order = tuple(reversed(range(len(shape))))
    return torch.randn(tuple(reversed(shape))).permute(order)


def image(*shape: int) -> torch.Tensor:
    return torch.randn(shape).contiguous(memory_format=torch.channels_last)


def gaps(*shape: int) -> torch.Tensor:
    return torch.randn((*shape[:-1], 2 * shape[-1]))[..., ::2]


def check(fn: Callable[..., Any], *args: torch.Tensor) -> None:
    """Compiled strictly, `fn` gives what eager does, strides included."""
    expected = fn(*[a.clone() if a.is_contiguous() else a for a in args])
    assert_agrees(compile_with(fn, "braze", strict=True)(*args), expected)


def flat(x: torch.Tensor) -> torch.Tensor:
    """What a view makes of memory: the elements in the order of their strides."""
    order = sorted(range(x.ndim), key=lambda d: -x.stride(d))
    return x.permute(order).view(-1)


# -- computed values ----------------------------------------------------------------------------------------
VALUES: dict[str, tuple[Callable[..., Any], tuple[torch.Tensor, ...]]] = {
    "repeat": (lambda x: x[:, None].repeat(1, 3, 1).view(6, 4), (torch.randn(2, 4),)),
    "repeat of permuted": (lambda x: x.repeat(2, 1, 3, 1).view(-1), (permuted(2, 3, 4),)),
    "repeat read by strides": (
        lambda x: torch.as_strided(x.repeat(1, 4), (3, 4), (4, 1)),
        (torch.randn(3, 4),),
    ),
    "lerp": (lambda x, y: torch.lerp(x, y, 0.3), (permuted(3, 4), torch.randn(3, 4))),
    "lerp by a tensor": (torch.lerp, (permuted(3, 4), torch.randn(4), torch.rand(3, 4))),
    "select_scatter": (
        lambda x, y: flat(torch.select_scatter(x * 2, y, 0, 1)),
        (permuted(3, 4), torch.ones(4)),
    ),
    "slice_scatter": (lambda x, y: torch.slice_scatter(x * 2, y, 0, 1), (permuted(3, 4), torch.ones(2, 4))),
    "slice_scatter with gaps": (
        lambda x, y: torch.slice_scatter(x, y, 0, 1),
        (torch.randn(12).as_strided((3, 2), (1, 6)), torch.ones(2, 2)),
    ),
    "select_scatter with gaps": (lambda x, y: torch.select_scatter(x, y, 0, 1), (gaps(3, 4), torch.ones(4))),
    "group_norm": (lambda x: F.group_norm(x, 3), (image(2, 6, 3, 4),)),
    "batch_norm": (
        lambda x: F.batch_norm(x, torch.zeros(3), torch.ones(3)),
        (permuted(2, 3, 4, 5),),
    ),
    "batch_norm of images": (
        lambda x: flat(F.batch_norm(x, None, None, training=True)),
        (image(2, 3, 4, 5),),
    ),
    "adaptive_avg_pool2d": (
        lambda x: F.adaptive_avg_pool2d(x * 2, 3).permute(0, 2, 3, 1).view(-1),
        (image(2, 6, 8, 8),),
    ),
    "channel_shuffle": (lambda x: torch.channel_shuffle(x, 2), (image(2, 4, 3, 5),)),
    "roll": (lambda x: torch.roll(x, (1, 2), (2, 3)), (image(2, 4, 3, 5),)),
    "roll of everything": (lambda x: torch.roll(x, 3).view(-1), (permuted(3, 4),)),
    "unfold": (lambda x: (x * 2).unfold(0, 4, 2), (torch.randn(8),)),
    "unfold read by strides": (
        lambda x: torch.as_strided((x * 2).unfold(0, 4, 2), (2,), (1,)),
        (torch.randn(8),),
    ),
    "unfold of rows": (lambda x: x.relu().unfold(1, 3, 1).transpose(1, 2), (torch.randn(3, 8),)),
    "take one": (lambda x: torch.take(x, torch.tensor(1)), (permuted(3, 4),)),
}


KEEPING_STRIDES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "slice": lambda x: torch.slice_scatter(x, x[1:] + 1, 0, 1),
    "select": lambda x: torch.select_scatter(x, x[0] + 1, 0, 1),
    "diagonal": lambda x: torch.diagonal_scatter(x, torch.diagonal(x) + 1),
    "copy": lambda x: aten.copy(x, x + 1),
    "view of a result": lambda x: torch.slice_scatter(x, x[1:] + 1, 0, 1).t()[1:],
    "inside": lambda x: torch.slice_scatter(x, x[1:] + 1, 0, 1) * 2,
}


@pytest.mark.parametrize("strides", [(1, 6), (9, 2), (1, 3), (2, 1)], ids=str)
@pytest.mark.parametrize("name", KEEPING_STRIDES)
def test_strides_are_kept_whatever_they_are(name: str, strides: tuple[int, int]) -> None:
    """Symbolic ones, too, of which it is not known whether elements share memory."""
    compiled = torch.compile(KEEPING_STRIDES[name], backend="braze", dynamic=True)
    for length in (3, 4):
        x = torch.randn(60).as_strided((length, 2), [step * length // 3 for step in strides])
        assert_agrees(compiled(x), KEEPING_STRIDES[name](x))


@pytest.mark.parametrize("name", VALUES)
def test_computed_values(name: str) -> None:
    fn, args = VALUES[name]
    check(fn, *args)


# -- memory that is written ---------------------------------------------------------------------------------
def _transposed(x: torch.Tensor) -> Any:
    out = torch.empty(4, 3)
    out.transpose(0, 1).copy_(x)
    return out.view(-1), out


def _columns(x: torch.Tensor) -> Any:
    out = torch.zeros(3, 8)
    out[:, ::2].copy_(x)
    return out.view(-1)


def _like_permuted(x: torch.Tensor) -> Any:
    out = torch.empty_like(x)
    out.copy_(x)
    return flat(out), out


def _gapped(x: torch.Tensor) -> Any:
    out = torch.empty_strided((3, 4), (8, 2))
    out.copy_(x)
    return out, out * 2, torch.as_strided(out, (3,), (8,))


def _gapped_filled(x: torch.Tensor) -> Any:
    out = torch.empty_strided((3, 4), (8, 2))
    out.fill_(2.0)
    other = torch.empty_strided((3, 4), (1, 3))
    other.zero_()
    return out, flat(other), out + x


def _column_major(x: torch.Tensor) -> Any:
    out = torch.empty_strided((3, 4), (1, 3))
    out.copy_(x)
    return out.t().view(-1), out


def _windows(x: torch.Tensor) -> Any:
    y = x.contiguous() * 2  # what is written through windows is row-major for PyTorch, whatever it was
    y.unfold(1, 2, 2).mul_(3)
    return y.view(-1)


@pytest.mark.parametrize(
    "fn", [_transposed, _columns, _like_permuted, _gapped, _gapped_filled, _column_major, _windows]
)
@pytest.mark.parametrize("make", [torch.randn, permuted, gaps])
def test_memory_that_is_written(fn: Callable[..., Any], make: Callable[..., torch.Tensor]) -> None:
    check(fn, make(3, 4))


# -- gradients ----------------------------------------------------------------------------------------------
GRADIENTS: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "hardtanh": lambda x, y: F.hardtanh(x),
    "hardswish": lambda x, y: F.hardswish(x),
    "logit": lambda x, y: torch.logit(x.sigmoid(), 0.1),
    "mse_loss": lambda x, y: F.mse_loss(x, y, reduction="none"),
    "mse_loss mean": F.mse_loss,
    "smooth_l1_loss": F.smooth_l1_loss,
    "huber_loss": lambda x, y: F.huber_loss(x, y, reduction="none"),
    "log_softmax": lambda x, y: F.log_softmax(x, 0),
    "layer_norm": lambda x, y: F.layer_norm(x, (x.shape[-1],)),
    "select": lambda x, y: x[1] * 2,
    "reflection_pad": lambda x, y: F.pad(x, (1, 1, 1, 1), mode="reflect"),
    "group_norm": lambda x, y: F.group_norm(x, 2),
    "adaptive_avg_pool2d": lambda x, y: F.adaptive_avg_pool2d(x, 2),
}


@pytest.mark.parametrize("name", GRADIENTS)
@pytest.mark.parametrize("make", [permuted, image])
def test_gradients(name: str, make: Callable[..., torch.Tensor]) -> None:
    fn, x, y = GRADIENTS[name], make(2, 4, 5, 6), torch.randn(2, 4, 5, 6)

    def step(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        x = x.detach().requires_grad_()
        result = fn(x, y)
        (grad,) = torch.autograd.grad(result, x, torch.ones_like(result) * 2)
        return grad

    expected = step(x, y)
    leaf = x.detach().requires_grad_()
    result = compile_with(fn, "braze", strict=True)(leaf, y)
    (grad,) = torch.autograd.grad(result, leaf, torch.ones_like(result) * 2)
    assert_agrees(grad, expected)


# -- the mechanism ------------------------------------------------------------------------------------------
def _copies(operator: Any, *args: Any) -> int:
    """How many copies a decomposition makes."""
    gm = make_fx(TABLE[operator], tracing_mode="fake")(*args)
    return len(gm.graph.find_nodes(op="call_function", target=aten.clone.default))


def test_nothing_is_added_where_strides_agree() -> None:
    x, y = torch.randn(3, 4), torch.randn(3, 4)
    operator = aten.hardtanh_backward.default
    assert _copies(operator, x, y, -1.0, 1.0) == 0
    assert _copies(operator, x.t(), y.t(), -1.0, 1.0) == 0
    assert _copies(operator, permuted(3, 4), y, -1.0, 1.0) == 1


@pytest.mark.parametrize("dynamic", [False, True])
def test_powers_of_a_number_by_no_exponents(dynamic: bool) -> None:
    compiled = compile_with(lambda x: 2.0**x, "braze", strict=True, dynamic=dynamic)
    for shape, strides in (((2, 0), (1, 1)), ((0, 3), (1, 1)), ((3, 2), (1, 3))):
        x = torch.randn(8).as_strided(shape, strides)
        assert_agrees(compiled(x), 2.0**x)


@pytest.mark.parametrize("dynamic", [False, True])
def test_sizes_may_be_symbols(dynamic: bool) -> None:
    def fn(x: torch.Tensor, y: torch.Tensor) -> Any:
        return torch.lerp(x, y, 0.3), x[:, None].repeat(1, 3, 1).view(-1), F.group_norm(x[..., None, None], 1)

    compiled = compile_with(fn, "braze", strict=True, dynamic=dynamic)
    for rows, columns in ((3, 4), (5, 7)):
        x, y = permuted(rows, columns), torch.randn(rows, columns)
        assert_agrees(compiled(x, y), fn(x, y))


@pytest.mark.parametrize(
    "fn",
    [
        lambda x: x.exp().narrow(1, 1, 1),
        lambda x: x.exp()[:, :1],
        lambda x: F.group_norm(x, 1).narrow(1, -1, 1),
        lambda x: F.conv2d(x[None], x[:, :, :2, None].expand(-1, -1, -1, 2), padding=1)[..., :2],
        lambda x: x.exp()[1:, :, 1:],
    ],
)
def test_parts_of_tensors_whose_sizes_are_one_symbol_keep_their_strides(fn: Callable[..., Any]) -> None:
    """Whether such strides overlap is a question of signs of polynomials."""
    compiled = compile_with(fn, "braze", strict=True, dynamic=True)
    for n in (2, 3, 5):
        x = torch.randn(n, n, n)
        assert_agrees(compiled(x), fn(x))


def test_a_dimension_of_size_1_tells_a_convolution_its_format() -> None:
    x = torch.zeros(7).as_strided((2, 1, 2, 1), (2, 1, 1, 2))
    check(lambda x, w: F.conv1d(torch.norm(x, dim=1), w, padding=1), x, torch.zeros(2, 2, 1))
