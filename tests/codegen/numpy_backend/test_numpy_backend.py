"""A backend that does nothing but register goes through the whole house, as another way to run CPU graphs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from torch.nn import functional as F

import braze
from braze import config
from braze.artifact.compiled_graph import CompiledFxGraph
from braze.codegen.backends import backend, backend_for, registered
from braze.compile.in_process import InProcessFxCompile
from braze.compile.modes import MODES
from braze.compile.out_of_process import OutOfProcessFxCompile
from braze.compile.report import ledger
from braze.compile.switching import SwitchingCode
from braze.compile.workers import CompilePool
from braze.errors import ArtifactError, ConfigError, InternalError
from braze.fuser import is_enabled
from braze.ops.numerics import assert_agrees, in_float64
from braze.runtime import engines
from tests.codegen.numpy_backend import registering_name
from tests.codegen.numpy_backend.backend import LAUNCHED, NUMPY
from tests.compile.requests import Kept, request_of, wait_for

OPTIONS = {"device_backends": "cpu=numpy"}


@pytest.fixture(autouse=True)
def numpy_backend() -> Iterator[None]:
    with registered(NUMPY, module=registering_name):
        yield


def _scattered(x: torch.Tensor) -> torch.Tensor:
    index = torch.arange(x.shape[0]) % 3
    return torch.zeros(3, x.shape[1]).index_add(0, index, x)


X, Y = torch.randn(6, 8), torch.randn(6, 8)
INDEX = torch.tensor([4, 0, 5, 0])
GRAPHS: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "pointwise": (lambda x, y: torch.sin(x) * y + 1, (X, Y)),
    "row_reduction": (lambda x: x.sum(1) + x.amax(1), (X,)),
    "column_reduction": (lambda x: x.mean(0), (X,)),
    "softmax": (lambda x: torch.softmax(x, -1), (X,)),
    "layer_norm": (lambda x, w: F.layer_norm(x, (8,), w), (X, torch.randn(8))),
    "gather": (lambda x, i: x[i] * 2, (X, INDEX)),
    "scatter_add": (_scattered, (X,)),
    "scan": (lambda x: torch.cumsum(x, 1), (X,)),
    "bfloat16": (lambda x: torch.tanh(x) + x, (X.bfloat16(),)),
    "half": (lambda x: (x * 3).sum(1), (X.half(),)),
    "integers": (lambda x: (x // 3) % 2 == 0, (torch.arange(24),)),
    "argmax": (lambda x: x.argmax(1), (X,)),
    "beside_an_operator": (lambda x, y: torch.relu(x) @ torch.tanh(y).T + 1, (X, Y)),
    "masked": (lambda x: F.pad(x, (1, 2)).exp(), (X,)),
    "variance": (lambda x: x.var(1), (X,)),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_it_agrees_with_eager(name: str) -> None:
    function, inputs = GRAPHS[name]
    kept = Kept(InProcessFxCompile())
    compiled = kept.optimize(function, options={**OPTIONS, "strict": True})
    LAUNCHED.clear()
    with torch.no_grad():
        eager = function(*inputs)
        assert_agrees(compiled(*inputs), eager, lambda: function(*in_float64(inputs)))
    (code,) = kept.codes
    assert isinstance(code, CompiledFxGraph)
    (part,) = code.variant().info.parts
    assert part.kind == "numpy" and part.traits == {"level": "1"}
    assert LAUNCHED and len(LAUNCHED) == len(code.variant().info.plan.launched("numpy"))


def test_sizes_that_differ_from_call_to_call() -> None:
    compiled = torch.compile(
        lambda x: torch.softmax(x, -1) * x.shape[0], backend="braze", dynamic=True, options=OPTIONS
    )
    for rows in (3, 5, 9):
        x = torch.randn(rows, 7)
        LAUNCHED.clear()
        torch.testing.assert_close(compiled(x), torch.softmax(x, -1) * rows)
        assert LAUNCHED


def test_training() -> None:
    compiled = torch.compile(lambda x: torch.tanh(x).square().sum(), backend="braze", options=OPTIONS)
    x, y = X.clone().requires_grad_(), X.clone().requires_grad_()
    LAUNCHED.clear()
    compiled(x).backward()
    torch.tanh(y).square().sum().backward()
    torch.testing.assert_close(x.grad, y.grad)
    assert LAUNCHED


def test_what_is_out_of_range_is_reported() -> None:
    compiled = torch.compile(lambda x, i: x[i], backend="braze", options=OPTIONS)
    with pytest.raises(IndexError, match="index 9 is out of bounds for dimension with size 6"):
        compiled(X, torch.tensor([1, 9]))


def test_what_it_has_no_words_for_runs_as_eager() -> None:
    compiled = torch.compile(lambda x: torch.digamma(x) + 1, backend="braze", options=OPTIONS)
    with pytest.warns(braze.errors.BrazeWarning, match="numpy has no digamma"):
        torch.testing.assert_close(compiled(X.abs()), torch.digamma(X.abs()) + 1)


# -- everything around it -----------------------------------------------------------------------------------
@pytest.mark.parametrize("mode", [mode for mode in MODES if mode != "out-of-process"])
def test_every_mode(mode: str) -> None:
    request = request_of(lambda x: torch.softmax(x, -1), X, fx_compile_mode=mode, **OPTIONS)
    code: Any = MODES[mode]().compile(request)
    if isinstance(code, SwitchingCode):
        wait_for(lambda: code.final is not None)
        code = code.final
    assert isinstance(code, CompiledFxGraph)
    assert [part.kind for part in code.variant().info.parts] == ["numpy"]
    torch.testing.assert_close(code.run([X])[0], torch.softmax(X, -1))


def test_a_worker_has_the_backends_of_its_parent() -> None:
    request = request_of(lambda x: torch.softmax(x, -1), X, **OPTIONS)
    with CompilePool(workers=1) as pool:
        code = OutOfProcessFxCompile(pool).compile(request)
    assert isinstance(code, CompiledFxGraph) and code.report is None  # it was made elsewhere
    assert [part.kind for part in code.variant().info.parts] == ["numpy"]
    torch.testing.assert_close(code.run([X])[0], torch.softmax(X, -1))


def test_the_cache(tmp_path: Path) -> None:
    options = {**OPTIONS, "cache": True, "cache_dir": str(tmp_path)}

    def function(x: torch.Tensor) -> torch.Tensor:
        return torch.softmax(x * 3, -1)

    for loaded in (0, 1):
        torch.compiler.reset()
        before = ledger.totals().loaded
        LAUNCHED.clear()
        torch.testing.assert_close(torch.compile(function, backend="braze", options=options)(X), function(X))
        assert ledger.totals().loaded == before + loaded and LAUNCHED
    torch.compiler.reset()
    before = ledger.totals().loaded
    other = torch.compile(function, backend="braze", options={**options, "device_backends": None})
    LAUNCHED.clear()
    torch.testing.assert_close(other(X), function(X))
    assert ledger.totals().loaded == before and not LAUNCHED


def test_explain_and_the_debug_folder(tmp_path: Path) -> None:
    with config.patch(**OPTIONS, debug_dir=str(tmp_path)):
        explained = braze.explain(lambda x: torch.softmax(x, -1), X)
    (kernel,) = explained.kernels
    assert kernel.vector == "array" and "def k0(" in kernel.code and kernel.loop_plan.startswith("arrays")
    assert "array" in str(explained)
    names = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert {f"{kernel.name}.py", f"{kernel.name}.txt", f"{kernel.name}.dis", "all.py"} <= names


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.randn(8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.softmax(x * self.scale, -1)


def test_a_package(tmp_path: Path) -> None:
    net = Net().eval()
    with config.patch(**OPTIONS):
        path = braze.aot_compile(torch.export.export(net, (X,)), tmp_path / "net.pt2")
    loaded = braze.aot_load(path)
    assert loaded.target == "numpy"
    LAUNCHED.clear()
    torch.testing.assert_close(loaded(X), net(X))
    assert LAUNCHED


# -- artefacts of several kinds -----------------------------------------------------------------------------
def _fat() -> bytes:
    """One graph with code of both backends."""
    function = GRAPHS["softmax"][0]
    both = [InProcessFxCompile().compile(request_of(function, X, **options)) for options in ({}, OPTIONS)]
    first, second = both
    assert isinstance(first, CompiledFxGraph) and isinstance(second, CompiledFxGraph)
    info = msgspec.structs.replace(first.info, variants=first.info.variants + second.info.variants)
    return CompiledFxGraph(info, first.variants + second.variants, trusted=True).prepare_for_serialization()


def test_one_artefact_holds_code_of_both() -> None:
    graph = CompiledFxGraph.after_deserialization(_fat(), trusted=True)
    for options, kind in (({}, "cpu"), (OPTIONS, "numpy")):
        with config.patch(**options):
            assert [part.kind for part in graph.variant().info.parts] == [kind]
            graph._run = None
            graph.post_compile()
            torch.testing.assert_close(graph.run([X])[0], torch.softmax(X, -1))


def test_code_of_a_backend_that_is_not_there() -> None:
    fat, alone = _fat(), request_of(GRAPHS["softmax"][0], X, **OPTIONS)
    compiled = InProcessFxCompile().compile(alone)
    assert isinstance(compiled, CompiledFxGraph)
    lean = compiled.prepare_for_serialization()
    del engines._engines["numpy"]
    try:
        graph = CompiledFxGraph.after_deserialization(fat, trusted=True)
        assert [part.kind for part in graph.variant().info.parts] == ["cpu"]
        with pytest.raises(ArtifactError, match="of the backend 'numpy', which this process does not have"):
            CompiledFxGraph.after_deserialization(lean, trusted=True).variant()
    finally:
        engines._engines["numpy"] = NUMPY.engine


# -- the registry -------------------------------------------------------------------------------------------
def test_who_makes_code_for_what() -> None:
    assert backend_for("cpu").kind == "cpu" and backend_for("npy") is NUMPY is backend("numpy")
    with config.patch(**OPTIONS):
        assert backend_for("cpu") is NUMPY and not is_enabled("cpu")
    with (
        pytest.raises(ConfigError, match="'fortran', which does not exist"),
        config.patch(device_backends="cpu=fortran"),
    ):
        backend_for("cpu")
    with pytest.raises(ConfigError, match="pairs of a device and a backend"):
        config.current().replace(device_backends="numpy")
    with pytest.raises(InternalError, match="there is the backend 'numpy'"), registered(NUMPY, module="x"):
        pass


def test_a_made_up_device() -> None:
    """Tensors of a device that only this test has: see ``device_program.py``."""
    program = Path(__file__).with_name("device_program.py")
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, str(program)],
        cwd=root,
        env={**os.environ, "PYTHONPATH": f"{root}/src:{root}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "all agree" in done.stdout
