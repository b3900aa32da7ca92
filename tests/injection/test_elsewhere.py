"""What fails where no graph of Dynamo's is compiled: packages, and the threads and locks of the LLVM pool."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import braze
from braze import config
from braze.errors import PackageError
from tests.injection.inject import failing, state
from tests.injection.stages import ERRORS, WAYS
from tests.injection.ways import HERE, Outcome, Run, code_of, f, unchanged


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x * self.weight).sin().sum(-1)


def make(path: Path) -> Path:
    return braze.aot_compile(torch.export.export(Net(), (torch.ones(2, 3),)), path, targets=("host",))


def load(path: Path) -> object:
    return braze.aot_load(path)


MAKING = (
    "braze._torch.export:decomposed",
    "braze.frontend.passes.pipeline:run_passes",
    "braze.compile.in_process:compile_for",
    "braze.lowering.graph:GraphLowering.run",
    "braze.codegen.plan.build:build_plan",
    "braze.artifact.extern_nodes:extern_nodes",
    "braze.frontend.aot_compile:_describe",
)
WRITING = ("braze.artifact.package:write_package", "braze.artifact.archive:write_archive")
LOADING = (
    "braze.artifact.package:Package.model",
    "braze.artifact.package:Package.graph",
    "braze.artifact.package:Package.tensors",
    "braze.artifact.aot_load:for_this_machine",
    "braze.runtime.linker:link",
    "braze.runtime.callgen:build",
)


@pytest.mark.parametrize("number", range(len(MAKING + LOADING)), ids=MAKING + LOADING)
def test_a_package_that_fails_is_an_error_of_ours(number: int, tmp_path: Path) -> None:
    function, kind, path = (MAKING + LOADING)[number], ERRORS[number % len(ERRORS)], tmp_path / "net.pt2"
    act: Callable[[Path], object] = make if function in MAKING else load
    if act is load:
        make(path)
    before, files = state(), set(tmp_path.iterdir())
    with (
        failing(code_of(function), lambda: kind("injected")) as raised,
        pytest.raises(PackageError) as caught,
    ):
        act(path)
    assert raised and "injected" in str(caught.value)
    assert set(tmp_path.iterdir()) == files
    unchanged(before)


@pytest.mark.parametrize("function", [*MAKING, *WRITING, *LOADING])
def test_an_interrupted_package_leaves_no_file(function: str, tmp_path: Path) -> None:
    path = tmp_path / "net.pt2"
    act: Callable[[Path], object] = load if function in LOADING else make
    if act is load:
        make(path)
    before, files = state(), set(tmp_path.iterdir())
    with failing(code_of(function), KeyboardInterrupt) as raised, pytest.raises(KeyboardInterrupt):
        act(path)
    assert raised
    assert set(tmp_path.iterdir()) == files
    unchanged(before)
    act(path)


def finished(action: Callable[[], object], seconds: float = 60.0) -> None:
    """Raises ``AssertionError`` where it does not end."""
    thread = threading.Thread(target=action, daemon=True)
    thread.start()
    thread.join(seconds)
    assert not thread.is_alive(), "somebody waits for ever"


def like_f(number: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """A function with the results of `f` whose code nobody has compiled yet: the pool keeps what it made."""
    return lambda x: torch.where(x.sum(-1) > number, 0.0, f(x))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize(
    ("number", "function"),
    [
        (0, "braze.codegen.llvm.pool:Pool._finish"),
        (1, "braze.runtime.workers.pool:WorkerPool._take"),
        (2, "braze.runtime.workers.pool:WorkerPool._poller"),
    ],
)
def test_nobody_waits_for_a_thread_that_has_failed(
    number: int, function: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, found = Run(WAYS["plain"], tmp_path, monkeypatch), list[Outcome]()
    run.prepare()
    code = code_of(function)
    broken = run.compile(like_f(1000 + number))
    finished(lambda: found.append(run.call(broken, lambda: failing(code, lambda: KeyError("injected")))))
    assert found[0].raised
    found[0].is_right()
    assert found[0].said  # its nodes run as eager PyTorch
    assert {one.filename for one in found[0].said} <= {HERE, __file__}
    whole = run.compile(like_f(2000 + number))
    finished(lambda: found.append(run.call(whole)))
    found[1].is_right()
    assert not found[1].said


def test_a_module_whose_compilation_was_interrupted_is_compiled_when_it_is_asked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, found = Run(WAYS["plain"], tmp_path, monkeypatch), list[Outcome]()
    run.prepare()
    compiled = run.compile(like_f(3000))
    code = code_of("braze.runtime.workers.llvm_jobs:compile_module")

    def again() -> None:
        with config.patch(llvm_in_process=True):
            found.append(run.call(compiled))

    with config.patch(llvm_in_process=True):
        first = run.call(compiled, lambda: failing(code, KeyboardInterrupt))
    assert isinstance(first.error, KeyboardInterrupt)
    finished(again)
    found[0].is_right()
    assert not found[0].said
