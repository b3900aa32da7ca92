"""Whether tensors share memory: the exact answer, for any strides."""

from __future__ import annotations

import random

import pytest
import torch

from braze.runtime.overlaps import overlapping_pair, share_memory

ROOM = 400


def some(rng: random.Random, memory: torch.Tensor) -> torch.Tensor:
    """A tensor of any dtype, sizes and strides in the first bytes of ``memory``."""
    dtype = rng.choice([torch.uint8, torch.int16, torch.float32, torch.complex64])
    whole = memory.view(dtype)
    while True:
        sizes = [rng.choice([0, 1, 2, 3, 5]) for _ in range(rng.randrange(4))]
        strides = [rng.choice([0, 1, 2, 3, 4, 6, 10, 15]) for _ in sizes]
        reach = sum((n - 1) * s for n, s in zip(sizes, strides, strict=True) if n)
        room = ROOM // dtype.itemsize - reach - 1
        if room >= 0:
            return whole.as_strided(sizes, strides, rng.randrange(room + 1))


def touched(tensor: torch.Tensor) -> set[int]:
    """Every byte of it, element by element."""
    found: set[int] = set()
    for position in range(tensor.numel()):
        index, left = [], position
        for size in reversed(tensor.shape):
            index.append(left % size)
            left //= size
        at = sum(i * s for i, s in zip(reversed(index), tensor.stride(), strict=True))
        begin = tensor.data_ptr() + at * tensor.element_size()
        found.update(range(begin, begin + tensor.element_size()))
    return found


@pytest.mark.parametrize("seed", range(40))
def test_the_answer_is_exact(seed: int) -> None:
    rng, memory = random.Random(seed), torch.zeros(512, dtype=torch.uint8)
    for _ in range(50):
        a, b = some(rng, memory), some(rng, memory)
        assert share_memory(a, b) == bool(touched(a) & touched(b)), (a.shape, a.stride(), b.shape, b.stride())


def test_large_tensors_that_lie_among_each_other() -> None:
    memory = torch.zeros(1 << 20)
    even, odd = memory.as_strided((300, 2, 200), (1000, 402, 2)), memory.as_strided((300, 400), (1000, 2), 1)
    assert not share_memory(even, odd)
    assert share_memory(even, memory.as_strided((300, 400), (1000, 2), 402 + 398))


def test_pairs_count_where_one_is_written_to() -> None:
    memory = torch.zeros(8)
    tensors = [memory[:4], memory[4:], memory[2:6]]
    assert overlapping_pair(tensors, 0) is None
    assert overlapping_pair(tensors, 1) == (0, 2)
    assert overlapping_pair(tensors[:2], 2) is None
