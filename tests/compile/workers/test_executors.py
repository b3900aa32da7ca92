"""The same job, given to executors from elsewhere."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor

import distributed
import pytest

from tests.compile.workers.light_jobs import double, nap
from tests.compile.workers.support import LONG, light_pool


def use(executor: Executor) -> None:
    """As a strategy does: jobs at once, each from bytes to bytes."""
    futures = [executor.submit(double, bytes([i]) * 1000) for i in range(20)]
    assert [f.result(LONG) for f in futures] == [bytes([i]) * 2000 for i in range(20)]
    assert executor.submit(nap, b"0").result(LONG).isdigit()


def test_our_own_and_threads() -> None:
    with light_pool(2) as pool:
        use(pool)
    with ThreadPoolExecutor(2) as threads:
        use(threads)


@pytest.mark.serial
def test_the_standard_library_s_processes() -> None:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as processes:
        use(processes)


@pytest.mark.serial
def test_a_dask_cluster() -> None:
    cluster = distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, processes=True, dashboard_address=None, memory_limit=0
    )
    with cluster, distributed.Client(cluster) as client:
        use(client.get_executor(pure=False))
