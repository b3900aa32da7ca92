"""What has to hold of every printed request."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch._dynamo

import braze.lowering.families  # noqa: F401  fills the registry
from braze.artifact.output_code import OutputCode
from braze.compile.eager_graph import run_eagerly
from braze.compile.fx_compile import CompileRequest
from braze.compile.text.parser import parse_request
from braze.compile.text.printer import RequestText, canonical_graph, print_request
from braze.errors import BrazeError, UnserializableError
from braze.frontend.backend import make_backend
from braze.lowering.graph import GraphLowering


def reparsed(request: CompileRequest) -> CompileRequest:
    """The request after a round trip, which is checked on the way: text, canonical text and IR are the same
    before and after, and printing changed nothing."""
    printed = print_request(request)
    parsed = parse_request(printed.text, printed.constants)
    again = print_request(parsed)
    assert_same(printed.text, again.text)
    assert printed.constants.keys() == again.constants.keys()
    assert parsed.static_inputs == request.static_inputs and parsed.config == request.config
    mine, theirs = canonical_graph(request), canonical_graph(parsed)
    assert_same(mine.text, theirs.text)
    assert mine.symbols == theirs.symbols
    assert_same(print_request(request).text, printed.text)
    assert_same(lowered(request), lowered(parsed))
    return parsed


def lowered(request: CompileRequest) -> str:
    """The IR of a request, and its fallbacks; the error where there is none."""
    lowering = GraphLowering(request.gm, request.config, request.static_inputs, request.visible_outputs)
    try:
        graph = lowering.run()
    except BrazeError as error:
        return str(error)
    # behind its first line, an error of PyTorch's shows the stack
    fallbacks = [f"{origin}: {reason.splitlines()[0]}" for origin, reason in lowering.fallbacks]
    # Dynamo names the class of a subgraph after the function that it comes from
    return re.sub(r"<\w+>\(", "GraphModule(", "\n".join([str(graph), *fallbacks]))


def assert_same(one: str, other: str) -> None:
    """Equal texts, or the lines in which they differ."""
    if one != other:
        difference = difflib.unified_diff(one.splitlines(), other.splitlines(), lineterm="", n=0)
        raise AssertionError("\n".join(list(difference)[:20]))


@dataclass
class RoundTrip:
    """An `FxCompile` that prints its requests, reads them back, and runs what came out by eager operators.
    `unserializable` are the reasons of those that have no printed form; they run as they came. `failed`: what
    did not come back as it was, which the failure policy makes an eager call of."""

    requests: list[CompileRequest] = field(default_factory=list)
    texts: list[RequestText] = field(default_factory=list)
    unserializable: list[str] = field(default_factory=list)
    failed: list[Exception] = field(default_factory=list)

    def compile(self, request: CompileRequest) -> OutputCode:
        try:
            printed = print_request(request)
        except UnserializableError as error:
            self.unserializable.append(str(error))
            return run_eagerly(request, None)
        self.requests.append(request)
        self.texts.append(printed)
        try:
            return run_eagerly(reparsed(request), None)
        except Exception as error:
            self.failed.append(error)
            raise

    def optimize(self, fn: Any, **keywords: Any) -> Callable[..., Any]:
        return torch.compile(fn, backend=make_backend(self), **keywords)


@contextmanager
def data_dependent() -> Iterator[None]:
    """Dynamo traces through `item` and operators whose results have sizes that depend on data."""
    with torch._dynamo.config.patch(capture_scalar_outputs=True, capture_dynamic_output_shape_ops=True):
        yield


def texts_of(fn: Any, *args: Any, dynamic: bool | None = None, **kwargs: Any) -> list[RequestText]:
    """The printed requests of one call of `fn`, compiled, which gives what eager gives."""
    torch._dynamo.reset()
    trip = RoundTrip()
    torch.manual_seed(0)
    trip.optimize(fn, dynamic=dynamic)(*args, **kwargs)
    assert not trip.unserializable, trip.unserializable
    assert not trip.failed, trip.failed
    return trip.texts
