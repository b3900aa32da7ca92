"""Every operator of PyTorch's operator database, against eager and against the recorded lists.

`python -m tests.opinfo.run --write` makes the lists anew, which is due whenever one of them shrinks.
"""

from __future__ import annotations

import os

import pytest

from tests import support
from tests.opinfo.cases import KINDS, RECORDED, Pair
from tests.opinfo.pool import Settings, all_pairs, judge_all, shard
from tests.opinfo.report import RIGHT_FLOOR, STRICT_FLOOR, Lists

SHARDS = 8
# Beside other test processes one worker is enough; alone, the tests take what there is.
JOBS = 1 if "PYTEST_XDIST_WORKER" in os.environ else os.cpu_count() or 1


EVERY = 12
"""Of the pairs that no list is kept of, one in so many is judged here."""


def recorded_pairs(settings: Settings) -> list[Pair]:
    return [pair for pair in all_pairs(settings) if pair.dtype in RECORDED]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in RECORDED])
def test_half_types_and_gradients_are_right(kind: str) -> None:
    settings = Settings(support.BACKEND, samples=1)
    pairs = [pair for pair in all_pairs(settings) if pair.dtype == kind]
    found = Lists.of(judge_all(pairs[list(KINDS).index(kind) :: EVERY], settings, JOBS))
    assert not {str(pair): reason for pair, reason in found.wrong.items()}


@pytest.mark.parametrize("op", ["nn.functional.softsign", "rsqrt", "asin", "kron"])
def test_gradients_of_half_types_are_judged_by_float64(op: str) -> None:
    """Eager rounds between the operators of a formula, fused code does not: it is nearer to the truth, and
    further from eager than the tolerance."""
    (verdict,) = judge_all([Pair(op, "bfloat16 gradients")], Settings(support.BACKEND, samples=1), JOBS)
    assert verdict.status == "ok", verdict.reason


@pytest.mark.parametrize("number", range(1, SHARDS + 1))
def test_results_and_fallbacks_are_no_worse_than_recorded(number: int) -> None:
    settings = Settings(support.BACKEND)
    pairs = shard(recorded_pairs(settings), number, SHARDS)
    found, recorded = Lists.of(judge_all(pairs, settings, JOBS)), Lists.read()
    for name in ("wrong", "fallback", "no_graph", "no_sample"):
        new = {
            str(pair): reason
            for pair, reason in getattr(found, name).items()
            if pair not in getattr(recorded, name)
        }
        assert not new, f"new in expected/{name}.jsonl: {new}"


def test_the_recorded_lists_are_within_what_is_promised() -> None:
    recorded = Lists.read()
    assert recorded.right() >= RIGHT_FLOOR
    assert recorded.strict("float32") >= STRICT_FLOOR


def test_the_recorded_lists_speak_of_the_operators_that_there_are() -> None:
    pairs, recorded = recorded_pairs(Settings(support.BACKEND)), Lists.read()
    assert sum(recorded.total.values()) == len(pairs)
    for name in Lists.FILES:
        assert set(getattr(recorded, name)) <= set(pairs)
