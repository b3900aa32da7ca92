"""Every lowering is reached: none is for an operator that is always taken apart before it is asked for.

What has no decomposition and is no composition of PyTorch's is in the graph of whoever calls it. All else
needs an example, a program in whose graph it is left, and whose code its lowering makes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

import braze
import braze.lowering.families  # fills the registry
from braze._torch.schema import operator_info
from braze.frontend.decompositions import takes_apart
from braze.lowering.registry import LOWERINGS, extern_of
from tests.aten import functional_operators
from tests.numerics import assert_agrees

aten = torch.ops.aten

FUNCTIONALIZED = ("aten.lift.default", "aten.lift_fresh.default", "aten.lift_fresh_copy.default")
"""Operators that PyTorch's functionalisation has another operator for."""


def _needs_example(operator: Any) -> bool:
    """Whether an operator does not simply stay in the graph of a program that calls it."""
    if not isinstance(operator, torch._ops.OpOverload):
        return False  # one of Braze's own, which a pass puts into graphs
    replaced = operator_info(operator).mutates or str(operator) in FUNCTIONALIZED
    return takes_apart(operator) or operator._can_decompose() or replaced


def _constant(x: Tensor) -> tuple[Tensor, Tensor]:
    c = torch.tensor([1.0, 2.0, 3.0, 4.0])
    return c, x + c


def _written(x: Tensor) -> Tensor:
    y = x.clone()
    y.t().copy_(torch.ones(4, 3))
    return y * 2


def _in_place(x: Tensor) -> Tensor:
    x.mul_(2)
    return x + 1


def _convolved(x: Tensor) -> Tensor:
    weight = torch.ones(8, 8, 3, 3) / 100
    for _ in range(4):  # so many that channels-last pays, in which the view is none
        x = functional.conv2d(x, weight, padding=1).relu()
    return x.view(x.shape[0], -1) * 2


EXAMPLES: dict[Any, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    # decompositions for some arguments only
    aten.add.Tensor: (lambda x: x + x.sin(), ()),
    aten.add.Scalar: (lambda x: aten.add.Scalar(x, 2), ()),
    aten.sub.Tensor: (lambda x: x - x.sin(), ()),
    aten.sub.Scalar: (lambda x: aten.sub.Scalar(x, 2), ()),
    aten.copy.default: (_written, ()),
    aten.full_like.default: (lambda x: torch.full_like(x.t(), 2.0) + x.t(), ()),
    aten.pow.Tensor_Scalar: (lambda x: (x.abs() + 1) ** 1.7, ()),
    aten.pow.Scalar: (lambda x: 2.0**x, ()),
    # of sizes that depend on data
    aten.repeat.default: (lambda x, n: x[: _size(n)].repeat(2, 1), (torch.tensor(2),)),
    # compositions that passes put into graphs: those of numbers, by PyTorch's; those of sizes, by Braze's
    aten.scalar_tensor.default: (lambda x, a: x * (a + 2.0), (2.5,)),
    aten.true_divide.Tensor: (lambda x, a, b: x * (a / b), (2.5, 3.5)),
    aten.reshape.default: (lambda x: _convolved(x[0, 0].expand(2, 8, 16, 16)), ()),
    # what is left of writes, and of constants
    aten.copy_.default: (_in_place, ()),
    aten.lift_fresh_copy.default: (_constant, ()),
}
"""Operator -> a program whose graph has it, of a matrix of 3 by 4 and these arguments."""


def _size(n: Tensor) -> int:
    size = n.item()
    torch._check(size >= 0)
    torch._check(size <= 3)
    return int(size)


def test_what_is_taken_apart_has_a_lowering_only_where_an_example_reaches_it() -> None:
    composed = {op for op in functional_operators() if op._can_decompose()}
    whole = [op for op in functional_operators() if extern_of(op) and op not in composed]
    assert {op for op in (*LOWERINGS, *whole) if _needs_example(op)} == EXAMPLES.keys()


@pytest.mark.parametrize("operator", EXAMPLES, ids=str)
def test_reached(operator: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    lowering = LOWERINGS[operator]

    def noted(*args: Any, **kwargs: Any) -> Any:
        result = lowering(*args, **kwargs)
        made.append(result)
        return result

    monkeypatch.setitem(LOWERINGS, operator, noted)
    torch.compiler.reset()
    function, rest = EXAMPLES[operator]
    with (
        torch._dynamo.config.patch(capture_scalar_outputs=True),
        braze.config.patch(strict=True, cache=False),
    ):
        compiled = torch.compile(function, backend="braze", fullgraph=True, dynamic=True)
        x = torch.arange(12.0).reshape(3, 4) / 7 + 0.3
        assert_agrees(compiled(x.clone(), *rest), function(x.clone(), *rest))
    assert made
