from __future__ import annotations

import threading

import torch

from braze.runtime.memory import WorkspacePool, release, workspaces


def test_the_last_used_block_is_the_next() -> None:
    pool = WorkspacePool()
    block = pool.take(100)
    assert block.nbytes >= 100
    assert block.address % 64 == 0
    assert pool.take(100) is not block
    pool.give(block)
    assert pool.take(50) is block


def test_a_small_block_makes_room_for_a_larger_one() -> None:
    pool = WorkspacePool()
    small = pool.take(1)
    pool.give(small)
    large = pool.take(small.nbytes + 1)
    assert large is not small
    assert pool.nbytes == 0
    pool.give(large)
    assert pool.take(1) is large


def test_a_large_block_below_a_small_one_is_found() -> None:
    pool = WorkspacePool()
    large, small = pool.take(1 << 20), pool.take(1)
    pool.give(large)
    pool.give(small)
    assert pool.take(1 << 18) is large
    assert pool.take(1) is small


def test_bounded() -> None:
    pool = WorkspacePool(limit=1 << 20)
    blocks = [pool.take(1 << 18) for _ in range(10)]
    for block in blocks:
        pool.give(block)
    assert pool.nbytes == 1 << 20
    pool.give(pool._new(1 << 21))
    assert pool.nbytes == 1 << 20


def test_release() -> None:
    pool = WorkspacePool()
    pool.give(pool.take(1))
    assert pool.release() == 1 << 16
    assert pool.nbytes == 0
    workspaces.give(workspaces.take(1))
    assert release() >= 1 << 16
    assert workspaces.nbytes == 0


def test_tensors_of_a_block() -> None:
    block = WorkspacePool().take(256)
    whole = block.tensor(0, torch.uint8, (256,), (1,))
    whole.zero_()
    part = block.tensor(64, torch.float32, (2, 3), (4, 1))
    part.fill_(1.0)
    assert part.data_ptr() == block.address + 64
    assert block.tensor(64, torch.int32, (8,), (1,)).ne(0).tolist() == [True] * 3 + [False] + [True] * 3 + [
        False
    ]
    with torch.inference_mode():
        other = WorkspacePool().take(64).tensor(0, torch.float64, (8,), (1,))
        assert block.tensor(0, torch.float64, (1,), (1,)).data_ptr() == block.address
    assert other.numel() == 8


def test_no_block_belongs_to_two_at_once() -> None:
    pool = WorkspacePool()
    wrong = []

    def use(number: int) -> None:
        for i in range(300):
            block = pool.take(1 << (8 + (number + i) % 12))
            data = block.tensor(0, torch.int64, (16,), (1,))
            data.fill_(number)
            if not bool((data == number).all()):
                wrong.append(number)
            pool.give(block)

    threads = [threading.Thread(target=use, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
