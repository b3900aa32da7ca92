"""Results of operators whose strides are not those of the trace."""

from __future__ import annotations

import pytest
import torch

from braze.errors import ResultMismatchError
from braze.runtime.callgen import build
from braze.runtime.plan import CallExtern, Plan, Ref, Restride, Return
from braze.runtime.spec import TensorSpec, exprs


def test_results_of_operators_get_the_strides_that_the_code_expects() -> None:
    def plan(sizes: tuple[int, ...], strides: tuple[int, ...]) -> Plan:
        return Plan(
            "restride",
            ("x",),
            (
                CallExtern("python::op", (Ref("x"),), outs="y"),
                Restride("y", TensorSpec(torch.float32, exprs(sizes), exprs(strides)), "op"),
                Return((Ref("y"),)),
            ),
        )

    def run(sizes: tuple[int, ...], strides: tuple[int, ...], result: torch.Tensor) -> torch.Tensor:
        (out,) = build(plan(sizes, strides), externs={"op": lambda x: result})([result])
        return out

    rows = torch.arange(6.0).view(2, 3)
    assert run((2, 3), (3, 1), rows) is rows
    columns = run((2, 3), (1, 2), rows)
    assert columns.stride() == (1, 2)
    assert torch.equal(columns, rows)
    one = torch.ones(1, 3).as_strided((1, 3), (7, 1))
    assert run((1, 3), (3, 1), one) is one
    with pytest.raises(ResultMismatchError, match="op returned sizes"):
        run((3, 2), (2, 1), rows)
