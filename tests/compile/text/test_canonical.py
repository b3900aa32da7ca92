"""The text of cache keys: what it leaves out, what it must not leave out, and what it costs."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch

from braze.compile.fx_compile import CompileRequest
from braze.compile.text.parser import parse_request
from braze.compile.text.printer import canonical, canonical_graph, print_request
from tests.frontend.recording import Recorder
from tests.models import zoo

CHILD = """
import sys
from braze.compile.text.parser import parse_request
from braze.compile.text.printer import canonical
text = sys.stdin.read()
sys.stdout.write(canonical(parse_request(text)))
loaded = [m for m in sys.modules if m.startswith(("braze.lowering", "braze.schedule", "braze.codegen"))]
sys.exit(f"the compiler was loaded: {loaded}" if loaded else 0)
"""


def request_of(fn: Callable[..., Any], *args: Any, dynamic: bool = False) -> CompileRequest:
    torch._dynamo.reset()
    recorder = Recorder()
    recorder.optimize(fn, dynamic=dynamic)(*args)
    return recorder.requests[0]


def scale(x: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    total = x.sum(1, keepdim=True)
    return (x / total) * factor


def test_names_lines_numbers_and_hints_do_not_matter() -> None:
    def another_name(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:

        row_sums = first.sum(1, keepdim=True)
        quotient = first / row_sums
        return quotient * second

    one = request_of(scale, torch.ones(8, 3), torch.ones(3), dynamic=True)
    two = request_of(another_name, torch.ones(5, 7), torch.ones(7), dynamic=True)
    mine, theirs = canonical_graph(one), canonical_graph(two)
    assert mine.text == theirs.text
    assert print_request(one).text != print_request(two).text
    assert sorted(mine.symbols.values()) == ["s0", "s1"] == sorted(theirs.symbols.values())
    assert canonical(dataclasses.replace(one, graph_id=99)) == mine.text
    assert canonical(dataclasses.replace(one, config=one.config.replace(strict=True))) == mine.text


def test_everything_else_matters() -> None:
    x, f = torch.ones(8, 3), torch.ones(3)
    plain = request_of(scale, x, f)
    texts = {
        "itself": canonical(plain),
        "sizes": canonical(request_of(scale, torch.ones(8, 4), torch.ones(4))),
        "strides": canonical(request_of(scale, torch.ones(3, 8).t(), f)),
        "offset": canonical(request_of(scale, torch.ones(9, 3)[1:], f)),
        "dtype": canonical(request_of(scale, x.double(), f)),
        "symbols": canonical(request_of(scale, x, f, dynamic=True)),
        "number": canonical(request_of(lambda x, f: scale(x, f) * 2, x, f)),
        "other number": canonical(request_of(lambda x, f: scale(x, f) * 2.0, x, f)),
        "sign of zero": canonical(request_of(lambda x, f: scale(x, f) * -0.0, x, f)),
        "constant": canonical(request_of(lambda x, f: scale(x, f) + torch.tensor([1, 2, 3]), x, f)),
        "another": canonical(request_of(lambda x, f: scale(x, f) + torch.tensor([1, 2, 4]), x, f)),
        "option": canonical(dataclasses.replace(plain, config=plain.config.replace(llvm_opt_level=3))),
        "static": canonical(dataclasses.replace(plain, static_inputs=frozenset({1}))),
        "outputs": canonical(dataclasses.replace(plain, visible_outputs=0)),
    }
    assert len(set(texts.values())) == len(texts)


def test_shared_memory_matters() -> None:
    x = torch.ones(8, 3)
    both = request_of(lambda a, b: a + b, x, x[:, :])
    assert canonical(both) != canonical(request_of(lambda a, b: a + b, x, x.clone()))


def test_it_is_the_same_in_another_process_which_loads_no_compiler() -> None:
    request = request_of(scale, torch.ones(8, 3), torch.ones(3), dynamic=True)
    child = subprocess.run(
        [sys.executable, "-c", CHILD],
        input=print_request(request).text,
        env={**os.environ, "PYTHONHASHSEED": "12345"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert child.returncode == 0, child.stderr
    assert child.stdout == canonical(request)


@pytest.mark.serial
def test_what_it_costs() -> None:
    """At most 25 us for each node."""
    module, inputs = zoo.find("bert").make("test")
    recorder = Recorder()
    with torch.no_grad():
        recorder.optimize(module, dynamic=False)(**inputs)
    (request,) = recorder.requests
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        canonical(request)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) / len(request.gm.graph.nodes) < 25e-6
    assert canonical(parse_request(print_request(request).text)) == canonical(request)


def test_the_default_dtype_matters() -> None:
    """A comparison with a Python float computes in it, and shows nothing of that."""
    request = request_of(lambda x: x > 0.5, torch.ones(3, dtype=torch.int64))
    mine = canonical_graph(request)
    torch.set_default_dtype(torch.float64)
    try:
        theirs = canonical_graph(request)
    finally:
        torch.set_default_dtype(torch.float32)
    assert mine.text != theirs.text
    assert [a[0] for a, b in zip(mine.parts, theirs.parts, strict=True) if a != b] == ["tracing.state"]


def test_what_an_operator_of_somebody_else_promises_matters() -> None:
    texts = []
    for schema in ("half(Tensor x) -> Tensor", "half(Tensor x, int by=2) -> Tensor"):
        own = torch.library.Library("braze_canonical_test", "FRAGMENT")
        try:
            own.define(schema)
            own.impl("half", lambda x, by=2: x / by, "CompositeExplicitAutograd")
            texts.append(
                canonical(request_of(lambda x: torch.ops.braze_canonical_test.half(x), torch.ones(3)))
            )
        finally:
            own._destroy()
    assert "operator('braze_canonical_test::half(Tensor x) -> Tensor')" in texts[0]
    assert texts[0] != texts[1]
