"""What the machine is measured to do: once, quickly, and not less than what it is seen to do."""

from __future__ import annotations

import threading
import time

import pytest
import torch

from braze.inspect import machine
from braze.inspect.machine import Machine, roofline


def test_it_is_measured_once() -> None:
    first = machine.measured()
    start = time.perf_counter()
    assert machine.measured() is first
    assert time.perf_counter() - start < 0.01
    assert first.threads == torch.get_num_threads()
    assert first.bandwidth > 1e8 and first.peak > 1e8


def test_another_number_of_threads_is_another_machine() -> None:
    seen: list[Machine] = []

    def measure() -> None:  # torch's number of threads is one of the calling thread
        torch.set_num_threads(1)
        seen.append(machine.measured())

    before = torch.get_num_threads()
    thread = threading.Thread(target=measure)
    thread.start()
    thread.join()
    torch.set_num_threads(before)
    assert seen[0].threads == 1 and str(seen[0]).endswith("on 1 thread")


def test_an_interruption_leaves_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> float:
        if threading.current_thread() is threading.main_thread():
            raise KeyboardInterrupt
        return clock()

    clock, before = time.perf_counter, set(threading.enumerate())
    with monkeypatch.context() as patched:
        patched.setattr(time, "perf_counter", interrupted)
        with pytest.raises(KeyboardInterrupt):
            machine._peak(3)
    for thread in set(threading.enumerate()) - before:
        if thread.name != "braze-llvm-pool":
            thread.join(30)
            assert not thread.is_alive()


@pytest.mark.serial
def test_the_peak_is_above_what_a_matrix_product_reaches() -> None:
    a = torch.randn(512, 512)
    best = float("inf")
    for _ in range(10):
        start = time.perf_counter()
        a @ a
        best = min(best, time.perf_counter() - start)
    assert machine.measured().peak > 0.5 * 2 * 512**3 / best


def test_the_roofline_has_two_sides() -> None:
    here = Machine(bandwidth=1e9, peak=1e12, threads=1)
    assert roofline(1_000_000, 0, here) == (1e-3, "memory")
    assert roofline(1000, 2_000_000_000, here) == (2e-3, "arithmetic")
