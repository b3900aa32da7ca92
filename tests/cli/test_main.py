"""The `braze` command as people meet it: help, version, errors."""

from __future__ import annotations

import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

import braze
from braze.cli.main import main
from braze.errors import BrazeError


def test_help_names_the_commands() -> None:
    result = CliRunner().invoke(main, ["--help"])
    assert result.exit_code == 0
    assert "demo" in result.output and "doctor" in result.output


def test_version() -> None:
    assert CliRunner().invoke(main, ["--version"]).output == f"braze {braze.__version__}\n"


def test_an_error_of_ours_is_a_message_and_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    @click.command("broken")
    def broken() -> None:
        raise BrazeError("the [bold] thing broke", hint="mend it")

    monkeypatch.setitem(main.commands, "broken", broken)
    result = CliRunner().invoke(main, ["broken"])
    assert result.exit_code == 1
    assert result.stderr.split() == "braze: the [bold] thing broke to do: mend it".split()
    assert result.stdout == ""


def test_the_command_starts_without_torch() -> None:
    program = "import sys, braze.cli.main; print('torch' in sys.modules, 'transformers' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
