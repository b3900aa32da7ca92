"""Compiled code and the options that hold when it is called: it is compiled for each set of those that
matter, once."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

import braze
from braze import config
from braze.artifact.output_code import OutputCode
from braze.compile.fx_compile import CompileRequest
from braze.compile.in_process import InProcessFxCompile
from braze.config import Config
from braze.errors import BrazeWarning, FallbackError
from braze.frontend.backend import make_backend
from braze.inspect import stats


class Recorder:
    """Compiles as usual, and keeps the options of each compilation, and those that held during it."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, Config, Config]] = []

    def compile(self, request: CompileRequest) -> OutputCode:
        self.seen.append((request.kind, request.config, config.current()))
        return InProcessFxCompile().compile(request)

    def optimize(self, function: Callable[..., Any], **options: object) -> Callable[..., Any]:
        torch.compiler.reset()
        backend = make_backend(self)
        return torch.compile(function, backend=backend, options=options or None)  # type: ignore[no-any-return]

    @property
    def levels(self) -> list[int]:
        return [request.llvm_opt_level for _, request, _ in self.seen]


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


pytestmark = pytest.mark.usefixtures("unassigned")
X = torch.linspace(-1, 1, 50)


def test_another_value_compiles_again_and_the_first_is_found_again(recorder: Recorder) -> None:
    compiled = recorder.optimize(lambda x: x.sin() + 1)
    for level in (1, 0, 1, 2, 0, 1, 2):
        with config.patch(llvm_opt_level=level):
            torch.testing.assert_close(compiled(X), X.sin() + 1)
    assert recorder.levels == [1, 0, 2]
    compiled(X)
    config.llvm_opt_level = 2
    compiled(X)
    config.llvm_opt_level = 3
    compiled(X)
    del config.llvm_opt_level
    compiled(X)
    assert recorder.levels == [1, 0, 2, 3]


@pytest.mark.parametrize("option", config.options(), ids=lambda o: o.name)
def test_what_matters_and_only_that_compiles_again(recorder: Recorder, option: config.Option) -> None:
    compiled = recorder.optimize(lambda x: x.cos() * 2)
    compiled(X)
    value: object = {"bool": not option.default, "str": "generic"}.get(option.type.split(" ")[0], 64)
    if option.choices is not None:
        value = option.choices[-1]
    if option.high is not None and option.high < 64:
        value = option.high
    value = {"debug_dir": "/dev/null/none", "device_backends": "cpu=cpu"}.get(option.name, value)
    with config.patch(**{option.name: value}), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compiled(X)
        compiled(X)
    compiled(X)
    assert len(recorder.seen) == 1 + option.recompiles


def test_options_that_were_given_hold_in_every_call(recorder: Recorder) -> None:
    compiled = recorder.optimize(lambda x: x.sin() - 1, llvm_opt_level=2)
    compiled(X)
    with config.patch(llvm_opt_level=0):
        compiled(X)
    assert recorder.levels == [2]
    with config.patch(strict=True):
        compiled(X)
    assert [(c.llvm_opt_level, c.strict) for _, c, _ in recorder.seen] == [(2, False), (2, True)]


def test_a_graph_is_compiled_under_its_own_options(recorder: Recorder) -> None:
    x = X.clone().requires_grad_()
    compiled = recorder.optimize(lambda x: x.sin().exp(), vector_width=4)
    with config.patch(llvm_opt_level=0):
        result = compiled(x)
    with config.patch(llvm_opt_level=2, vector_width=1), ThreadPoolExecutor(1) as pool:
        pool.submit(result.sum().backward).result()
    assert [kind for kind, _, _ in recorder.seen] == ["forward", "backward"]
    for _, asked, held in recorder.seen:
        assert asked == held and (asked.llvm_opt_level, asked.vector_width) == (0, 4)


def test_each_thread_has_its_own_patch(recorder: Recorder) -> None:
    compiled = recorder.optimize(lambda x: x.tan() + 1)
    compiled(X)
    turn = threading.Barrier(2, timeout=60)

    def run(level: int) -> None:
        with config.patch(llvm_opt_level=level):
            turn.wait()
            for _ in range(5):
                torch.testing.assert_close(compiled(X), X.tan() + 1)

    with ThreadPoolExecutor(2) as pool:
        for future in [pool.submit(run, 0), pool.submit(run, 3)]:
            future.result()
    assert sorted(recorder.levels) == [0, 1, 3]


def _falls_back(x: torch.Tensor) -> torch.Tensor:
    return torch._add_relu(x, x) + 1


def test_strict_holds_for_what_was_compiled_before_it() -> None:
    torch.compiler.reset()
    compiled = torch.compile(_falls_back, backend="braze")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BrazeWarning)
        expected = compiled(X)
    for _ in range(2):
        with config.patch(strict=True), pytest.raises(Exception, match="would run as eager PyTorch"):
            compiled(X)
        torch.testing.assert_close(compiled(X), expected)


def test_the_backward_is_as_strict_as_its_forward_was() -> None:
    class Doubled(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            return x * 2

        @staticmethod
        def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
            return torch._add_relu(gradient, gradient)

    def loss(x: torch.Tensor) -> torch.Tensor:
        return Doubled.apply(x).sum()  # type: ignore[no-any-return, no-untyped-call]

    torch.compiler.reset()
    compiled = torch.compile(loss, backend="braze")
    with config.patch(strict=True, cache=False):
        strict = compiled(X.clone().requires_grad_())
    with pytest.raises(FallbackError, match="_add_relu"):
        strict.backward()
    with config.patch(cache=False), pytest.warns(BrazeWarning, match="_add_relu"):
        compiled(X.clone().requires_grad_()).backward()


def test_the_second_level_of_the_cache_keeps_them_apart(tmp_path: Path) -> None:
    def run(level: int) -> int:
        before = stats().loaded
        torch.compiler.reset()
        compiled = torch.compile(lambda x: x.sinh() + 1, backend="braze")
        with config.patch(llvm_opt_level=level):
            torch.testing.assert_close(compiled(X), X.sinh() + 1)
        return stats().loaded - before

    with config.patch(cache=True, cache_dir=str(tmp_path / "cache")):
        assert [run(1), run(0), run(1), run(0)] == [0, 0, 1, 1]


@pytest.mark.parametrize("mode", ["async", "progressive"])
def test_what_is_compiled_in_the_background_is_told_apart(mode: str) -> None:
    torch.compiler.reset()
    compiled = torch.compile(lambda x: x.cosh() + 1, backend="braze", options={"cache": False})
    before = stats().graphs
    for _ in range(3):
        with config.patch(fx_compile_mode=mode):
            torch.testing.assert_close(compiled(X), X.cosh() + 1)
        torch.testing.assert_close(compiled(X), X.cosh() + 1)
    assert stats().graphs - before <= 3  # two compilations, one of which may be made better


def test_a_fused_function_is_compiled_for_the_options_that_hold() -> None:
    def scaled(x: torch.Tensor) -> torch.Tensor:
        return x.sin() * 0.3 + x.cos() * 0.7

    fused, apart = braze.fuse(scaled), braze.fuse(scaled, options={"llvm_opt_level": 3})
    count = braze.fuser.compiled_kernel_count
    before = count()
    for _ in range(3):
        torch.testing.assert_close(fused(X), scaled(X))
        with config.patch(llvm_opt_level=0):
            torch.testing.assert_close(fused(X), scaled(X))
        apart(X)
        x = X.clone().requires_grad_()
        fused(x).sum().backward()
    assert count() - before == 3 + 1  # three levels of optimisation, and a backward


def test_strict_holds_for_a_fused_function_that_was_called_before_it() -> None:
    @braze.fuse
    def shaped(x: torch.Tensor) -> torch.Tensor:
        return torch._add_relu(x, x)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BrazeWarning)
        shaped(X)
    with config.patch(strict=True), pytest.raises(FallbackError):
        shaped(X)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BrazeWarning)
        shaped(X)
