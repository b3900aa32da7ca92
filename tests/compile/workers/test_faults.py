"""Whatever happens to a worker costs at most its job; nothing hangs, and no answer is wrong."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from braze.compile.workers import CompilePool
from braze.errors import WorkerError
from braze.runtime.workers import process as launch
from tests.compile.workers import light_jobs as jobs
from tests.compile.workers.support import LONG, alive, light_pool, wait_until

FATAL = {
    jobs.abort: r"died \(SIGABRT: .*LLVM ERROR: this module is cursed",
    jobs.vanish: r"died \(SIGKILL: it said nothing",
    jobs.allocate_without_end: r"died \(exit status 71: MemoryError: the memory .* is used up",
    jobs.rubbish: r"answered rubbish \(b'.*begins no frame",
    jobs.another_number: r"answered rubbish \(ANSWER to job 987654321\)",
    jobs.another_kind: r"answered rubbish \(HELLO to job 0\)",
    jobs.half_an_answer: r"died \(SIGKILL",
}


@pytest.mark.parametrize("job", FATAL, ids=lambda job: job.__name__)
def test_a_fatal_job_costs_two_workers_and_says_why(job: Callable[[bytes], bytes]) -> None:
    with light_pool(1) as pool:
        pids = {int(pool.submit(jobs.nap, b"0").result(LONG))}
        with pytest.raises(WorkerError, match=r"2 compile workers were lost with a job: " + FATAL[job]):
            pool.submit(job, b"x").result(LONG)
        # the pool goes on, with another worker
        assert int(pool.submit(jobs.nap, b"0").result(LONG)) not in pids
        assert not any(map(alive, pids))


def test_a_job_can_be_worth_one_worker_only() -> None:
    with CompilePool(1, timeout=LONG, attempts=1, jobs=jobs.__name__) as pool:
        with pytest.raises(WorkerError, match=r"a compile worker was lost with a job: died \(SIGKILL"):
            pool.submit(jobs.vanish, b"x").result(LONG)
        assert pool.submit(jobs.double, b"x").result(LONG) == b"xx"


@pytest.mark.parametrize("job", [jobs.sleep_for_ever, jobs.hang_in_c], ids=lambda job: job.__name__)
def test_a_hanging_job_says_where_it_hangs(job: Callable[[bytes], bytes]) -> None:
    with light_pool(1, timeout=0.4) as pool:
        start = time.monotonic()
        with pytest.raises(
            WorkerError, match=rf"did not answer for 0\.4 s .*it was at .*light_jobs.* in {job.__name__}"
        ):
            pool.submit(job, b"x").result(LONG)
        assert time.monotonic() - start < 20


def test_a_worker_that_is_stopped_is_given_up() -> None:
    with light_pool(1, timeout=0.3) as pool:
        pid = int(pool.submit(jobs.nap, b"0").result(LONG))
        os.kill(pid, signal.SIGSTOP)
        assert pool.submit(jobs.double, b"x").result(LONG) == b"xx"
        assert not alive(pid)


def test_an_idle_worker_that_dies_is_replaced() -> None:
    with light_pool(1) as pool:
        pid = int(pool.submit(jobs.nap, b"0").result(LONG))
        os.kill(pid, signal.SIGKILL)
        assert pool.submit(jobs.double, b"x").result(LONG) == b"xx"
        assert pool.worker_pids() != [pid]


def test_an_exception_costs_nothing() -> None:
    with light_pool(1) as pool:
        pid = pool.submit(jobs.nap, b"0").result(LONG)
        with pytest.raises(WorkerError, match=r"raised ValueError: oh dear \(.*light_jobs.py:\d+, in fail\)"):
            pool.submit(jobs.fail, b"oh dear").result(LONG)
        with pytest.raises(WorkerError, match="raised SystemExit: 3"):
            pool.submit(jobs.leave, b"").result(LONG)
        with pytest.raises(WorkerError, match="raised TypeError: job 'text' returned str, not bytes"):
            pool.submit(jobs.text, b"").result(LONG)
        assert pool.submit(jobs.nap, b"0").result(LONG) == pid


def test_an_answer_larger_than_agreed_is_rubbish() -> None:
    pool = CompilePool(1, timeout=LONG, max_answer=1000, jobs=jobs.__name__)
    with pool:
        assert len(pool.submit(jobs.double, bytes(500)).result(LONG)) == 1000
        with pytest.raises(WorkerError, match=r"rubbish .*larger than agreed"):
            pool.submit(jobs.double, bytes(501)).result(LONG)


def test_what_a_job_prints_disturbs_nobody() -> None:
    with light_pool(1) as pool:
        assert pool.submit(jobs.chatter, b"!").result(LONG) == b"!"


@pytest.mark.serial
def test_workers_killed_at_random_moments() -> None:
    """200 jobs while somebody kills workers: each gives the right answer, or `WorkerError` where it met with
    two of these accidents, or where the pool saw three starts fail in a row."""
    rng = random.Random(0)
    killed = 0
    over = threading.Event()

    def kill(most: float) -> None:
        nonlocal killed
        while not over.wait(rng.uniform(0.0, most)):
            pids = pool.worker_pids()
            if pids:
                os.kill(rng.choice(pids), signal.SIGKILL)
                killed += 1

    with light_pool(3, timeout=10) as pool:
        start = time.monotonic()
        pool.submit(jobs.double, b"x").result(LONG)
        killer = threading.Thread(target=kill, args=(3 * (time.monotonic() - start),))
        killer.start()
        answers = {}
        try:
            payloads = [f"{i:03}".encode() * rng.choice((1, 1000, 300_000)) for i in range(200)]
            futures = [pool.submit(jobs.slowly_double, payload) for payload in payloads]
            for payload, future in zip(payloads, futures):
                with contextlib.suppress(WorkerError):
                    answers[payload] = future.result(LONG)
        finally:
            over.set()
            killer.join()
        assert killed >= 5
        assert all(answer == payload * 2 for payload, answer in answers.items())
        if pool.unusable_reason() is None:
            assert len(answers) > 100
            assert pool.submit(jobs.double, b"x").result(LONG) == b"xx"


BAD_STARTS = {
    "exits": ("import sys; sys.exit('no luck')", "no luck"),
    "is another program": ("print('hello, I am a login banner')", "answered rubbish .*hello"),
    "is missing a module": ("import absent_module", "No module named 'absent_module'"),
}


class _Ended(subprocess.Popen):  # type: ignore[type-arg]
    """A process that has ended before its parent speaks to it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.wait()


@pytest.mark.parametrize("popen", [subprocess.Popen, _Ended], ids=["spoken to", "ended before"])
@pytest.mark.parametrize("program", BAD_STARTS.values(), ids=list(BAD_STARTS))
def test_workers_that_die_at_start_make_the_pool_unusable(
    program: tuple[str, str], popen: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "_BOOTSTRAP", program[0])
    monkeypatch.setattr(subprocess, "Popen", popen)
    pool = light_pool(2)
    futures = [pool.submit(jobs.double, b"x") for _ in range(3)]
    for future in futures:
        with pytest.raises(WorkerError, match=f"cannot be had: they do not start: .*{program[1]}"):
            future.result(LONG)
    start = time.monotonic()
    with pytest.raises(WorkerError, match="do not start"):
        pool.submit(jobs.double, b"x")
    assert time.monotonic() - start < 0.1
    assert "do not start" in (pool.unusable_reason() or "")
    pool.shutdown()


def test_a_worker_that_never_says_hello(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "_BOOTSTRAP", "import time; time.sleep(3600)")
    pool = CompilePool(1, start_seconds=0.2, jobs=jobs.__name__)
    with pytest.raises(WorkerError, match="do not start: did not start in time"):
        pool.submit(jobs.double, b"x").result(LONG)
    pool.shutdown()


@pytest.mark.parametrize("executable", ["/nonexistent/python", ""])
def test_where_no_process_can_be_started(executable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", executable)
    pool = light_pool(1)
    with pytest.raises(WorkerError, match=r"cannot be had: .*(no process could be started|is not known)"):
        pool.submit(jobs.double, b"x").result(LONG)
    pool.shutdown()


def test_a_bad_start_between_good_ones_costs_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    mark = str(tmp_path / "started once")
    once = f"import os\nif not os.path.exists({mark!r}):\n    open({mark!r}, 'w').close()\n    os._exit(1)\n"
    monkeypatch.setattr(launch, "_BOOTSTRAP", once + launch._BOOTSTRAP)
    with light_pool(1) as pool:
        assert pool.submit(jobs.double, b"x").result(LONG) == b"xx"
        assert pool.unusable_reason() is None
    assert os.path.exists(mark)


def test_a_defect_of_the_watching_thread_leaves_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    def defect(*_: object) -> None:
        raise ZeroDivisionError

    pool = light_pool(1)
    future = pool.submit(jobs.sleep_for_ever, b"")
    wait_until(future.running)
    monkeypatch.setattr(pool, "_check", defect)
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    pool.prestart()
    with pytest.raises(WorkerError, match="ZeroDivisionError"):
        future.result(LONG)
    assert pool.worker_pids() == []
