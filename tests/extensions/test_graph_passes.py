"""`braze.graph_pass`: functions that change graphs before they are compiled."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch.fx import GraphModule

import braze
from braze import notices
from braze.errors import BrazeWarning
from braze.extensions import registry
from tests.extensions.library import ops

aten = torch.ops.aten


@pytest.fixture(autouse=True)
def _taken_back(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(notices, "_said", set())
    yield
    for one in registry.passes():
        braze.unregister(one.function)
    braze.unregister(ops.swish)


def sines_to_cosines(gm: GraphModule) -> None:
    for node in gm.graph.find_nodes(op="call_function", target=aten.sin.default):
        node.target = aten.cos.default


def run(function: Callable[..., Any], *args: Any, **options: Any) -> Any:
    return torch.compile(function, backend="braze", options={"strict": True}, **options)(*args)


def test_in_place() -> None:
    braze.graph_pass(sines_to_cosines)
    x = torch.randn(4, 5)
    torch.testing.assert_close(run(lambda x: x.sin() + 1, x), x.cos() + 1)
    torch.testing.assert_close(run(lambda x: x.sin() + 1, x, dynamic=True), x.cos() + 1)


def test_new_nodes_in_another_graph() -> None:
    @braze.graph_pass
    def halved(gm: GraphModule) -> GraphModule:
        made = GraphModule(gm, torch.fx.Graph())
        last = made.graph.graph_copy(gm.graph, copied := {})
        del copied
        values = [made.graph.call_function(aten.mul.Tensor, (value, 0.5)) for value in last]
        made.graph.output(tuple(values))
        return made

    x = torch.randn(4, 5)
    torch.testing.assert_close(run(lambda x: x.sin() + 1, x), (x.sin() + 1) / 2)


def test_forward_and_backward() -> None:
    seen: list[set[str]] = []

    @braze.graph_pass
    def look(gm: GraphModule) -> None:
        seen.append({str(n.target) for n in gm.graph.nodes if n.op == "call_function"})

    x = torch.randn(4, requires_grad=True)
    run(lambda x: x.sin() * 2, x).sum().backward()
    assert len(seen) == 2 and "aten.sin.default" in seen[0] and "aten.cos.default" in seen[1]


def test_order_and_new_operators() -> None:
    @braze.graph_pass
    def first(gm: GraphModule) -> None:
        sines_to_cosines(gm)

    @braze.graph_pass
    def second(gm: GraphModule) -> None:
        for node in gm.graph.find_nodes(op="call_function", target=aten.cos.default):
            with gm.graph.inserting_after(node):
                made = gm.graph.call_function(ops.swish.default, (node.args[0], 1.0))
            node.replace_all_uses_with(made)
            gm.graph.erase_node(node)

    braze.lowering(ops.swish)(lambda x, beta: x * braze.ops.sigmoid(x * beta))
    x = torch.randn(4, 5)
    torch.testing.assert_close(run(lambda x: x.sin() + 1, x), ops.swish(x, 1.0) + 1)


def fails(gm: GraphModule) -> None:
    sines_to_cosines(gm)
    raise ZeroDivisionError("too bad")


def drops_an_output(gm: GraphModule) -> None:
    output = gm.graph.output_node()
    output.args = ((),)


def other_type(gm: GraphModule) -> None:
    output = gm.graph.output_node()
    (values,) = output.args
    with gm.graph.inserting_before(output):
        made = [gm.graph.call_function(aten._to_copy.default, (v,), {"dtype": torch.int32}) for v in values]
    output.args = (tuple(made),)


def calls_a_method(gm: GraphModule) -> None:
    output = gm.graph.output_node()
    (values,) = output.args
    with gm.graph.inserting_before(output):
        output.args = ((gm.graph.call_method("sin", (values[0],)),),)


def an_input_more(gm: GraphModule) -> None:
    with gm.graph.inserting_before(next(iter(gm.graph.nodes))):
        gm.graph.placeholder("another")


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (fails, "ZeroDivisionError: too bad"),
        (drops_an_output, "outputs of other types or sizes"),
        (other_type, "outputs of other types or sizes"),
        (calls_a_method, "operators only"),
        (an_input_more, "left the inputs"),
        (lambda gm: 3, "a int, and no GraphModule"),
    ],
)
def test_what_fails_is_left_out_and_named(broken: Callable[..., Any], message: str) -> None:
    braze.graph_pass(broken)
    x = torch.randn(4, 5)
    with pytest.warns(BrazeWarning, match=message) as said:
        got = torch.compile(lambda x: x.sin() + 1, backend="braze")(x)
    torch.testing.assert_close(got, x.sin() + 1)
    assert any(__file__ in str(w.message) for w in said)
