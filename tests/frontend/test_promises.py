"""What compiled code relies on and only the run can tell: sizes and positions out of data, and what operators
return."""

from __future__ import annotations

import pytest
import torch

from braze.errors import ResultMismatchError
from tests.guard_pages import passes_in_child


def test_sizes_and_positions_out_of_data_are_checked_before_memory_is_touched() -> None:
    agreed = passes_in_child("tests.frontend.sizes_out_of_data").split()[0]
    assert int(agreed) > 50


@torch.library.custom_op("braze_tests::as_it_likes", mutates_args=())
def as_it_likes(x: torch.Tensor, rows: int, double: bool) -> torch.Tensor:
    return torch.ones(rows, *x.shape[1:], dtype=torch.float64 if double else x.dtype)


@as_it_likes.register_fake
def _(x: torch.Tensor, rows: int, double: bool) -> torch.Tensor:
    return torch.empty_like(x)


@pytest.mark.filterwarnings("ignore:runs as eager PyTorch")
@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("shape", [(6,), (6, 3)])
@pytest.mark.parametrize(("rows", "double"), [(4, False), (600, False), (6, True)])
def test_an_operator_that_does_not_return_what_it_says(
    shape: tuple[int, ...], rows: int, double: bool, dynamic: bool
) -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        return torch.ops.braze_tests.as_it_likes(x, rows, double) * 2 + x

    compiled = torch.compile(function, backend="braze", fullgraph=True, dynamic=dynamic)
    with pytest.raises(ResultMismatchError, match="as_it_likes"):
        compiled(torch.randn(shape))
