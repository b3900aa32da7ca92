"""Registrations that do not fit are errors at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

import braze
from braze.errors import ExtensionError
from tests.extensions.library import ops

aten = torch.ops.aten


@pytest.fixture(autouse=True)
def _taken_back() -> Iterator[None]:
    yield
    braze.unregister(ops.swish)
    braze.unregister(ops.scaled)


def swish(x: Any, beta: Any) -> Any:
    return x


@pytest.mark.parametrize(
    ("register", "message"),
    [
        (lambda: braze.lowering("swish"), "for an operator, not for 'swish'"),
        (lambda: braze.lowering(swish), "for an operator, not for <function"),
        (lambda: braze.extern(None), "an extern is for an operator, not for None"),
        (lambda: braze.lowering(aten.sin), "several overloads"),
        (lambda: braze.lowering(aten.sin.default), "PyTorch's own"),
        (lambda: braze.decomposition(aten.mul.Tensor), "PyTorch's own"),
        (lambda: braze.lowering(ops.several), r"several overloads.*several\.default.*several\.two"),
        (lambda: braze.lowering(ops.count), "returns a int"),
        (lambda: braze.decomposition(ops.count), "returns a int"),
        (lambda: braze.lowering(ops.scaled_out), "writes to its arguments"),
        (lambda: braze.extern(ops.scaled_out), "writes to its arguments"),
        (lambda: braze.lowering(ops.swish)(lambda x: x), "does not take the arguments of .*swish.*x, beta"),
        (lambda: braze.lowering(ops.swish, context=True)(swish), "the context, x, beta"),
        (lambda: braze.lowering(ops.mix)(lambda a, b, mask: a), "scale, mode"),
        (lambda: braze.lowering(ops.swish)(3), "a int is registered"),  # type: ignore[type-var]
        (lambda: braze.decomposition(ops.swish)(lambda: None), "does not take"),
        (lambda: braze.extern(ops.scaled, out=ops.swish), "has to write to one tensor called out"),
        (lambda: braze.extern(ops.swish, out=ops.scaled_out), "besides out, and not x, beta"),
        (lambda: braze.extern(ops.mix, out=ops.scaled_out), "returns 2 results"),
        (lambda: braze.extern(ops.scaled, out=aten.add.out), "PyTorch's own"),
        (lambda: braze.graph_pass(lambda: None), "a function of one graph"),
        (lambda: braze.graph_pass(None), "a function of one graph"),  # type: ignore[type-var]
    ],
)
def test_what_does_not_fit(register: Callable[[], Any], message: str) -> None:
    with pytest.raises(ExtensionError, match=message):
        register()


def test_twice() -> None:
    braze.lowering(ops.swish)(swish)
    with pytest.raises(ExtensionError, match="has a lowering already"):
        braze.lowering(ops.swish)(swish)
    braze.extern(ops.swish)
    with pytest.raises(ExtensionError, match="has an extern already"):
        braze.extern(ops.swish)
    braze.unregister(ops.swish.default)
    braze.lowering(ops.swish)(swish)

    @braze.graph_pass
    def nothing(gm: torch.fx.GraphModule) -> None: ...

    try:
        with pytest.raises(ExtensionError, match=r"nothing .* is a graph pass already"):
            braze.graph_pass(nothing)
    finally:
        braze.unregister(nothing)


def test_the_object_that_custom_op_returns() -> None:
    @torch.library.custom_op("braze_tests_extensions::made", mutates_args=())
    def made(x: torch.Tensor) -> torch.Tensor:
        return x + 1

    made.register_fake(torch.empty_like)
    braze.lowering(made)(lambda x: x + 1)
    try:
        x = torch.randn(3)
        compiled = torch.compile(lambda x: made(x), backend="braze", options={"strict": True})
        assert torch.equal(compiled(x), x + 1)
    finally:
        braze.unregister(made)
