"""What is registered is part of the cache's keys, and goes with what is sent to workers, by what it does."""

from __future__ import annotations

import functools
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import braze
from braze.errors import Refused
from braze.extensions.source import text_of
from tests.extensions.library import ops
from tests.source_tree import ROOT

LOWERING = """
import braze
from tests.extensions.library import ops
{before}
@braze.lowering(ops.swish)
def swish(x, beta):
    {comment}
    return x * {factor}
"""
PASS = """
import braze, torch
@braze.graph_pass
def look(gm):
    for node in gm.graph.find_nodes(op="call_function", target=torch.ops.aten.sin.default):
        node.target = torch.ops.aten.{other}.default
"""


@pytest.fixture(autouse=True)
def _taken_back() -> Iterator[None]:
    yield
    braze.unregister(ops.swish)


def run(tmp_path: Path, text: str, function: str) -> tuple[float, int, bool]:
    (tmp_path / "registers.py").write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", "tests.extensions.child", str(tmp_path / "registers.py"), function],
        cwd=ROOT,
        env={**os.environ, "BRAZE_CACHE": "1", "BRAZE_CACHE_DIR": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    return round(seen["result"], 3), seen["traced"], seen["compiled"]


def test_a_lowering_is_found_again_until_it_changes(tmp_path: Path) -> None:
    texts = [
        LOWERING.format(before="", comment="", factor=factor)
        for factor in ("2", "2", "3", "factor", "factor")
    ]
    texts[1] = LOWERING.format(before="# below", comment="# twice", factor="2")
    texts[3] = texts[3].replace("import braze\n", "import braze\nfactor = 4\n")
    texts[4] = texts[4].replace("import braze\n", "import braze\nfactor = 5\n")
    got = [run(tmp_path, text, "operator") for text in texts]
    assert got == [(3, 1, True), (3, 1, False), (4, 1, True), (5, 1, True), (6, 1, True)]


def test_a_pass_is_part_of_the_second_level(tmp_path: Path) -> None:
    cosines, tangents = PASS.format(other="cos"), PASS.format(other="tan")
    assert run(tmp_path, cosines, "plain") == (1.54, 1, True)
    assert run(tmp_path, cosines, "plain") == (1.54, 0, False)
    assert run(tmp_path, tangents, "plain") == (2.557, 1, True)
    assert run(tmp_path, "", "plain")[0] == 1.841


def made(factor: Any) -> Callable[[Any], Any]:
    return lambda x: x * factor


def test_texts() -> None:
    assert text_of(made(1)) == text_of(made(1))
    assert len({text_of(made(f)) for f in (1, 1.0, True, "1", (1,), torch.float32, made(2), made(3))}) == 8
    assert text_of(lambda x, y=1: x) != text_of(lambda x, y=2: x)
    assert text_of(lambda x: braze.ops.exp(x)) != text_of(lambda x: braze.ops.log(x))


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (made(torch.ones(2)), "factor is a Tensor"),
        (made(object()), "factor is a object"),
        (functools.partial(made(1), 2), "it is a partial"),
        (lambda x: not_there(x), "not_there, which is not there"),  # type: ignore[name-defined]  # noqa: F821
    ],
)
def test_what_has_no_text(function: Callable[..., Any], reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        text_of(function)


def test_without_a_text_nothing_is_cached_or_sent(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    unknown = object()
    braze.lowering(ops.swish)(lambda x, beta: x * 2 if unknown else x)
    options = {"strict": True, "cache": True, "cache_dir": str(tmp_path)}
    x = torch.randn(5)
    with caplog.at_level(logging.INFO, "braze"):
        got = torch.compile(lambda x: ops.swish(x, 1.0), backend="braze", options=options)(x)
    assert torch.equal(got, x * 2)
    assert (
        "is not looked for in the cache: the lowering" in caplog.text and "unknown is a object" in caplog.text
    )
    torch.compiler.reset()
    with caplog.at_level(logging.INFO, "braze"):
        got = torch.compile(
            lambda x: ops.swish(x, 1.0),
            backend="braze",
            options={"strict": True, "fx_compile_mode": "serialized"},
        )(x)
    assert torch.equal(got, x * 2)


@pytest.mark.parametrize("mode", ["serialized", "out-of-process"])
def test_compile_workers(mode: str, caplog: pytest.LogCaptureFixture) -> None:
    """A process that does not know the library, or the lowering, leaves the graph to this one."""
    braze.lowering(ops.swish)(lambda x, beta: x * 2)
    x = torch.randn(5)
    options = {"strict": True, "fx_compile_mode": mode}
    with caplog.at_level(logging.INFO, "braze"):
        got = torch.compile(lambda x: ops.swish(x, 1.0), backend="braze", options=options)(x)
    assert torch.equal(got, x * 2)
    assert ("is compiled in this process" in caplog.text) == (mode == "out-of-process")


def test_packages(tmp_path: Path) -> None:
    class Model(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return ops.swish(x, 1.0) + 1

    braze.lowering(ops.swish)(lambda x, beta: x * 2)
    program = torch.export.export(Model(), (torch.ones(4),))
    path = braze.aot_compile(program, tmp_path / "model.pt2", targets=("generic",), options={"strict": True})
    braze.unregister(ops.swish)
    assert torch.equal(braze.aot_load(path)(torch.ones(4)), torch.full((4,), 3.0))
