"""What is to be done when a module is there is done then, once, and without loading it."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from braze._torch.when_loaded import when_loaded

NAME = "a_module_of_this_test"


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    (tmp_path / f"{NAME}.py").write_text("value = 3\ndef function():\n    return value\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    yield NAME
    sys.modules.pop(NAME, None)


def test_before_the_import(module: str) -> None:
    seen: list[int] = []
    when_loaded(module, lambda: seen.append(sys.modules[module].value))
    assert not seen and module not in sys.modules
    loaded = importlib.import_module(module)
    assert seen == [3]
    assert "return value" in inspect.getsource(loaded.function)
    importlib.reload(loaded)
    assert seen == [3]


def test_after_the_import(module: str) -> None:
    importlib.import_module(module)
    finders = list(sys.meta_path)
    seen: list[int] = []
    when_loaded(module, lambda: seen.append(1))
    assert seen == [1] and sys.meta_path == finders


def test_several_wait_for_one_module(module: str) -> None:
    seen: list[str] = []
    when_loaded(module, lambda: seen.append("first"))
    when_loaded(module, lambda: seen.append("second"))
    importlib.import_module(module)
    assert sorted(seen) == ["first", "second"]


def test_a_failure_spoils_no_import(module: str, caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise AttributeError("this PyTorch is another")

    when_loaded(module, fail)
    assert importlib.import_module(module).value == 3
    assert "could not make itself known" in caplog.text
    when_loaded(module, fail)


def test_a_module_that_is_not_there_stays_so(module: str) -> None:
    when_loaded(f"{module}_absent", lambda: None)
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module(f"{module}_absent")
    assert importlib.import_module(module).value == 3
