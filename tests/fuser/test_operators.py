"""Every elementwise operator and reduction of PyTorch's database through `braze.fuse`."""

from __future__ import annotations

import pytest

from tests.fuser.operators import DTYPES, judge, operators

SHARDS = 8
# What may run as eager PyTorch: samples without elements of operators that look at shapes, and operators that
# Braze has no code for.
EXPECTED = ("a tensor has no elements", "nothing of it is compiled: ")


@pytest.mark.parametrize("shard", range(SHARDS))
def test_results_and_gradients_are_eagers(shard: int) -> None:
    problems, pairs, gradients, fused = [], 0, 0, 0
    for number, (name, op) in enumerate(operators()):
        if number % SHARDS != shard:
            continue
        for dtype in DTYPES:
            if dtype not in op.dtypes:
                continue
            outcome = judge(name, op, dtype, count=2)
            pairs += outcome.samples > 0
            gradients += outcome.gradients > 0
            problems += [f"{outcome.name}: {problem}" for problem in outcome.problems]
            problems += [f"{outcome.name}: {r}" for r in outcome.fallbacks if not r.startswith(EXPECTED)]
            fused += not any(reason.startswith(EXPECTED[1]) for reason in outcome.fallbacks)
    assert not problems, "\n".join(problems)
    assert pairs > 40 and gradients > 15 and fused > 0.6 * pairs
