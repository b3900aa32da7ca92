"""A pair that crashes or hangs costs its worker and nothing else."""

from __future__ import annotations

import pytest

from tests.opinfo.cases import Pair
from tests.opinfo.pool import Settings, all_pairs, judge_all, shard

FAULTY = Settings("none", limit=2.0, module="tests.opinfo.faulty_worker")


@pytest.mark.parametrize("jobs", [1, 2])
def test_the_run_goes_on_after_crashes_and_hangs(jobs: int) -> None:
    seen: list[str] = []
    verdicts = judge_all(all_pairs(FAULTY), FAULTY, jobs, progress=lambda verdict: seen.append(verdict.op))
    found = {verdict.op: (verdict.status, verdict.reason) for verdict in verdicts}
    assert sorted(seen) == sorted(found)
    assert found.pop("abort") == ("crashed", "SIGABRT: Assertion `x' failed")
    assert found.pop("exit") == ("crashed", "exit status 3: ")
    assert found.pop("hang") == ("timeout", "took more than 2 s")
    assert set(found) == {"fine_1", "fine_2", "fine_3", "fine_4"}
    assert set(found.values()) == {("ok", "")}


def test_workers_are_renewed() -> None:
    pairs = [Pair(f"fine_{number}", "float32") for number in range(5)]
    settings = Settings("none", renew=2, module="tests.opinfo.faulty_worker")
    verdicts = judge_all(pairs, settings, jobs=1)
    # The stand-in worker reports its process id where a real one reports graphs.
    assert len({verdict.graphs for verdict in verdicts}) == 3


def test_shards_are_a_partition() -> None:
    pairs = [Pair(f"op{number}", "float32") for number in range(11)]
    parts = [shard(pairs, number, 4) for number in range(1, 5)]
    assert sorted(pair.op for part in parts for pair in part) == sorted(pair.op for pair in pairs)
    with pytest.raises(ValueError, match="runs from 1 to 4"):
        shard(pairs, 5, 4)
