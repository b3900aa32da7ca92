"""Complex tensors, compiled as pairs of reals: values, special ones too, memory, gradients."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import braze
from tests.lowering.execute import check
from tests.numerics import assert_agrees, in_float64
from tests.support import compile_with

DTYPES = [torch.complex64, torch.complex128]
PARTS = {torch.complex64: torch.float32, torch.complex128: torch.float64}
SPECIAL = (0.0, -0.0, 1.0, -2.5, 3.0, math.inf, -math.inf, math.nan, 1e-30, -1e30, 3e38)


def draw(*size: int, dtype: torch.dtype = torch.complex64) -> Tensor:
    return torch.randn(*size, dtype=dtype, generator=torch.Generator().manual_seed(sum(size)))


def special(dtype: torch.dtype) -> Tensor:
    pairs = torch.tensor(list(itertools.product(SPECIAL, SPECIAL)), dtype=torch.float64)
    return torch.view_as_complex(pairs.to(PARTS[dtype]))


def compiled(fn: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """The results of machine code, nothing of it by eager operators."""
    torch.compiler.reset()
    with braze.config.patch(strict=True, cache=False):
        return torch.compile(fn, backend="braze", **options)(*args)


def agrees(fn: Callable[..., Any], *args: Any, **options: Any) -> None:
    """Whether machine code gives what eager does: values, strides, and what it leaves in its arguments."""
    ours = [a.clone() if isinstance(a, Tensor) else a for a in args]
    theirs = [a.clone() if isinstance(a, Tensor) else a for a in args]
    found = [*_listed(compiled(fn, *ours, **options)), *ours]
    expected = [*_listed(fn(*theirs)), *theirs]
    exact = in_float64(list(args))
    assert_agrees(found, expected, lambda: [*_listed(fn(*exact)), *exact], check_strides=True)
    for have, want in zip(found, expected):
        if isinstance(want, Tensor):
            assert have.is_conj() == want.is_conj()
            assert have.is_neg() == want.is_neg()


def _listed(result: Any) -> list[Any]:
    return list(result) if isinstance(result, (tuple, list)) else [result]


def launches(fn: Callable[..., Any], *args: Any) -> int:
    """How many kernels a function becomes."""
    torch.compiler.reset()
    return len(braze.explain(fn, *args).kernels)


ONE: dict[str, Callable[[Tensor], Any]] = {
    **{name: getattr(torch, name) for name in "abs angle sgn neg exp log sqrt rsqrt square".split()},
    **{name: getattr(torch, name) for name in "reciprocal sin cos tan sinh cosh tanh sigmoid".split()},
    **{name: getattr(torch, name) for name in "isnan isinf isfinite conj_physical".split()},
    "powers": lambda z: (z**1, z**-1, z**0.5),
    "by_numbers": lambda z: (z * 2, z / 2, z + 1, 1 - z, 2 / z),
    "by_complex_numbers": lambda z: (z * 1j, z / (2.0 - 3j), z + (1 + 2j)),
    "conjugates": lambda z: (z.conj() * z, z.conj().imag + 1, z.mH.real * 2),
    "parts": lambda z: (z.real + 1, z.imag * 2, torch.view_as_real(z) - 1),
    "casts": lambda z: (z.to(torch.complex128), z.to(torch.complex64), z.to(torch.bool)),
    "comparisons": lambda z: (z == 1, z != 1, z == z),
}
TWO: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "add": torch.add,
    "sub": torch.sub,
    "mul": torch.mul,
    "div": torch.div,
    "scaled": lambda z, w: (torch.add(z, w, alpha=2), torch.sub(z, w, alpha=1.5 + 1j)),
    "equal": lambda z, w: (z == w, z != w),
    "chosen": lambda z, w: torch.where(z.real > 0, z, w),
    "of_parts": lambda z, w: torch.complex(z.real, w.imag),
    "by_reals": lambda z, w: (z * w.real, z / w.real, w.real / z, z.real - w),
    "polar": lambda z, w: torch.polar(z.real.abs(), w.real),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ONE)
def test_functions(name: str, dtype: torch.dtype) -> None:
    agrees(ONE[name], draw(5, 7, dtype=dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", TWO)
def test_functions_of_two(name: str, dtype: torch.dtype) -> None:
    agrees(TWO[name], draw(5, 7, dtype=dtype), draw(7, dtype=dtype))


def same(ours: Tensor, eagers: Tensor) -> Tensor:
    """Where tensors agree, signs of zeros included."""
    if ours.is_complex():
        return same(torch.view_as_real(ours), torch.view_as_real(eagers)).all(-1)
    if not ours.is_floating_point():
        return ours == eagers
    near = torch.isclose(ours, eagers, rtol=4e-6 if ours.dtype is torch.float32 else 1e-13, atol=0)
    zeros = (ours == 0) & (eagers == 0)
    return torch.where(zeros, ours.signbit() == eagers.signbit(), near | (ours.isnan() & eagers.isnan()))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", [n for n in ONE if n not in ("square", "conjugates")])
def test_special_values(name: str, dtype: torch.dtype) -> None:
    # eager computes the last few elements, which fill no vector, by other instructions
    z = torch.cat([special(dtype), torch.ones(7, dtype=dtype)])
    for ours, eagers in zip(_listed(compiled(ONE[name], z)), _listed(ONE[name](z)), strict=True):
        wrong = ~same(ours, eagers)
        assert not wrong.any(), (z[wrong.view(z.shape)], ours[wrong], eagers[wrong])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", [n for n in TWO if n != "scaled"])
def test_special_values_of_two(name: str, dtype: torch.dtype) -> None:
    z = special(dtype)
    a, b = z.repeat_interleave(len(z)), z.repeat(len(z))
    a, b = (torch.cat([t, torch.ones(-len(t) % 16, dtype=dtype)]) for t in (a, b))
    for ours, eagers in zip(_listed(compiled(TWO[name], a, b)), _listed(TWO[name](a, b)), strict=True):
        wrong = ~same(ours, eagers)
        assert not wrong.any(), (a[wrong], b[wrong], ours[wrong], eagers[wrong])


MOVES: dict[str, Callable[[Tensor], Any]] = {
    "permuted": lambda z: z.permute(2, 0, 1) * 2,
    "sliced": lambda z: z[:, 1:, ::2] + 1,
    "expanded": lambda z: z[:, :1].expand(2, 3, 4) * z,
    "reshaped": lambda z: (z + 1).reshape(6, 4).t().reshape(3, 8),
    "joined": lambda z: torch.cat([z, z * 2], 1),
    "stacked": lambda z: torch.stack([z, z.conj(), -z], -1),
    "filled": lambda z: (torch.zeros_like(z), torch.full_like(z, 1 - 2j), torch.full((2, 3), 1j) + z[..., 0]),
    "flipped": lambda z: z.flip(0, 2),
    "padded": lambda z: torch.nn.functional.pad(z, (1, 2, 0, 1), value=3),
    "chosen": lambda z: z[torch.tensor([1, 0, 1])],
    "rolled": lambda z: z.roll(1, -1),
    "copied": lambda z: (z.clone(), z.transpose(0, 2).contiguous(), z.to(torch.complex128)),
    "summed": lambda z: (z.sum(), z.sum(1), z.mean((0, 2), keepdim=True), z.conj().sum(-1)),
    "normed": lambda z: z / z.abs().sum(-1, keepdim=True),
    "resolved": lambda z: (z.conj().resolve_conj(), z.conj().imag.resolve_neg()),
    "truths": lambda z: (z.logical_not(), (z * 0).logical_or(z), (z[0] * 0).any(), z.any(1)),
    "put": lambda z: z.index_put((torch.tensor([1, 0]),), z[0] * 2),
    "added": lambda z: z.index_put((torch.tensor([1, 1, 0]),), z[0] * 2, accumulate=True),
    "added_slices": lambda z: z.index_add(1, torch.tensor([2, 0, 2]), z.flip(2)),
    "scattered_along": lambda z: z.scatter(2, torch.tensor([[[3, 1]]]).expand(2, 3, 2), z[..., :2] * 1j),
    "summed_along": lambda z: z.scatter_add(2, torch.tensor([[[3, 3]]]).expand(2, 3, 2), z[..., :2] * 1j),
    "masked": lambda z: z.masked_fill(z.real > 0, 1 - 1j),
    "diagonal": lambda z: z.diagonal(0, 1, 2) * 1j,
    "softmax_of_lengths": lambda z: z.abs().softmax(-1) * z.sgn(),
    "scattered": lambda z: torch.slice_scatter(z, z[:, :1] * 2, 1, 2, 3),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", MOVES)
def test_moves_and_sums(name: str, dtype: torch.dtype) -> None:
    agrees(MOVES[name], draw(2, 3, 4, dtype=dtype))


@pytest.mark.parametrize(
    "lay",
    [
        lambda: draw(4, 3, 2).permute(2, 1, 0),
        lambda: draw(4, 3, 4)[1:3, :, :],
        lambda: draw(2, 3, 8)[:, :, ::2],
        lambda: draw(2, 1, 4).expand(2, 3, 4),
        lambda: draw(25)[1:].view(2, 3, 4),
        lambda: draw(0, 3, 4),
        lambda: draw(2, 3, 4)[..., :0],
    ],
)
@pytest.mark.parametrize("name", ["permuted", "sliced", "joined", "summed", "copied"])
def test_layouts_of_inputs(name: str, lay: Callable[[], Tensor]) -> None:
    fn, z = MOVES[name], lay()
    found, expected = _listed(compiled(fn, z)), _listed(fn(z))
    assert_agrees(found, expected, lambda: _listed(fn(z.to(torch.complex128))), check_strides=True)


@pytest.mark.parametrize("name", ["by_numbers", "conjugates", "parts"])
def test_the_interpreter_agrees(name: str) -> None:
    check(lambda z: ONE[name](z), draw(5, 7))


# -- memory -----------------------------------------------------------------------------------------------
def real_part_written(z: Tensor) -> Tensor:
    z.real.mul_(2)
    z.imag[0] = 3
    return z * 1j


def in_place(z: Tensor) -> Tensor:
    z.mul_(1j).add_(1)
    return z.real + 1


def reals_written(z: Tensor) -> Tensor:
    parts = torch.view_as_real(z)
    parts[..., 1].sub_(1)
    return z.abs()


def reversed_in_place(z: Tensor) -> Tensor:
    y = z + 1
    z.copy_(z.flip(0) * 1j)
    return y


def conjugated_in_place(z: Tensor) -> Tensor:
    old = z.conj() * 2
    z.copy_(z.conj())
    return old + z


@pytest.mark.parametrize(
    "fn", [real_part_written, in_place, reals_written, reversed_in_place, conjugated_in_place]
)
@pytest.mark.parametrize("dtype", DTYPES)
def test_writes(fn: Callable[[Tensor], Tensor], dtype: torch.dtype) -> None:
    agrees(fn, draw(3, 4, dtype=dtype))


def test_views_of_inputs_share_memory() -> None:
    z = draw(3, 4)
    parts, real, turned = compiled(lambda z: (torch.view_as_real(z), z.real, z.t()), z)
    z.mul_(2)
    assert torch.equal(parts, torch.view_as_real(z))
    assert torch.equal(real, z.real)
    assert torch.equal(turned, z.t())


def test_views_among_results_share_memory() -> None:
    y, parts, back = compiled(lambda z: (z * 2, *_two_views(z * 3)), draw(3, 4))
    assert parts.data_ptr() == back.data_ptr()
    assert torch.equal(torch.view_as_complex(parts), back)
    assert y.is_contiguous()


def _two_views(z: Tensor) -> tuple[Tensor, Tensor]:
    parts = torch.view_as_real(z)
    return parts, torch.view_as_complex(parts)


@pytest.mark.filterwarnings("ignore::braze.errors.BrazeWarning")
@pytest.mark.parametrize("fn", [lambda z: z.conj(), lambda z: (z * 2).conj(), lambda z: z.conj().imag])
def test_results_are_conjugated_lazily_as_in_eager(fn: Callable[[Tensor], Tensor]) -> None:
    agrees(fn, draw(3, 4))


@pytest.mark.filterwarnings("ignore::braze.errors.BrazeWarning")
@pytest.mark.parametrize("fn", [lambda z: z * 2, lambda z: z.conj() + 1, lambda z: z.imag, lambda z: z @ z])
def test_lazily_conjugated_inputs(fn: Callable[[Tensor], Tensor]) -> None:
    torch.compiler.reset()
    with braze.config.patch(cache=False):
        ours = torch.compile(fn, backend="braze")
        for z in (draw(3, 3), draw(3, 3).conj()):
            torch.testing.assert_close(ours(z), fn(z))


@pytest.mark.filterwarnings("ignore::braze.errors.BrazeWarning")
@pytest.mark.parametrize(
    "fn",
    [
        lambda z: (z.conj() * 2) @ z.mH,
        lambda z: torch.linalg.inv(z + 3).conj() + z,
        lambda z: torch.fft.fft(z * 2).abs(),
        lambda z: (z.conj() @ z).real + 1,
        lambda z: z.asin().conj() * z,
    ],
)
def test_other_operators_between(fn: Callable[[Tensor], Tensor]) -> None:
    z = draw(3, 3)
    torch.compiler.reset()
    with braze.config.patch(cache=False):
        torch.testing.assert_close(torch.compile(fn, backend="braze")(z), fn(z))


# -- gradients, sizes, kernels ------------------------------------------------------------------------------
def loss_of_products(z: Tensor, w: Tensor) -> Tensor:
    return ((z * w).exp() / (w + 3)).abs().sum()


def loss_of_parts(z: Tensor, w: Tensor) -> Tensor:
    return (z.real * w.imag).sum() + torch.view_as_real(z * w.conj()).square().sum()


def loss_of_functions(z: Tensor, w: Tensor) -> Tensor:
    return (z.sin() * w.tanh() + (z**2 + 4).sqrt() - (w + 3).log()).abs().mean()


def loss_of_places(z: Tensor, w: Tensor) -> Tensor:
    rows = torch.tensor([1, 3, 1])
    return (z[rows] * w.index_select(0, rows) + z.gather(1, rows[:, None])).abs().sum()


def loss_of_angles(z: Tensor, w: Tensor) -> Tensor:
    return (torch.polar(z.abs(), w.angle()) * w.sgn()).real.sum()


@pytest.mark.parametrize(
    "fn", [loss_of_products, loss_of_parts, loss_of_functions, loss_of_angles, loss_of_places]
)
@pytest.mark.parametrize("dtype", DTYPES)
def test_gradients(fn: Callable[[Tensor, Tensor], Tensor], dtype: torch.dtype) -> None:
    def gradients(call: Callable[..., Tensor]) -> tuple[Tensor, ...]:
        z, w = (draw(5, n, dtype=dtype).requires_grad_() for n in (4, 4))
        return torch.autograd.grad(call(z, w), (z, w))

    torch.compiler.reset()
    with braze.config.patch(strict=True, cache=False):
        found = gradients(torch.compile(fn, backend="braze"))
    torch.testing.assert_close(found, gradients(fn))


@pytest.mark.parametrize("name", ["permuted", "sliced", "joined", "summed", "stacked", "flipped"])
def test_dynamic_sizes(name: str) -> None:
    torch.compiler.reset()
    with braze.config.patch(strict=True, cache=False):
        ours = torch.compile(MOVES[name], backend="braze", dynamic=True)
        for z in (draw(2, 3, 4), draw(5, 7, 6)):
            torch.testing.assert_close(ours(z), MOVES[name](z))


def rotary(q: Tensor, freqs: Tensor) -> Tensor:
    """What language models do to queries and keys."""
    turns = torch.polar(torch.ones_like(freqs), freqs)[None, :, None, :]
    pairs = torch.view_as_complex(q.float().reshape(*q.shape[:-1], -1, 2))
    return torch.view_as_real(pairs * turns).flatten(3).type_as(q)


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_rotary_embedding(dtype: torch.dtype, dynamic: bool) -> None:
    q, freqs = torch.randn(2, 5, 4, 16).to(dtype), torch.rand(5, 8) * 5
    found = compiled(rotary, q, freqs, dynamic=dynamic)
    torch.testing.assert_close(found, rotary(q, freqs))
    assert found.stride() == rotary(q, freqs).stride()


def turned(q: Tensor, turns: Tensor) -> Tensor:
    """The same with turns that the model keeps."""
    pairs = torch.view_as_complex(q.float().reshape(*q.shape[:-1], -1, 2))
    return torch.view_as_real(pairs * turns[None, :, None, :]).flatten(3).type_as(q)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_rotary_embedding_is_one_kernel(dtype: torch.dtype) -> None:
    q, freqs = torch.randn(2, 5, 4, 16).to(dtype), torch.rand(5, 8) * 5
    turns = torch.polar(torch.ones_like(freqs), freqs)
    torch.testing.assert_close(compiled(turned, q, turns), turned(q, turns))
    assert launches(turned, q, turns) == 1
    # sines and cosines are computed once, and not for each image and each head
    assert launches(rotary, q, freqs) == 2


def test_gradients_that_come_lazily_conjugated_are_their_conjugates() -> None:
    """Of a gradient's bits there are no guards."""
    x = torch.randn(4, dtype=torch.complex64, requires_grad=True)
    compiled = compile_with(lambda x: x * 2, "braze", strict=True)
    given = torch.randn(4, dtype=torch.complex64)
    for gradient in (given, given.conj(), given, given.conj()):
        (found,) = torch.autograd.grad(compiled(x), x, gradient)
        assert_agrees(found, gradient.resolve_conj() * 2)
    y = torch.randn(4, requires_grad=True)
    real = compile_with(lambda y: y * 2, "braze", strict=True)
    (found,) = torch.autograd.grad(real(y), y, given.conj().imag)
    assert_agrees(found, given.imag * -2)


def test_the_gradient_of_a_result_that_is_conjugated_lazily() -> None:
    def program(x: torch.Tensor) -> torch.Tensor:
        return torch.fft.ihfft(x)

    x = torch.randn(2, 7, requires_grad=True)
    gradient = torch.randn(2, 4, dtype=torch.complex64)
    (expected,) = torch.autograd.grad(program(x), x, gradient)
    (found,) = torch.autograd.grad(compile_with(program, "braze")(x), x, gradient)
    assert_agrees(found, expected)
