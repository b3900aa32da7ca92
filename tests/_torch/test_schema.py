from __future__ import annotations

import pytest
import torch

from braze._torch import schema

aten = torch.ops.aten


def test_writes_views_and_draws_are_told_apart() -> None:
    assert schema.operator_info(aten.add.Tensor).is_pure
    assert schema.operator_info(aten.view.default).is_view
    assert schema.operator_info(aten.view.default).is_pure
    assert schema.operator_info(aten.split_with_sizes.default).is_view
    write = schema.operator_info(aten.copy_.default)
    assert write.mutates
    assert not write.is_view
    assert not write.is_pure
    assert [a.name for a in write.arguments if a.written] == ["self"]
    assert schema.operator_info(aten.rand.default).random
    assert schema.operator_info(aten.nonzero.default).data_dependent
    assert schema.operator_info(aten._local_scalar_dense.default).data_dependent
    assert not schema.operator_info(aten._assert_async.default).is_pure


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
