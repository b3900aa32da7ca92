"""One graph for every size, also by way of bytes and out of the cache."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters

from braze import config
from tests import support
from tests.models import strategies
from tests.models.strategies import Cell
from tests.models.test_dynamic import SIZES, cases
from tests.numerics import assert_agrees, in_float64


def calls(name: str) -> Cell:
    """Calls of all sizes, each of which has to give eager's result; what happened in all. ``traced`` counts
    graphs that AOTAutograd traced to the end: of one that has a number as an input (the ``eps`` of a layer
    norm), it has Dynamo begin again with a constant."""
    module, inputs_of = cases()[name]
    wide = in_float64(module)
    made, one = Cell(), Cell()
    support.reset()
    traced = counters["aot_autograd"]["ok"]
    compiled = support.compile_with(module, "braze", dynamic=True)
    for number, (a, b) in enumerate(SIZES[::3]):
        torch.manual_seed(number)
        inputs: dict[str, Any] = inputs_of(a, b)  # type: ignore[operator]
        with torch.no_grad():
            with strategies.watched(one):
                result = compiled(**inputs)
            assert_agrees(result, module(**inputs), lambda inputs=inputs: wide(**in_float64(inputs)))
        assert one.graphs == (1 if number == 0 else 0), f"call {number} with sizes {a}, {b}"
        assert not one.lines and not one.fallbacks and not one.eager_graphs
        made.graphs, made.here = made.graphs + one.graphs, made.here + one.here
        made.loaded += one.loaded
    made.traced = counters["aot_autograd"]["ok"] - traced
    return made


@pytest.mark.parametrize("name", ["mlp", "gpt2"])
def test_no_new_graph_after_the_first_call(name: str, tmp_path: Path) -> None:
    with config.patch(fx_compile_mode="serialized"):
        assert calls(name) == Cell(graphs=1, traced=1)
    with config.patch(cache=True, cache_dir=str(tmp_path)):
        assert calls(name) == Cell(graphs=1, here=1, traced=1)
        assert calls(name) == Cell(graphs=1, loaded=1)
        strategies.forget_level_2()
        assert calls(name) == Cell(graphs=1, loaded=1, traced=1)
