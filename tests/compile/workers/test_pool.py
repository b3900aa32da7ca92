"""The pool as an executor."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError, wait

import pytest

from braze import config
from braze.compile import workers as pool_module
from braze.compile import workers as sizing
from braze.compile.workers import CompilePool
from braze.errors import WorkerError
from tests.compile.workers.light_jobs import double, nap, once, sleep_for_ever
from tests.compile.workers.support import LONG, alive, light_pool, wait_until


@pytest.fixture(scope="module")
def pool() -> Iterator[CompilePool]:
    with light_pool(2) as made:
        yield made


def test_a_job_is_bytes_to_bytes(pool: CompilePool) -> None:
    assert pool.submit(double, b"ab").result(LONG) == b"abab"
    assert list(pool.map(double, [b"", b"x", b"\0" * 5], timeout=LONG)) == [b"", b"xx", b"\0" * 10]


def test_large_payloads_pass(pool: CompilePool) -> None:
    payload = bytes(range(256)) * (1 << 16)
    assert pool.submit(double, payload).result(LONG) == payload * 2


def test_only_jobs_of_the_table_run(pool: CompilePool) -> None:
    with pytest.raises(TypeError, match="is not a job of"):
        pool.submit(len, b"x")
    with pytest.raises(TypeError, match="one argument, of bytes"):
        pool.submit(double, "text")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="one argument, of bytes"):
        pool.submit(double, b"x", b"y")  # type: ignore[call-arg]


def test_a_worker_refuses_what_its_table_does_not_hold(
    pool: CompilePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(pool._names, len, "os.system")
    with pytest.raises(WorkerError, match=r"refused a job: no job is called 'os\.system'"):
        pool.submit(len, b"x").result(LONG)


def test_many_threads_submit(pool: CompilePool) -> None:
    wrong = []

    def use(number: int) -> None:
        for i in range(25):
            payload = f"{number}-{i}".encode()
            if pool.submit(double, payload).result(LONG) != payload * 2:
                wrong.append(payload)

    threads = [threading.Thread(target=use, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_jobs_run_side_by_side_and_workers_are_reused(pool: CompilePool) -> None:
    done = {f.result(LONG) for f in [pool.submit(nap, b"0.3") for _ in range(4)]}
    assert done == {str(pid).encode() for pid in pool.worker_pids()}
    assert len(done) == 2


def test_a_job_that_was_lost_once_is_done_by_a_fresh_worker(pool: CompilePool, tmp_path: object) -> None:
    list(pool.map(double, [b"x"] * 8))
    before = pool.worker_pids()
    answered_by = int(pool.submit(once, f"{tmp_path}/first".encode()).result(LONG))
    assert answered_by not in before


def test_memory_of_workers(pool: CompilePool) -> None:
    pool.submit(double, b"x").result(LONG)
    assert set(pool.worker_rss()) == set(pool.worker_pids())
    assert all(4 << 20 < size < 200 << 20 for size in pool.worker_rss().values())
    assert sizing.worker_rss([2**22 + 1]) == {}


def test_workers_can_be_started_before_there_is_work() -> None:
    with light_pool(2) as pool:
        assert pool.worker_pids() == []
        pool.prestart(5)
        wait_until(lambda: len(pool.worker_pids()) == 2)
        assert pool.submit(nap, b"0").result(LONG).decode() in map(str, pool.worker_pids())


def test_idle_workers_leave_and_come_back() -> None:
    with light_pool(1, idle_seconds=0.1) as pool:
        pool.submit(double, b"x").result(LONG)
        (pid,) = pool.worker_pids()
        wait_until(lambda: not pool.worker_pids())
        assert not alive(pid)
        wait_until(lambda: pool._thread is None)  # nothing is left of it
        assert pool.submit(double, b"y").result(LONG) == b"yy"


def test_shutdown_finishes_what_was_submitted() -> None:
    pool = light_pool(1)
    futures = [pool.submit(nap, b"0.05") for _ in range(4)]
    pool.shutdown(wait=True)
    assert all(f.done() and f.result() for f in futures)
    assert pool.worker_pids() == []
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.submit(double, b"x")
    pool.prestart()
    pool.shutdown()
    assert pool.worker_pids() == []


def test_shutdown_while_busy_cancels_what_no_worker_has() -> None:
    pool = light_pool(1)
    running = pool.submit(nap, b"0.5")
    wait_until(running.running)
    waiting = [pool.submit(sleep_for_ever, b"") for _ in range(3)]
    start = time.monotonic()
    pool.shutdown(wait=False, cancel_futures=True)
    assert time.monotonic() - start < 0.4
    assert running.result(LONG)
    assert wait(waiting, timeout=LONG).not_done == set()
    for future in waiting:
        with pytest.raises(CancelledError):
            future.result(0)
    wait_until(lambda: not pool.worker_pids())


def test_terminate_gives_up_what_is_unfinished() -> None:
    pool = light_pool(1)
    running, waiting = pool.submit(sleep_for_ever, b""), pool.submit(double, b"x")
    wait_until(running.running)
    (pid,) = pool.worker_pids()
    pool.terminate("enough of it")
    for future in (running, waiting):
        with pytest.raises(WorkerError, match="enough of it"):
            future.result(LONG)
    assert not alive(pid)


def test_a_waiting_job_can_be_cancelled() -> None:
    with light_pool(1) as pool:
        first = pool.submit(nap, b"0.3")
        wait_until(first.running)
        second, third = pool.submit(sleep_for_ever, b""), pool.submit(double, b"x")
        assert second.cancel()
        assert third.result(LONG) == b"xx"
        assert not first.cancel()


def test_a_callback_may_submit_and_shut_down() -> None:
    pool = light_pool(1)
    results: list[object] = []

    def again(future: object) -> None:
        results.append(pool.submit(double, b"z"))
        pool.shutdown(wait=True)

    pool.submit(nap, b"0.1").add_done_callback(again)
    wait_until(lambda: results)
    assert results[0].result(LONG) == b"zz"  # type: ignore[attr-defined]


def test_options_set_the_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    with config.patch(compile_workers=3, compile_memory_mb=100, compile_idle_seconds=7, compile_timeout=1):
        pool = CompilePool(jobs="tests.compile.workers.light_jobs")
        assert (pool.size, pool.memory_mb, pool.idle_seconds) == (3, 100, 7)
        with pytest.raises(WorkerError, match="did not answer for 1 s"), pool:
            pool.submit(sleep_for_ever, b"").result(LONG)
    monkeypatch.setattr(sizing, "default_workers", lambda: 5)
    assert CompilePool(jobs="tests.compile.workers.light_jobs").size == 5


def test_no_second_worker_where_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sizing, "available_bytes", lambda: 1 << 20)
    with light_pool(4) as pool:
        assert len({f.result(LONG) for f in [pool.submit(nap, b"0.05") for _ in range(5)]}) == 1


def test_the_shared_pool_is_one() -> None:
    assert pool_module.shared() is pool_module.shared()
    assert pool_module.shared().jobs == pool_module.DEFAULT_JOBS
