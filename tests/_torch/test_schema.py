from __future__ import annotations

import operator as operator_module
from typing import Any

import pytest
import torch
from torch.fx import node as fx_node

from braze._torch import schema
from braze._torch.schema import Effect

aten = torch.ops.aten


@pytest.mark.parametrize(
    ("operator", "effects"),
    [
        (aten.add.Tensor, Effect.NONE),
        (aten.view.default, Effect.NONE),
        (aten.copy_.default, Effect.WRITE),
        (aten.add.out, Effect.WRITE),
        (aten.rand.default, Effect.DRAW),
        (aten.bernoulli_.float, Effect.WRITE | Effect.DRAW),
        (aten.nonzero.default, Effect.CHECK),
        (aten._local_scalar_dense.default, Effect.CHECK),
        (aten._assert_async.default, Effect.CHECK),
        (aten.empty.memory_format, Effect.UNSET),
        (aten.new_empty_strided.default, Effect.UNSET),
        (torch.ops.profiler._record_function_enter_new.default, Effect.OUTSIDE),
        (torch.ops._c10d_functional.all_reduce.default, Effect.OUTSIDE),
        (torch.ops.higher_order.cond, Effect.ALL),
        (operator_module.add, Effect.NONE),
    ],
)
def test_effects(operator: Any, effects: Effect) -> None:
    assert schema.effects_of(operator) == effects


def test_what_is_registered_later_has_an_effect_from_then_on() -> None:
    try:
        assert not schema.effects_of(aten.sin.default)
        fx_node._side_effectful_functions.add(aten.sin.default)
        assert schema.effects_of(aten.sin.default) == Effect.OUTSIDE
    finally:
        fx_node._side_effectful_functions.discard(aten.sin.default)


def test_writes_and_views_are_told_apart() -> None:
    assert schema.operator_info(aten.view.default).is_view
    assert schema.operator_info(aten.split_with_sizes.default).is_view
    write = schema.operator_info(aten.copy_.default)
    assert write.mutates
    assert not write.is_view
    assert [a.name for a in write.arguments if a.written] == ["self"]


def test_aliases_name_the_argument() -> None:
    info = schema.operator_info(aten.select.int)
    assert info.returns[0].alias == info.arguments[0].alias != frozenset()
    assert info.arguments[0].type == "Tensor"


def test_bind_fills_in_defaults() -> None:
    assert schema.bind(aten.add.Tensor, (1, 2), {}) == {"self": 1, "other": 2, "alpha": 1}
    assert schema.bind(aten.add.Tensor, (1,), {"other": 2, "alpha": 3})["alpha"] == 3


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        ((1,), {}, "lacks its argument 'other'"),
        ((1, 2), {"beta": 1}, "no argument 'beta'"),
        ((1,) * 5, {}, "takes 3"),
    ],
)
def test_bind_refuses_what_does_not_fit(args: tuple[int, ...], kwargs: dict[str, int], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        schema.bind(aten.add.Tensor, args, kwargs)


def test_kinds_of_targets() -> None:
    assert schema.is_operator(aten.add.Tensor)
    assert not schema.is_operator(aten.add)
    assert not schema.is_operator(torch.add)
    assert schema.is_higher_order(torch.ops.higher_order.cond)
