from __future__ import annotations

import math

import pytest
import torch
from torch.fx import GraphModule

from braze.frontend.passes import random
from braze.ir import prims
from tests.frontend.passes.graphs import operators, trace

N = 20000


def rewritten(fn: object, *inputs: torch.Tensor) -> GraphModule:
    gm = trace(fn, *inputs)
    random.run(gm)
    gm.graph.lint()
    gm.recompile()
    return gm


@pytest.mark.parametrize(
    ("fn", "mean", "deviation"),
    [
        (lambda x: torch.rand(N), 0.5, math.sqrt(1 / 12)),
        (lambda x: torch.rand_like(x, dtype=torch.float64), 0.5, math.sqrt(1 / 12)),
        (lambda x: torch.rand(N, dtype=torch.bfloat16), 0.5, math.sqrt(1 / 12)),
        (lambda x: torch.randn_like(x), 0.0, 1.0),
        (lambda x: torch.randint(3, 9, (N,)), 5.5, math.sqrt(35 / 12)),
        (lambda x: torch.randint_like(x, 10), 4.5, math.sqrt(99 / 12)),
        (lambda x: torch.bernoulli(torch.full_like(x, 0.3)), 0.3, math.sqrt(0.21)),
        (lambda x: torch.normal(x + 2, 3.0), 2.0, 3.0),
        (lambda x: torch.ops.aten.uniform(x, -1.0, 3.0), 1.0, math.sqrt(16 / 12)),
        (lambda x: torch.ops.aten.exponential(x, 2.0), 0.5, 0.5),
        (lambda x: torch.ops.aten.geometric(x, 0.25), 4.0, math.sqrt(12)),
        (lambda x: torch.ops.aten.log_normal(x, 0.0, 0.5), math.exp(0.125), None),
        (lambda x: torch.ops.aten.native_dropout(x + 1, 0.25, True)[0], 1.0, math.sqrt(1 / 3)),
    ],
)
def test_distributions(fn: object, mean: float, deviation: float | None) -> None:
    x = torch.zeros(N)
    gm = rewritten(fn, x)
    assert operators(gm)["seeds"] == 1
    assert not any(
        op.startswith(("aten.rand", "aten.bernoulli", "aten.native_dropout")) for op in operators(gm)
    )
    torch.manual_seed(11)
    (values,) = gm(x)
    expected = fn(x)
    assert values.dtype is expected.dtype
    assert values.shape == expected.shape
    wide = values.double()
    # five standard errors; a wrong distribution is off by hundreds
    assert abs(wide.mean().item() - mean) < 5 * wide.std().item() / math.sqrt(N) + 0.003
    if deviation is not None:
        assert abs(wide.std().item() - deviation) < 0.05 * deviation
    torch.manual_seed(11)
    torch.testing.assert_close(gm(x)[0], values, rtol=0, atol=0)
    assert not torch.equal(gm(x)[0], values)


def test_uses_draw_from_different_streams() -> None:
    (first, second) = rewritten(lambda x: (torch.rand(50), torch.rand(50)), torch.zeros(1))(torch.zeros(1))
    assert not torch.equal(first, second)


def test_one_seeds_node_for_a_graph() -> None:
    gm = rewritten(
        lambda x: torch.rand(5) + torch.randn(5) + torch.rand_like(x, dtype=torch.float64), torch.zeros(5)
    )
    (node,) = [n for n in gm.graph.nodes if n.target is prims.seeds]
    assert node.args == (4,)
    assert node.meta["val"].shape == (4,)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_uniform_numbers_stay_below_one(dtype: torch.dtype) -> None:
    (values,) = rewritten(lambda x: torch.rand(1 << 18, dtype=dtype), torch.zeros(1))(torch.zeros(1))
    assert values.max() < 1
    assert values.min() >= 0


@pytest.mark.parametrize(("p", "kept"), [(0.0, 1.0), (1.0, 0.0)])
def test_dropout_at_its_ends(p: float, kept: float) -> None:
    x = torch.randn(100)
    result, mask = rewritten(lambda t: torch.ops.aten.native_dropout(t, p, True), x)(x)
    torch.testing.assert_close(result, x * kept)
    assert mask.float().mean() == kept


def test_dropout_in_evaluation_keeps_everything() -> None:
    x = torch.randn(100)
    result, mask = rewritten(lambda t: torch.ops.aten.native_dropout(t, 0.5, False), x)(x)
    torch.testing.assert_close(result, x)
    assert mask.all()


def test_generators_of_the_user_and_other_operators_are_left_alone() -> None:
    generator = torch.Generator()
    x = torch.zeros(3)
    gm = trace(lambda t: torch.randperm(4) + torch.multinomial(torch.ones(4), 4), x)
    before = operators(gm)
    assert not random.run(gm)
    assert operators(gm) == before
    gm = trace(lambda t: torch.rand(3, generator=generator), x)
    assert not random.run(gm)


def test_prims_give_what_their_metadata_says() -> None:
    seeds = prims.seeds(3)
    for values, meta in (
        (seeds, prims.METAS[prims.seeds](3)),
        (prims.rand(seeds, 1, [2, 5]), prims.METAS[prims.rand](seeds, 1, [2, 5])),
        (prims.randn(seeds, 2, [0, 3]), prims.METAS[prims.randn](seeds, 2, [0, 3])),
        (prims.randint(seeds, 0, -5, 5, [7]), prims.METAS[prims.randint](seeds, 0, -5, 5, [7])),
    ):
        assert (values.shape, values.dtype, values.stride()) == (meta.shape, meta.dtype, meta.stride())
