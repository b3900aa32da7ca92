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
from braze.compile.text.constants import content_hash
from braze.compile.text.parser import parse_request, sections_of
from braze.compile.text.printer import print_request
from braze.config import Config
from braze.errors import ParseError, UnserializableError

TEXT = """\
braze graph 1

[request]
kind            = inference
graph           = 7
visible outputs = 2

[config]
strict = True

[symbols]
s0 in [2, inf) hint 8
s1 in [2, 4096] signed hint 5
u0 in [0, inf) size

[where]
s0 % 4 == 0
3 < u0

[constants]
@table = i64[2] sha256:HASH

[promised strides]
output 1 = (1, s0)

[graph]
%n     : int{s0}                   = input
%x     : f32[s0, s1]               = input static parameter grad
%y     : f32[s0, 2] strides (8, 1) offset 3 = input shares %x
%table : i64[2]                    = @table              # model.py:3: table = torch.tensor([3, 4])
%sub   = @branch
%pair  : (f32[s0, s1], f32[])      = higher_order::cond(%n, %sub, %sub, (%x,))
%first : f32[s0, s1]               = py::getitem(%pair, 0)
%half  : int{s0//2}                = py::floordiv(%n, 2)  # model.py:5: return x * 0.5
%mul   : f32[s0, s1]               = aten::mul.Tensor(%first, -0.5)  # "
%full  : f16[u0, max(1, s1)]       = aten::full.default([%half, 3], inf, layout=strided, device=@cpu)
%count : i64[]                     = aten::sum.default(%table)
return (%mul, %full, None, [True, "a\\n", complex(nan, -0.0), slice(None, 2, None), ...])

[graph branch]
%a : f32[s0, s1] = input
%c : f32[]       = aten::sum.default(%a)
return (%a, %c)

[logging]
  level = 10
  [not a heading]
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
    again = print_request(request)
    assert print_request(parse_request(again.text, again.constants)).text == again.text
    values = next(iter(reversed(request.gm.graph.nodes))).args[0][3]  # type: ignore[index]
    assert str(values[2]) == "(nan-0j)" and values[1] == "a\n"
    assert sections_of(whole()) == {"logging": ["level = 10", "[not a heading]"]}


def test_sections_of_others_travel_with_the_text() -> None:
    printed = print_request(parse(whole()), {"state": ["a = 1", "[graph]"]})
    assert sections_of(printed.text) == {"state": ["a = 1", "[graph]"]}
    assert parse_request(printed.text, printed.constants).graph_id == 7


@pytest.mark.parametrize(
    ("old", "new", "line", "column", "message"),
    [
        ("braze graph 1", "braze graph 2", 1, 1, "begins with the line"),
        ("kind            = inference", "kind = training", 4, 8, "no training graphs"),
        ("graph           = 7\n", "", 7, 1, "a request has"),
        ("strict = True", "strict = 3", 9, 1, "must be True or False"),
        ("strict = True", "stritc = True", 9, 1, "no option 'stritc'"),
        ("s0 in [2, inf) hint 8", "s0 in [2, inf)", 12, 1, "a symbol without a hint"),
        ("hint 5", "hint 1", 13, 29, "out of range"),
        ("s0 % 4 == 0", "s9 % 4 == 0", 17, 1, "no symbol 's9'"),
        ("s0 % 4 == 0", "s0 % 4", 17, 1, "a condition was expected"),
        ("s0 % 4 == 0", "s0 % 0 == 0", 17, 8, "not an expression"),
        ("s0 % 4 == 0", "((2**64)**64)**64 == s0", 17, 6, "no place in a graph"),
        ("output 1 =", "output 9 =", 24, 8, "4 outputs"),
        ("@table = i64[2]", "@table = i64[3]", 21, 1, "is another one"),
        ("%x     : f32", "%x     : f33", 28, 10, "no value is written like 'f33'"),
        ("shares %x", "shares %n", 29, 60, "is not an input before"),
        ("aten::mul.Tensor", "aten::mlu.Tensor", 35, 38, "no operator aten::mlu.Tensor"),
        ("(%first, -0.5)", "(%frist, -0.5)", 35, 55, "used before it is defined"),
        ("(%first, -0.5)", "(%first)", 35, 38, "lacks its argument 'other'"),
        ("(%first, -0.5)", "(%first, -x)", 35, 64, "no value is written like 'x'"),
        ("(%first, -0.5)", "(%first, -0.5", 35, 69, "',' or"),
        ("%sub   = @branch", "%sub   = @twig", 31, 10, "no graph and no constant twig"),
        ("device=@cpu", "device=@moon", 36, 97, "no device"),
        ('"a\\n"', '"a\\q"', 38, 35, "not a string"),
        ("%c : f32[]", "%a : f32[]", 42, 1, "defined twice"),
        ("return (%a, %c)", "", 45, 1, "'return' was expected"),
        ("[graph]", "[graf]", 48, 1, "[graph] is missing"),
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


def test_nesting_has_an_end() -> None:
    for old, opening, closing in (("[%half, 3]", "[", "]"), ("None", "(", ")"), ("s0 % 4", "(", ")")):
        with pytest.raises(ParseError, match="nested too deeply"):
            parse(whole().replace(old, opening * 5000 + closing * 5000))


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
