"""`dev.py`: what it runs, in which order, and what its exit status says."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from types import ModuleType

import pytest

from tests.source_tree import ROOT, imports


@pytest.fixture
def dev(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module that believes that everything is installed."""
    spec = importlib.util.spec_from_file_location("dev_under_test", ROOT / "dev.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "setup", lambda: None)
    return module


def record(dev: ModuleType, monkeypatch: pytest.MonkeyPatch, **statuses: int) -> list[str]:
    """Commands are noted instead of run; each ends with the status of the first keyword that it contains."""
    commands: list[str] = []

    def run(*command: object, env: dict[str, str] | None = None) -> int:
        text = " ".join(map(str, command[1:]))
        commands.append(text)
        return next((status for word, status in statuses.items() if word.replace("_", " ") in text), 0)

    monkeypatch.setattr(dev, "run", run)
    return commands


def test_test_runs_everything(dev: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = record(dev, monkeypatch)
    assert dev.main(["test"]) == 0
    assert [command.split()[1:3] for command in commands] == [
        ["ruff", "check"], ["ruff", "format"], ["mypy"], ["pytest", "-q"], ["pytest", "-q"],
    ]  # fmt: skip
    assert "-m serial" in commands[3] and "-m not serial" in commands[4] and "-n " in commands[4]


def test_test_with_arguments_runs_pytest_alone(dev: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = record(dev, monkeypatch)
    assert dev.main(["test", "tests/ops", "-x"]) == 0
    assert len(commands) == 2
    assert all(command.endswith("tests/ops -x") for command in commands)


@pytest.mark.parametrize(
    ("alone", "rest", "status"), [(0, 0, 0), (5, 0, 0), (0, 5, 0), (5, 5, 5), (1, 0, 1), (5, 1, 1), (1, 5, 1)]
)
def test_no_serial_test_is_no_failure(
    dev: ModuleType, monkeypatch: pytest.MonkeyPatch, alone: int, rest: int, status: int
) -> None:
    record(dev, monkeypatch, not_serial=rest, serial=alone)
    assert dev.main(["test", "-x"]) == status


@pytest.mark.parametrize("tool", ["ruff", "mypy"])
def test_a_finding_fails_but_hides_no_test(
    dev: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tool: str
) -> None:
    commands = record(dev, monkeypatch, **{tool: 1})
    with pytest.raises(SystemExit) as ended:
        dev.main(["test"])
    assert ended.value.code == 1
    assert f"{tool} found something" in capsys.readouterr().err
    assert sum("pytest" in command for command in commands) == 2


def test_an_unknown_command_is_named(dev: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        dev.main(["tset"])
    assert "'tset'" in capsys.readouterr().err


def test_it_needs_the_standard_library_only() -> None:
    assert {found.name.split(".")[0] for found in imports(ROOT / "dev.py")} <= sys.stdlib_module_names
    shown = subprocess.run(
        [sys.executable, "-I", str(ROOT / "dev.py")], capture_output=True, text=True, check=True
    )
    documented = ast.get_docstring(ast.parse((ROOT / "dev.py").read_text()))
    assert documented is not None and documented in shown.stdout


def test_ci_runs_what_people_run() -> None:
    assert "python3 dev.py test" in (ROOT / ".ci" / "run").read_text()


def test_torch_is_pinned_and_no_registry_is_named() -> None:
    assert "torch==2.13.0" in (ROOT / "constraints.txt").read_text().splitlines()
    for name in ("constraints.txt", "pyproject.toml", "dev.py"):
        text = (ROOT / name).read_text()
        assert "://" not in text and "index-url" not in text, name
