"""Operators by name: what is found, and what must not be."""

from __future__ import annotations

import pytest
import torch

from braze._torch.operators import find_operator, qualified_name


@pytest.mark.parametrize(
    ("name", "operator"),
    [
        ("aten::mm.default", torch.ops.aten.mm.default),
        ("aten::add.Tensor", torch.ops.aten.add.Tensor),
        ("aten::add_.Tensor", torch.ops.aten.add_.Tensor),
        ("prims::convert_element_type.default", torch.ops.prims.convert_element_type.default),
        ("higher_order::cond", torch.ops.higher_order.cond),
    ],
)
def test_names_of_operators(name: str, operator: object) -> None:
    assert qualified_name(operator) == name
    assert find_operator(name) is operator


@pytest.mark.parametrize(
    "name",
    [
        "aten::mm",
        "aten::mm.nothing",
        "aten::mm.__class__",
        "aten::__name__.default",
        "aten::name.default",
        "load_library::x.default",
        "loaded_libraries::add.default",
        "__class__::x.y",
        "no_such_library::x.default",
        "higher_order::cond.default",
        "higher_order::call_torchbind",
        "aten::mm.default; import os",
        "os::system",
        "",
    ],
)
def test_nothing_else_has_a_name(name: str) -> None:
    assert find_operator(name) is None


def test_functions_and_operators_of_this_process_alone_have_none() -> None:
    assert qualified_name(len) is None
    assert qualified_name(torch.ops.aten.mm) is None
    # what it calls is an object of this process
    assert qualified_name(torch.ops.higher_order.call_torchbind) is None
