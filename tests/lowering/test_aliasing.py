"""Values that are read through an alias of memory before it is written, and after."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

Program = Callable[[Tensor], tuple[Tensor, ...]]


def complex_numbers() -> Tensor:
    return torch.complex(torch.arange(6.0), torch.arange(6.0) - 2)


def reals() -> Tensor:
    return torch.arange(60000.0)


def imaginary_part(x: Tensor) -> tuple[Tensor, ...]:
    y = x.imag + 1
    x.mul_(2)
    return (y,)


def part_read_twice(x: Tensor) -> tuple[Tensor, ...]:
    y = x.real * 2
    x.add_(1)
    return y, x.imag + 1


def as_reals(x: Tensor) -> tuple[Tensor, ...]:
    y = torch.view_as_real(x) + 1
    x.mul_(2)
    return (y,)


def part_of_a_list(x: Tensor) -> tuple[Tensor, ...]:
    first, second = x.split(3)
    y = first.abs() + 1
    z = torch.view_as_real(x.unbind(0)[1]) + 1
    x.mul_(2)
    return y, z, second.abs()


def parts_written_in_turn(x: Tensor) -> tuple[Tensor, ...]:
    real, imaginary = x.real, x.imag
    total = real + imaginary
    real.add_(1)
    product = real * imaginary
    imaginary.mul_(total)
    return total, product, x.abs()


def lazily_conjugated(x: Tensor) -> tuple[Tensor, ...]:
    y = x.conj().imag + 1
    x.mul_(2j)
    return (y,)


def as_complex(x: Tensor) -> tuple[Tensor, ...]:
    y = torch.view_as_complex(x.view(-1, 2)).real + 1
    x.mul_(2)
    return (y,)


def narrower_type(x: Tensor) -> tuple[Tensor, ...]:
    y = x.view(torch.int16) + 1
    x.mul_(2)
    return (y,)


def reversed_through_another_type(x: Tensor) -> tuple[Tensor, ...]:
    y = x.view(torch.int16).view(torch.float32).flip(0) + 1
    x.mul_(2)
    return (y,)


def written_through_another_type(x: Tensor) -> tuple[Tensor, ...]:
    alias = x.view(torch.int16).view(torch.float32)
    y = alias + 1
    z = x * 2
    x.add_(1)
    alias.mul_(3)
    return y, z


def alias_of_a_result(x: Tensor) -> tuple[Tensor, ...]:
    x = x * 2
    bits = x.view(torch.int16)
    bits[0] = 3
    y = bits + 1
    bits[1] = 7
    return x + 0, y


@pytest.mark.parametrize(
    ("program", "make"),
    [
        (imaginary_part, complex_numbers),
        (part_read_twice, complex_numbers),
        (as_reals, complex_numbers),
        (part_of_a_list, complex_numbers),
        (parts_written_in_turn, complex_numbers),
        (lazily_conjugated, complex_numbers),
        (as_complex, reals),
        (narrower_type, reals),
        (reversed_through_another_type, reals),
        (written_through_another_type, reals),
        (alias_of_a_result, reals),
    ],
    ids=lambda value: value.__name__,
)
def test_reads_and_writes_of_one_memory_keep_their_order(
    program: Program, make: Callable[[], Tensor]
) -> None:
    torch._dynamo.reset()
    ours, eagers = make(), make()
    expected = program(eagers)
    found = torch.compile(program, backend="braze")(ours)
    for name, want, have in zip(("x", "first", "second", "third"), (eagers, *expected), (ours, *found)):
        torch.testing.assert_close(have, want, equal_nan=True, msg=lambda text, name=name: f"{name}: {text}")


def base_and_part(x: Tensor) -> tuple[Tensor, ...]:
    y = x * 2
    return y, y[:, 1:]


def two_parts(x: Tensor) -> tuple[Tensor, ...]:
    y = x.exp()
    return y[0], y.t()[1:]


def pieces(x: Tensor) -> tuple[Tensor, ...]:
    first, second = (x + 1).split(2, 1)
    return first, second


def views_of_views(x: Tensor) -> tuple[Tensor, ...]:
    y = (x + 1).view(4, 3)
    return y.unsqueeze(0), y[1], y.expand(2, 4, 3)


def of_a_reduction(x: Tensor) -> tuple[Tensor, ...]:
    y = x.sum(0)
    return y, y[1:], y.view(2, 2)


def windows(x: Tensor) -> tuple[Tensor, ...]:
    return ((x + 1).unfold(1, 3, 1),)


def windows_and_base(x: Tensor) -> tuple[Tensor, ...]:
    y = x * 3
    return y.unfold(1, 2, 1), y


@pytest.mark.parametrize(
    "program",
    [base_and_part, two_parts, pieces, views_of_views, of_a_reduction, windows, windows_and_base],
    ids=lambda value: value.__name__,
)
@pytest.mark.parametrize("dynamic", [False, True])
def test_results_share_memory_as_eagers_do(program: Program, dynamic: bool) -> None:
    torch._dynamo.reset()
    x = torch.arange(12.0).view(3, 4)
    theirs = program(x)
    ours = torch.compile(program, backend="braze", dynamic=dynamic, options={"strict": True})(x)
    for mine, yours in zip(ours, theirs):
        torch.testing.assert_close(mine, yours)
        assert mine.stride() == yours.stride()
    for one, other in ((a, b) for a in range(len(ours)) for b in range(a)):
        shared = [
            r[one].untyped_storage().data_ptr() == r[other].untyped_storage().data_ptr()
            for r in (ours, theirs)
        ]
        assert shared[0] == shared[1], f"results {other} and {one}"
    for results in (theirs, ours):
        results[0].select(-1, 0).fill_(-7)
    for mine, yours in zip(ours, theirs):
        torch.testing.assert_close(mine, yours)


def test_kernels_that_only_write_to_empty_tensors() -> None:
    def program(x: Tensor, i: Tensor, w: Tensor) -> tuple[Tensor, ...]:
        x[i] = 0
        return x, torch.nn.functional.pad(x, (0, 4)) @ w.t()

    torch._dynamo.reset()
    compiled = torch.compile(program, backend="braze", options={"strict": True})
    w = torch.zeros(0, 4, requires_grad=True)
    x, product = compiled(torch.zeros(1, 0), torch.tensor([0]), w)
    assert x.shape == (1, 0) and product.shape == (1, 0)
    product.sum().backward()
    assert w.grad is not None and w.grad.shape == (0, 4)
