"""One graph for every size."""

from __future__ import annotations

import pytest
import torch

from tests import support
from tests.models import language, simple
from tests.numerics import assert_agrees, in_float64

# (rows, columns) for twelve calls: odd and even, powers of two, the two equal, growing and shrinking.
SIZES = (
    (2, 3),
    (3, 2),
    (4, 4),
    (5, 7),
    (7, 5),
    (8, 16),
    (16, 8),
    (9, 33),
    (13, 17),
    (2, 48),
    (31, 2),
    (6, 12),
)


def cases() -> dict[str, tuple[torch.nn.Module, object]]:
    """Modules with a function from a pair of sizes to their inputs."""
    torch.manual_seed(7)
    mlp, _ = simple.mlp("test")
    gpt2, _ = language.gpt2("test")

    def rows(a: int, b: int) -> dict[str, torch.Tensor]:
        return {"x": torch.randn(a, b, simple.WIDTHS["test"])}

    def tokens(a: int, b: int) -> dict[str, torch.Tensor]:
        return {"input_ids": torch.randint(0, language.SHAPES["test"].vocabulary, (a, b))}

    return {"mlp": (mlp.eval(), rows), "gpt2": (gpt2.eval(), tokens)}


@pytest.mark.parametrize("name", ["mlp", "gpt2"])
def test_no_new_graph_after_the_first_call(name: str) -> None:
    module, inputs_of = cases()[name]
    wide = in_float64(module)
    compiled = support.compile_with(module, dynamic=True)
    for number, (a, b) in enumerate(SIZES):
        torch.manual_seed(number)
        inputs = inputs_of(a, b)
        with torch.no_grad(), support.watch() as stats:
            result = compiled(**inputs)
        assert stats.graphs == (1 if number == 0 else 0), f"call {number} with sizes {a}, {b}"
        with torch.no_grad():
            assert_agrees(result, module(**inputs), lambda inputs=inputs: wide(**in_float64(inputs)))
