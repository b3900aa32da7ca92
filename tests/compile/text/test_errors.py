"""Texts that are damaged, and graphs that have no text."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.fx import Graph

from braze._torch.fakes import new_graph_module
from braze.compile.fx_compile import CompileRequest
from braze.compile.text import source
from braze.compile.text.constants import content_hash
from braze.compile.text.parser import parse_request, sections_of
from braze.compile.text.printer import print_request
from braze.config import Config
from braze.errors import ParseError, UnserializableError

TEXT = """\
# braze graph 2
request(kind='inference', graph=7, visible_outputs=2)
config(strict=True)
section('logging', 'level = 10', '[not a heading]')
s0 = integer(least=2, hint=8)
s1 = integer(least=2, most=4096, positive=False, hint=5)
u0 = integer(least=0, size=True)
assume(s0 % 4 == 0)
assume(3 < u0)
promised_strides(output1=[1, s0])

def forward(
    n: int(s0),
    x: f32[s0, s1] & static & parameter & grad,
    y: f32[s0, 2] & strides(8, 1) & offset(3) & shares(x),
):
    # model.py:3: table = torch.tensor([3, 4])
    table: i64[2] = constant('sha256:HASH')
    #
    @named('inner.branch')
    def sub(a: f32[s0, s1]):
        c: f32[()] = aten.sum.default(a)
        return (a, c)
    same = sub
    pair: (f32[s0, s1], f32[()]) = higher_order.cond(n, sub, same, (x,))
    first: f32[s0, s1] = py.getitem(pair, 0)
    # model.py:5: return x * 0.5
    half: int(s0//2) = py.floordiv(n, 2)
    mul: f32[s0, s1] = aten.mul.Tensor(first, -0.5)
    #
    full: f16[u0, max(1, s1)] = aten.full.default([half, 3], inf, layout=strided, device=device('cpu'))
    again: i64[2] = table
    count: i64[()] = aten.sum.default(again)
    return (mul, full, None, [True, 'a\\n', complex(nan, -0.0), slice(None, 2, None), ...])
"""

CONSTANT = torch.tensor([3, 4])


def whole() -> str:
    return TEXT.replace("HASH", content_hash(CONSTANT))


def parse(text: str) -> CompileRequest:
    return parse_request(text, {"table": CONSTANT})


def test_the_text_itself() -> None:
    request = parse(whole())
    assert (request.kind, request.graph_id, request.visible_outputs) == ("inference", 7, 2)
    assert request.config == Config().replace(strict=True)
    assert request.static_inputs == {1}
    n, x, y = request.example_inputs
    assert n.node.hint == 8 and isinstance(x, torch.nn.Parameter) and x.requires_grad
    assert y.storage_offset() == 3 and y.untyped_storage()._cdata == x.untyped_storage()._cdata
    again = print_request(request, sections_of(whole()))
    assert again.text == whole()
    values = next(iter(reversed(request.gm.graph.nodes))).args[0][3]  # type: ignore[index]
    assert str(values[2]) == "(nan-0j)" and values[1] == "a\n"
    assert sections_of(whole()) == {"logging": ["level = 10", "[not a heading]"]}


def test_sections_of_others_travel_with_the_text() -> None:
    printed = print_request(parse(whole()), {"state": ["a = 1", "'graph'"]})
    assert sections_of(printed.text) == {"state": ["a = 1", "'graph'"]}
    assert parse_request(printed.text, printed.constants).graph_id == 7


@pytest.mark.parametrize(
    ("old", "new", "line", "column", "message"),
    [
        ("braze graph 2", "braze graph 1", 1, 1, "begins with the line"),
        ("'inference'", "'training'", 2, 1, "Invalid enum value 'training'"),
        (", graph=7", "", 2, 1, "missing required field `graph`"),
        ("strict=True", "strict=3", 3, 8, "must be True or False"),
        ("strict=True", "stritc=True", 3, 8, "no option 'stritc'"),
        ("least=2, hint=8", "least=2", 5, 1, "a symbol without a hint"),
        ("hint=5", "hint=1", 6, 6, "out of range"),
        ("hint=5", "hint=5.5", 6, 6, "of another kind"),
        ("hint=5", "hint=True", 6, 6, "got `bool`"),
        ("hint=5", "hint=5, color=1", 6, 6, "unknown field `color`"),
        ("s1 = integer", "s0 = integer", 6, 1, "declared twice"),
        ("s0 % 4 == 0", "s9 % 4 == 0", 8, 8, "no symbol 's9'"),
        ("s0 % 4 == 0", "s0 % 4", 8, 8, "a condition was expected"),
        ("s0 % 4 == 0", "s0 % 0 == 0", 8, 8, "not an expression"),
        ("s0 % 4 == 0", "((2**64)**64)**64 == s0", 8, 10, "no place in a graph"),
        ("s0 % 4 == 0", "s0 % 4 == 0 == u0", 8, 8, "a condition compares two numbers"),
        ("output1=", "output9=", 10, 18, "4 outputs"),
        ("table: i64[2]", "table: i64[3]", 18, 21, "is another one"),
        ("x: f32", "x: f33", 14, 8, "there is no element type 'f33'"),
        ("shares(x)", "shares(n)", 15, 56, "is not an input before"),
        ("aten.mul.Tensor", "aten.mlu.Tensor", 29, 24, "no operator aten.mlu.Tensor"),
        ("(first, -0.5)", "(frist, -0.5)", 29, 40, "used before it is defined"),
        ("(first, -0.5)", "(first)", 29, 24, "lacks its argument 'other'"),
        ("(first, -0.5)", "(first, -half)", 29, 47, "a number was expected behind '-'"),
        ("(first, -0.5)", "(first, -0.5", 29, 39, "'(' was never closed"),
        ("(first, -0.5)", "(first, -0.5, **{})", 29, 53, "is given twice"),
        ("same = sub", "same = twig", 24, 12, "used before it is defined"),
        ("same = sub", "same = n", 24, 12, "n is no graph and no constant"),
        ("device('cpu')", "device('moon')", 31, 90, "no device"),
        (r"'a\n'", r"'a\q'", 34, 37, "not a string"),
        (r"'a\n'", "f'a'", 34, 38, "not a string"),
        ("c: f32[()]", "a: f32[()]", 22, 9, "defined twice"),
        ("        return (a, c)\n", "", 22, 9, "'return' was expected"),
        ("def forward", "def backward", 12, 1, "no part of a request"),
        ("config(strict=True)", "import os", 3, 1, "no part of a request"),
        ("first: f32[s0, s1] = py.getitem(pair, 0)", "print(pair)", 26, 5, "no line of a graph"),
        ("py.getitem(pair, 0)", "py.getitem(pair, [i for i in x][0])", 26, 43, "no value is written like"),
        ("py.getitem(pair, 0)", "py.getitem(pair, __import__('os'))", 26, 43, "no value is written like"),
        ("py.getitem(pair, 0)", "pair.__class__.mro(0)", 26, 26, "no operator pair.__class__.mro"),
        ("py.getitem(pair, 0)", "lambda: 0", 26, 26, "an operator, a graph or a constant"),
        ("def sub(a: f32[s0, s1])", "def sub(a: f32[s0, s1], b=1)", 21, 5, "and nothing else"),
        ("strides(8, 1)", "strides(8)", 15, 21, "2 strides were expected"),
        ("[half, 3]", "[half, 3j]", 31, 58, "no value is written like"),
        ("[half, 3]", f"[half, {'9' * 41}]", 31, 58, "more than 40 digits"),
    ],
)
def test_errors_say_where(old: str, new: str, line: int, column: int, message: str) -> None:
    assert old in whole()
    with pytest.raises(ParseError, match=re.escape(message)) as caught:
        parse(whole().replace(old, new, 1))
    assert f"line {line}, column {column}:" in str(caught.value)


def test_constants_are_checked() -> None:
    with pytest.raises(ParseError, match="nowhere"):
        parse_request(whole())
    with pytest.raises(ParseError, match="other contents"):
        parse_request(whole(), {"table": CONSTANT + 1})


PIECES = re.findall(r"\s+|\w+|.", whole())


@st.composite
def damaged(draw: st.DrawFn) -> str:
    pieces = list(PIECES)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(pieces) - 1))
        other = draw(st.sampled_from(PIECES) | st.text(max_size=3))
        how = draw(st.sampled_from(["replace", "drop", "insert", "cut"]))
        if how == "cut":
            pieces = pieces[: max(at, 1)]
        else:
            pieces[at : at + (how != "insert")] = [] if how == "drop" else [other]
        if not pieces:
            break
    return "".join(pieces)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(damaged())
def test_damaged_texts_are_refused_or_mean_something(text: str) -> None:
    problem = ""
    try:
        print_request(parse(text))
    except ParseError as error:
        problem = str(error)
    assert re.match(r"line \d+, column \d+: |$", problem)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("[half, 3]", "[" * 5000 + "]" * 5000),
        ("None", "(" * 5000 + ")" * 5000),
        ("s0 % 4", "(" * 5000 + ")" * 5000),
        ("s0 % 4", "+".join(["s0"] * 5000)),
        ("s0 % 4", "-" * 5000 + "s0"),
        ("s0 % 4", "(s0)\n  +" * 5000 + "s0"),
        ("s0 % 4", "not " * 50_000 + "s0"),
        ("None", "mul" + ".x" * 50_000),
        ("None", "mul" + "()" * 50_000),
        ("None", "mul" + "[0]" * 50_000),
        ("None", "1 if 2 else " * 50_000 + "3"),
    ],
)
def test_nesting_has_an_end(old: str, new: str) -> None:
    with pytest.raises(ParseError, match=r"nested too deeply|Python cannot read this"):
        parse(whole().replace(old, new, 1))


def test_length_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "MAX_LENGTH", 1000)
    with pytest.raises(ParseError, match="more than 1000 characters"):
        parse(whole())


def graph_of(build: Callable[[Graph], None]) -> CompileRequest:
    graph = Graph()
    build(graph)
    gm = new_graph_module(torch.nn.Module(), graph)
    inputs = tuple(n.meta["val"] for n in graph.find_nodes(op="placeholder"))
    return CompileRequest(gm, inputs, frozenset(), 1, Config(), "inference", 0)


def call(target: object, *args: object, value: object = None) -> Callable[[Graph], None]:
    def build(graph: Graph) -> None:
        x = graph.placeholder("x")
        x.meta["val"] = torch.ones(2)
        node = graph.create_node("call_function", target, (x, *args), name="bad")  # type: ignore[arg-type]
        node.meta["val"] = torch.ones(2) if value is None else value
        node.meta["stack_trace"] = '  File "model.py", line 3, in forward\n    x.bad()\n'
        graph.output((node,))

    return build


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (call(test_the_text_itself), "cannot be found by its name"),
        (call(torch.ops.aten.add.Tensor, object()), "an argument is a object"),
        (call(torch.ops.aten.add.Tensor, torch.Generator()), "an argument is a Generator"),
        (call(torch.ops.aten.add.Tensor, {1.5: 2}), "the key 1.5"),
        (call(torch.ops.aten.add.Tensor, value=torch.ones(2).to_sparse()), "a torch.sparse_coo tensor"),
        (call(torch.ops.aten.add.Tensor, value=object()), "its value is a object"),
        (call(torch.ops.higher_order.call_torchbind), "cannot be found by its name"),
    ],
)
def test_what_has_no_text_is_named(build: Callable[[Graph], None], message: str) -> None:
    with pytest.raises(UnserializableError, match=re.escape(message)) as caught:
        print_request(graph_of(build))
    assert caught.value.node is not None and caught.value.node.startswith("bad (")
    assert caught.value.where == "model.py:3: x.bad()"
