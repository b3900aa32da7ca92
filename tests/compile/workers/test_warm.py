"""Workers with torch and the whole compiler."""

from __future__ import annotations

import json
from collections.abc import Iterator

import msgspec
import pytest

from benchmarks.worker_faults import storm
from braze.compile.remote_job import echo
from braze.compile.torch_state import TorchState
from braze.compile.workers import CompilePool
from braze.errors import WorkerError
from tests.compile.workers import torch_jobs
from tests.compile.workers.support import LONG
from tests.runtime.kernels import ABORTS, constant_function


@pytest.fixture(scope="module")
def pool() -> Iterator[CompilePool]:
    with CompilePool(1, jobs=torch_jobs.__name__) as made:
        made.prestart()
        yield made


def test_the_compiler_is_loaded_before_the_first_job(pool: CompilePool) -> None:
    seen = json.loads(pool.submit(torch_jobs.look, b"").result(LONG))
    assert seen == {"threads": 1, "compiler": True, "inductor": False, "llvm": True, "sealed": True}
    assert pool.submit(echo, b"again").result(LONG) == b"again"


def test_torch_state_comes_with_a_job_or_not_at_all(pool: CompilePool) -> None:
    sent = msgspec.msgpack.encode(TorchState("float64", "default"))
    assert pool.submit(torch_jobs.default_dtype, sent).result(LONG) == b"torch.float64"
    with pytest.raises(WorkerError, match="default dtype was read in a worker process"):
        pool.submit(torch_jobs.default_dtype, b"").result(LONG)


def test_llvm_runs_in_the_worker(pool: CompilePool) -> None:
    text = constant_function(41).encode()
    assert pool.submit(torch_jobs.compile_module, text).result(LONG) == b"\x7fELF0"


def test_an_abort_of_llvm_s_costs_the_job_and_says_why(pool: CompilePool) -> None:
    with pytest.raises(WorkerError, match=r"2 compile workers were lost .*SIGABRT: .*LLVM ERROR"):
        pool.submit(torch_jobs.compile_module, ABORTS.encode()).result(LONG)


def test_a_warm_worker_stays_below_half_a_gigabyte(pool: CompilePool) -> None:
    pool.submit(echo, b"").result(LONG)
    assert all(size < 512 << 20 for size in pool.worker_rss().values())


@pytest.mark.serial
def test_compiles_whose_workers_are_killed_are_right() -> None:
    found = storm(6, one_in=2, workers=1)
    assert found["workers killed"] >= 1
    assert found["wrong results"] == 0
