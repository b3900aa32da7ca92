"""Operators on lists of tensors, against eager and without a fallback."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch

from braze._torch.schema import operator_info
from braze.frontend.decomps.foreach import TABLE
from tests.numerics import assert_agrees
from tests.support import compile_with

SIZES = ((3, 5), (4,), (), (0, 2))


def _tensors(dtype: torch.dtype, seed: int, *, special: bool = False) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    made = [(torch.rand(size, generator=generator) * 2 + 0.25).to(dtype) for size in SIZES]
    if special:
        made[1] = torch.tensor([math.nan, -0.0, math.inf, -2.5]).to(dtype)
    return made


def _arguments(operator: Any, dtype: torch.dtype) -> tuple[list[Any], dict[str, Any]]:
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for number, argument in enumerate(operator_info(operator).arguments):
        value: Any
        if argument.type == "List[Tensor]":
            value = _tensors(dtype, number, special=number == 0)
        elif argument.type == "List[number]":
            value = [1.5, 2.0, -0.5, 3.0]
        elif argument.type == "Tensor":
            value = torch.tensor(1.5, dtype=dtype)
        elif argument.name in ("alpha", "value"):
            value = 2
        elif argument.type == "number":
            value = 1.5
        else:
            value = argument.default
        if argument.keyword_only:
            kwargs[argument.name] = value
        else:
            args.append(value)
    return args, kwargs


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("operator", TABLE, ids=str)
def test_each_place_is_eagers(operator: Any, dtype: torch.dtype) -> None:
    args, kwargs = _arguments(operator, dtype)
    if operator is torch.ops.aten._foreach_max.default:  # of no elements there is none
        args = [one[:3] for one in args]
    expected = operator(*copy.deepcopy(args), **kwargs)

    def program(*given: Any) -> Any:
        return operator(*given, **kwargs)

    found = compile_with(program, "braze", strict=True)(*copy.deepcopy(args))
    wide = [
        [t.double() for t in one] if isinstance(one, list) and isinstance(one[0], torch.Tensor) else one
        for one in args
    ]
    wide = [one.double() if isinstance(one, torch.Tensor) else one for one in wide]
    assert_agrees(found, expected, lambda: operator(*wide, **kwargs))


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (torch.optim.Adam, {"amsgrad": True}),
        (torch.optim.AdamW, {"weight_decay": 0.1}),
        (torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
        (torch.optim.RMSprop, {"momentum": 0.5, "centered": True}),
        (torch.optim.Adagrad, {}),
        (torch.optim.NAdam, {}),
    ],
)
def test_optimizers_with_lists(kind: Any, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    ours = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Linear(8, 2))
    theirs = copy.deepcopy(ours)
    for model, backend in ((ours, True), (theirs, False)):
        optimizer = kind(model.parameters(), lr=0.01, foreach=True, **options)
        step = compile_with(optimizer.step, "braze", strict=True) if backend else optimizer.step
        for seed in range(3):
            x = torch.randn(5, 4, generator=torch.Generator().manual_seed(seed))
            model.zero_grad()
            model(x).square().sum().backward()
            step()
    assert_agrees(list(ours.parameters()), list(theirs.parameters()))


def test_the_clipping_of_gradients() -> None:
    def clipped(gradients: list[torch.Tensor]) -> list[torch.Tensor]:
        norms = torch._foreach_norm(gradients)
        factor = (1.0 / (torch.linalg.vector_norm(torch.stack(norms)) + 1e-6)).clamp(max=1.0)
        torch._foreach_mul_(gradients, factor)
        return gradients

    ours, theirs = ([torch.arange(6.0).view(2, 3) + n for n in range(3)] for _ in range(2))
    assert_agrees(compile_with(clipped, "braze", strict=True)(ours), clipped(theirs))
    assert_agrees(ours, theirs)
