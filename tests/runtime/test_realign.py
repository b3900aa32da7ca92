"""Tensors that do not begin at a multiple of their element's size."""

from __future__ import annotations

import mmap
import warnings

import pytest
import torch

from braze.errors import InternalError
from braze.runtime.callgen import build
from braze.runtime.expr import as_expr
from braze.runtime.plan import BufferArg, Plan, Return, RunSegment
from braze.runtime.realign import run_realigned
from tests.runtime.kernels import linked


def misaligned(tensor: torch.Tensor, by: int = 1) -> torch.Tensor:
    """The same values at an odd address."""
    nbytes = max(tensor.numel() * tensor.dtype.itemsize, 1)
    memory = bytearray(nbytes + 64)
    start = -torch.frombuffer(memory, dtype=torch.uint8).data_ptr() % 64 + by
    made = torch.frombuffer(memory, dtype=tensor.dtype, offset=start, count=max(tensor.numel(), 1))
    made = made[: tensor.numel()].view(tensor.shape)
    assert made.data_ptr() % 64 == by
    return made.copy_(tensor)


def values(dtype: torch.dtype, *shape: int) -> torch.Tensor:
    if dtype.is_floating_point:
        return torch.randn(shape, dtype=torch.float64).to(dtype)
    return torch.randint(-50, 50, shape).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64, torch.bfloat16, torch.int32])
@pytest.mark.parametrize("by", [1, 2, 4])
def test_results_are_right(dtype: torch.dtype, by: int) -> None:
    compiled = torch.compile(lambda x, y: (x * 2 + y, (x - y).sum(0)), backend="braze")
    for shape in ((3, 8), (40, 33)):
        x, y = values(dtype, *shape), values(dtype, *shape)
        wanted = compiled(x, y)
        for a, b in ((misaligned(x, by), y), (x, misaligned(y, by)), (misaligned(x, by), misaligned(y, 3))):
            kept = a.clone()
            assert all(map(torch.equal, compiled(a, b), wanted))
            assert torch.equal(a, kept)


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.bfloat16])
def test_what_is_written_reaches_the_input(dtype: torch.dtype) -> None:
    def step(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        x.add_(y)
        x[1:] *= 2
        return x.sum()

    compiled = torch.compile(step, backend="braze")
    x, y = values(dtype, 6, 5), values(dtype, 6, 5)
    for made in (lambda: x.clone(), lambda: misaligned(x)):
        mine, wanted = made(), x.clone()
        torch.testing.assert_close(compiled(mine, misaligned(y)), step(wanted, y))
        assert torch.equal(mine, wanted)


def test_gaps_between_elements_are_left_alone() -> None:
    compiled = torch.compile(lambda x: x.mul_(2.0), backend="braze")
    whole = misaligned(torch.ones(6, 8))
    compiled(whole[:, :5])
    assert whole[:, :5].eq(2).all() and whole[:, 5:].eq(1).all()


def test_symbolic_sizes_and_many_threads() -> None:
    compiled = torch.compile(lambda x, w: torch.softmax(x + w, -1), backend="braze", dynamic=True)
    for rows in (3, 700):
        x, w = torch.randn(rows, 129), torch.randn(129)
        torch.testing.assert_close(compiled(misaligned(x), misaligned(w, 2)), torch.softmax(x + w, -1))


def test_memory_that_cannot_be_written_to_is_only_read() -> None:
    compiled = torch.compile(lambda x: x + 1, backend="braze")
    with mmap.mmap(-1, 4096, prot=mmap.PROT_READ) as memory, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of tensors on read-only memory
        x = torch.frombuffer(memory, dtype=torch.float32, offset=1, count=8)
        assert compiled(x).eq(1).all()
        del x
        torch.compiler.reset()


def test_gradients() -> None:
    compiled = torch.compile(lambda x, w: (x * w).tanh().sum(), backend="braze")
    x, w = torch.randn(9), torch.randn(9)
    a, b = misaligned(x).requires_grad_(), misaligned(w).requires_grad_()
    compiled(a, b).backward()
    x.requires_grad_()
    (x * w).tanh().sum().backward()
    torch.testing.assert_close(a.grad, x.grad)


def test_parameters() -> None:
    layer = torch.nn.LayerNorm(10)
    layer.weight = torch.nn.Parameter(misaligned(torch.randn(10)))
    x = torch.randn(4, 10)
    torch.testing.assert_close(torch.compile(layer, backend="braze")(x), layer(x))


def test_kernels_one_by_one_under_a_profiler() -> None:
    compiled = torch.compile(lambda x: (x + 1).sum(1).softmax(0), backend="braze")
    x = torch.randn(20, 30)
    compiled(x)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]):
        torch.testing.assert_close(compiled(misaligned(x)), (x + 1).sum(1).softmax(0))


def test_code_that_is_never_satisfied() -> None:
    code = linked(["picky"], "define i64 @picky(ptr %args, i64 %nt) { ret i64 1 }")
    plan = Plan("p", ("a",), (RunSegment("picky", (BufferArg("a"),), (), as_expr(1)), Return(())))
    with pytest.raises(InternalError, match="misaligned that is not"):
        build(plan, code)([misaligned(torch.ones(3))])


def test_one_copy_for_a_tensor_that_is_passed_twice() -> None:
    import struct

    x = misaligned(torch.arange(4.0))
    seen: list[int] = []

    def entry(args: bytes, threads: int) -> int:
        seen.extend(struct.unpack("=4q", args))
        assert threads == 2
        return 0

    run_realigned(entry, struct.pack("=4q", 7, x.data_ptr(), x.data_ptr() + 4, 9), 2, [(1, x), (2, x)])
    assert seen[0] == 7 and seen[3] == 9 and seen[2] == seen[1] + 4 and seen[1] % 16 == 0
