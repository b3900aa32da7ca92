"""A small function, compiled in each way of `stages.WAYS` while something fails, and what came of it."""

from __future__ import annotations

import importlib
import logging
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType
from typing import Any

import pytest
import torch

from braze import inspect, notices
from braze.cache import store as stores
from braze.errors import BrazeWarning
from tests.injection.inject import Place, called_by, failing, state, wait_until
from tests.injection.stages import Way

__all__ = ["HERE", "Outcome", "Run", "code_of", "f"]

HERE = __file__


def f(x: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.gelu(x).sum(-1)


def like_f(x: torch.Tensor) -> torch.Tensor:
    """Another graph of Dynamo's, and the same one of ATen's."""
    return torch.sum(torch.nn.functional.gelu(x), dim=-1)


def code_of(function: str) -> CodeType:
    """The code of ``module:name``."""
    module, _, name = function.partition(":")
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = vars(found)[part]
    while not hasattr(found, "__code__"):
        found = getattr(found, "__func__", None) or found.__wrapped__
    if hasattr(found, "__wrapped__"):  # of a context manager
        found = found.__wrapped__
    code: CodeType = found.__code__
    return code


@dataclass
class Outcome:
    """What came of a call: results, or an error; what was raised inside; what was said."""

    results: list[torch.Tensor] = field(default_factory=list)
    error: BaseException | None = None
    raised: Sequence[BaseException] = ()
    said: list[warnings.WarningMessage] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    compiled: int = 0
    eager: int = 0

    @property
    def own_error(self) -> BaseException | None:
        """The error without what Dynamo puts around it."""
        return getattr(self.error, "inner_exception", self.error)

    def is_right(self) -> None:
        """Raises ``AssertionError`` where the results are not those of eager PyTorch."""
        assert self.error is None, repr(self.error)
        for ours, theirs in zip(self.results, _expected(len(self.results) > 1), strict=True):
            torch.testing.assert_close(ours, theirs)


def _inputs(training: bool) -> torch.Tensor:
    return torch.linspace(-2, 2, 24).reshape(4, 6).requires_grad_(training)


def _expected(training: bool) -> list[torch.Tensor]:
    return _results(f, _inputs(training))


def _results(
    function: Callable[..., Any], x: torch.Tensor, in_backward: Callable[[], Any] = nullcontext
) -> list[torch.Tensor]:
    """The result, and the gradient of ``x`` where it wants one."""
    result = function(x)
    if not x.requires_grad:
        return [result]
    with in_backward():
        result.sum().backward()
    assert x.grad is not None
    return [result.detach(), x.grad]


class Run:
    """Compilations in one way, with a cache of their own."""

    def __init__(self, way: Way, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.way = way
        self.options: dict[str, object] = {"fx_compile_mode": way.mode}
        if way.cache != "off":
            self.options |= {"cache": True, "cache_dir": str(folder / "cache")}
        self._patch = monkeypatch
        self.folder = folder

    def compile(self, function: Callable[..., Any] = f) -> Callable[..., Any]:
        """A fresh function, as in a new process."""
        torch._dynamo.reset()
        return torch.compile(function, backend="braze", options=dict(self.options))

    def prepare(self) -> None:
        """Have the cache hold what it should at the beginning, and nothing said yet."""
        for store in list(stores._STORES):
            if self.folder in store.folder.parents:
                store.clear()
        if self.way.cache in ("graph", "call"):
            self.call(self.compile(like_f if self.way.cache == "graph" else f))
        self._patch.setattr(notices, "_said", set())

    def functions(self) -> list[Place]:
        """Those that a compilation enters, and what it compiled does not when it is called again."""
        self.prepare()
        compiled = self.compile()
        found = called_by(lambda: self.call(compiled))
        of_calls = {place.code for place in called_by(lambda: (self.call(compiled), self.call(compiled)))}
        return [place for place in found if place.code not in of_calls]

    def break_down(self, code: CodeType, error: Callable[[], BaseException], **options: object) -> Outcome:
        """What comes of a compilation in which the functions with ``code`` raise."""
        self.prepare()
        self.options |= options
        compiled = self.compile()
        for name in options:
            del self.options[name]
        return self.call(compiled, lambda: failing(code, error))

    def call(
        self, compiled: Callable[..., Any], injection: Callable[[], Any] = lambda: nullcontext(())
    ) -> Outcome:
        """What comes of calling it, of its backward, or of what goes on behind it, while something fails."""
        outcome, x, before = Outcome(), _inputs(self.way.training), inspect.stats()
        heard = _Heard()

        @contextmanager
        def noted() -> Iterator[None]:
            with injection() as outcome.raised:
                yield

        logging.getLogger("braze").addHandler(heard)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            try:
                if self.way.backward:
                    outcome.results = _results(compiled, x, noted)
                else:
                    with noted():
                        outcome.results = _results(compiled, x)
                        self._settle()
                if self.way.mode in ("async", "progressive"):
                    outcome.results = [compiled(x)]
            except BaseException as error:
                outcome.error = error
        logging.getLogger("braze").removeHandler(heard)
        after = inspect.stats()
        outcome.said = [one for one in said if issubclass(one.category, BrazeWarning)]
        outcome.lines = heard.lines
        outcome.compiled = after.kernels - before.kernels
        outcome.eager = after.eager_graphs - before.eager_graphs
        return outcome

    def _settle(self) -> None:
        """Wait for what goes on in the background."""
        if self.way.mode in ("async", "progressive"):
            names = ("braze-compile-graph", "braze-improve")
            wait_until(lambda: not any(t.name.startswith(names) for t in threading.enumerate()))


class _Heard(logging.Handler):
    """What Braze's log says at the level of warnings."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def unchanged(before: dict[str, Any]) -> None:
    """Raises ``AssertionError`` where the process is not as it was."""
    after = state()
    assert {name: after[name] for name in before if after[name] != before[name]} == {}
