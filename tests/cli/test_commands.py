"""Every command with every option, one after the other, as somebody would type them in a folder of theirs.

`SESSION` has to use each option that there is: a new one without a line here fails."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import torch
from click.testing import CliRunner

import braze
from braze import config
from braze.cli.main import main

WORK = """
import torch

def step():
    x = torch.linspace(-1, 1, 64, requires_grad=True)
    return (x.sin() * 3).sum()

def scaled(x, factor):
    return torch.tanh(x) * factor
"""

FALLS = """
import torch
import torch.nn.functional as F

@torch.compile(backend="braze")
def smaller(x):
    return F.interpolate(x.sin(), scale_factor=0.5, mode="bilinear", antialias=True) + 1

smaller(torch.ones(1, 1, 4, 4))
"""

SESSION = """
braze --version
braze doctor
braze doctor --options
braze explain torch.nn.functional:gelu -i f32[16,16]
braze explain work.py:scaled --input bf16[16] --input 0.5 --grad
braze explain work:step --kernel 1
braze explain work.py:step --kernel 1 --show ir
braze explain work.py:step --kernel 1 --show plan
braze explain work.py:step --kernel 1 --show program
braze explain work.py:step --kernel 1 --show code
braze explain work.py:step --kernel 1 --show asm
braze replay request.txt
braze replay request.txt --strict --out stages --seed 4
braze cache ls
braze cache ls --sort used
braze cache ls --sort created -n 2
braze cache ls --sort size --limit 2
braze cache ls --sort hits --json
braze cache ls --sort name
braze cache show {digest}
braze cache show {digest} --part graph
braze cache show {digest} --json
braze cache stats
braze cache stats --json
braze cache why
braze cache why {digest} -n 1
braze cache why --limit 1 --json
braze cache keygen ada
braze cache keygen bob
braze cache keys
braze cache keys --text
braze cache keys --json
braze cache export all.zip --all
braze cache export some.zip {digest} --key ada
braze cache export foreign.zip --all --foreign
braze cache distrust bob
braze cache trust {bobs_key} --name robert
braze cache import all.zip
braze cache sign all.zip --key ada
braze cache sign all.zip --check
braze package show model.pt2
braze package show model.pt2 --weights
braze package show model.pt2 -w --json
braze package sign model.pt2 --key ada
braze package verify model.pt2
braze cache gc
braze cache gc --limit 1
braze cache clear --yes
braze cache clear -y
braze fuzz --programs 2 --seed 5 --jobs 1 --mode static --limit 60 --strict --out faults
braze fuzz --minutes 0.001
braze minify --fallback --seconds 300 --limit 60 --out small.py falls.py
braze fuzz --repeat 5:3
""".strip().splitlines()

ELSEWHERE = frozenset({"demo --inductor"})
"""What another test runs: it takes minutes, or needs TorchInductor (test_demo.py)."""


def _commands(command: click.Command, path: str = "") -> Iterator[tuple[str, click.Command]]:
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from _commands(found, f"{path} {name}".strip())
    else:
        yield path, command


COMMANDS = dict(_commands(main))


def test_the_session_uses_every_option_of_every_command() -> None:
    missing = []
    for path, command in COMMANDS.items():
        lines = [shlex.split(line)[1:] for line in SESSION]
        mine = [line for line in lines if " ".join(line[: len(path.split())]) == path]
        words = {word for line in mine for word in line}
        if not mine and not any(known.startswith(f"{path} ") for known in ELSEWHERE):
            missing.append(path)
        for parameter in command.params:
            if not isinstance(parameter, click.Option):
                continue
            name = f"{path} {parameter.opts[0]}"
            if name not in ELSEWHERE and not words & {*parameter.opts, *parameter.secondary_opts}:
                missing.append(name)
            if isinstance(parameter.type, click.Choice) and not parameter.multiple and mine:
                missing += [f"{name} {value}" for value in parameter.type.choices if value not in words]
    assert not missing


@pytest.mark.parametrize("path", COMMANDS)
def test_every_command_has_its_help(path: str) -> None:
    for flag in ("-h", "--help"):
        result = CliRunner().invoke(main, [*path.split(), flag])
        assert result.exit_code == 0 and path.split()[-1] in result.output


def test_the_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    (tmp_path / "work.py").write_text(WORK, "utf-8")
    (tmp_path / "falls.py").write_text(FALLS, "utf-8")
    known: dict[str, str] = {}
    with config.patch(cache=True, cache_dir=str(tmp_path / "cache"), keyring_dir=str(tmp_path / "keys")):
        _prepare(tmp_path)
        for line in SESSION:
            if "{digest}" in line:
                known["digest"] = json.loads(_run("braze cache ls --json"))[0]["key"]
            if "distrust bob" in line:
                texts = _run("braze cache keys --text").splitlines()
                known["bobs_key"] = shlex.quote(next(text for text in texts if text.endswith("bob")))
            output = _run(line.format(**known))
            assert output or "cache" in line, line
    assert any((tmp_path / "stages").rglob("*.ll"))
    assert not list((tmp_path / "faults").glob("*")) if (tmp_path / "faults").exists() else True


def _prepare(folder: Path) -> None:
    """Something in the cache, a package, and a request."""

    def function(x: torch.Tensor) -> torch.Tensor:
        return torch.softmax(x.sin() * 2, -1)

    x = torch.linspace(-1, 1, 32).reshape(4, 8)
    for level in (0, 1):
        torch.compiler.reset()
        torch.compile(function, backend="braze", options={"llvm_opt_level": level})(x)
    torch.compiler.reset()
    options = {"fx_compile_mode": "debug-file", "debug_dir": str(folder / "debug")}
    torch.compile(function, backend="braze", options=options)(x)
    (request,) = (folder / "debug").rglob("request.txt")
    for file in request.parent.iterdir():
        if file.is_file():
            (folder / file.name).write_bytes(file.read_bytes())
    program = torch.export.export(torch.nn.Linear(3, 4), (torch.ones(2, 3),))
    braze.aot_compile(program, folder / "model.pt2", targets=("generic",))


def _run(line: str) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = CliRunner().invoke(main, shlex.split(line)[1:], catch_exceptions=True)
    assert result.exit_code == 0, f"{line}\n{result.output}\n{result.exception!r}"
    return result.output


@pytest.mark.parametrize("module", ["braze", "braze.cli"])
def test_as_a_module(module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", module, "--help"], capture_output=True, text=True, check=True
    )
    assert "python -m braze" in done.stdout and "doctor" in done.stdout


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("braze explian", "explain"),
        ("braze explain nowhere:f", "cannot import nowhere"),
        ("braze explain work.py", "MODULE:FUNCTION"),
        ("braze explain torch:relu -i f31[4]", "one of f64, f32"),
        ("braze explain torch:relu -i f32[4] --kernel 9", "the kernels: "),
        ("braze explain torch:relu -i f32[4] --kernel 1 --show codes", "'code'"),
        ("braze cache ls --sort sizes", "'size'"),
        ("braze cache show 0123", "0123"),
        ("braze cache distrust nobody", "nobody"),
        ("braze package show none.pt2", "none.pt2"),
        ("braze replay none.txt", "none.txt"),
        ("braze fuzz --mode dynamics", "'dynamic'"),
        ("braze fuzz --repeat 7", "SEED:INDEX"),
        ("braze minify none.py", "there is no file none.py"),
    ],
)
def test_a_name_that_is_none_is_explained(line: str, said: str, tmp_path: Path) -> None:
    with config.patch(cache=True, cache_dir=str(tmp_path / "cache"), keyring_dir=str(tmp_path / "keys")):
        result = CliRunner(env={"COLUMNS": "200"}).invoke(main, shlex.split(line)[1:])
    assert result.exit_code != 0 and isinstance(result.exception, SystemExit), repr(result.exception)
    assert said in result.output
