"""The pages of the documentation: what they show as code runs, and what they name is there.

The blocks of a page run in order, in one folder and one namespace, after what `GIVEN` says for the page: what
its reader has already. A block that is not run has a language that says that it is output."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
import torch
from click.testing import CliRunner

import braze
from braze import config
from braze.artifact.output_code import OutputCode
from braze.cli.main import main
from braze.compile.fx_compile import CompileRequest
from braze.compile.in_process import InProcessFxCompile
from braze.errors import BrazeError
from braze.frontend.backend import make_backend
from tests.pages import OUTPUT, PAGES, Block, blocks, run_python
from tests.source_tree import ROOT

ELSEWHERE = {
    "limits.md": "tests/frontend/test_limits_page.py",
    "workers.md": "tests/compile/workers/test_docs.py",
}
"""Pages whose programs run by themselves."""

GIVEN: dict[str, str] = {
    "README.md": "x = torch.randn(32, 256); a, b = torch.randn(2, 4, 8)",
    "cache.md": "",
    "compile-modes.md": """
model, x = torch.nn.Linear(3, 4), torch.randn(2, 3)
Path("model.py").write_text('''
import torch
torch.compile(lambda x: x.sin() + 1, backend="braze")(torch.ones(4))
''')
""",
    "fuser.md": """
a, b = torch.randn(2, 4, 8)
def scaled(x, y):
    return torch.tanh(x) * y
graph = gm = torch.fx.symbolic_trace(scaled)
""",
    "graph-text.md": """
from tests.compile.requests import request_of
request = request_of(lambda x: x.sin() + 1, torch.ones(4))
""",
    "inspect.md": """
class Model(torch.nn.Module):
    def forward(self, input_ids, attention_mask):
        return torch.softmax(input_ids * attention_mask, -1)
model, input_ids, mask = Model(), torch.randn(4, 8), torch.ones(4, 8)
Path("train.py").write_text('''
import torch
def step():
    return torch.ones(8, requires_grad=True).sin().sum()
''')
""",
    "options.md": """
model, x = torch.nn.Linear(3, 4), torch.randn(2, 3)
Path("model.py").write_text("import braze; assert braze.config.llvm_opt_level == 2")
""",
    "packages.md": """
class Model(torch.nn.Module):
    def forward(self, x):
        return x.sin() * 2
model, x = Model(), torch.randn(4, 3)
run("braze cache keygen ada")
""",
    "sharing.md": """
program = torch.export.export(torch.nn.ReLU(), (torch.ones(3),))
braze.aot_compile(program, "model.pt2", targets=("generic",))
torch.compile(lambda x: x.cos() + 1, backend="braze")(torch.ones(4))
""",
    "vector-math.md": """
from braze.codegen.llvm.builder import F32, FunctionBuilder, ModuleBuilder
fb = FunctionBuilder(ModuleBuilder(), "f", [("x", F32)])
x = fb.params["x"]
""",
}
RUNNABLE = {page: found for page in PAGES if (found := [b for b in blocks(page) if b.language not in OUTPUT])}


def _type(command: str, folder: Path) -> None:
    """Type a command of a page. One that takes minutes (of ``braze fuzz`` and ``braze minify``, which
    tests of their own run) is looked at: whether there are such options, with such values."""
    words = shlex.split(command)
    if words[0] == "export":
        assert config.from_environment(dict([words[1].split("=", 1)])) != config.Config()
        return
    settings = {}
    while "=" in words[0]:
        name, value = words.pop(0).split("=", 1)
        settings[name] = value
        assert name in {o.env for o in config.options()}
    if words[0] == "braze":
        assert not settings
        if words[1] in ("fuzz", "minify"):
            outer = click.Context(main, **main.context_settings)  # a command keeps what it was asked under
            inner = main.get_command(outer, words[1])
            assert inner is not None
            inner.make_context(words[1], words[2:], parent=outer)
            return
        if words[:3] == ["braze", "cache", "trust"]:  # which is typed by somebody else
            with config.patch(keyring_dir=str(folder / "another's keys")):
                result = CliRunner().invoke(main, words[1:])
            assert result.exit_code == 0, result.output
            return
        result = CliRunner(env={"COLUMNS": "200"}).invoke(main, words[1:])
        assert result.exit_code == 0, f"{command}\n{result.output}\n{result.exception!r}"
    elif words[:2] == ["python3", "dev.py"]:
        listed = subprocess.run(
            [sys.executable, str(ROOT / "dev.py"), "--help"], capture_output=True, text=True, check=True
        )
        assert words[2] in listed.stdout
    else:
        assert words[0] == "python", command
        environment = {**os.environ, **settings}
        subprocess.run([sys.executable, *words[1:]], env=environment, check=True, cwd=folder)


@pytest.mark.usefixtures("unassigned")
@pytest.mark.parametrize(
    "page", [p for p in RUNNABLE if p.name not in ELSEWHERE], ids=lambda p: p.name.removesuffix(".md")
)
def test_what_a_page_shows_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.compiler.reset()
    namespace: dict[str, Any] = {"torch": torch, "Path": Path, "run": lambda line: _type(line, tmp_path)}
    namespace["braze"] = braze
    given = Block(page, 0, "python", GIVEN.get(page.name, ""), "")
    config.cache, config.cache_dir, config.keyring_dir = True, str(tmp_path / "cache"), str(tmp_path / "keys")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for block in [given, *RUNNABLE[page]]:
            try:
                if block.language == "python":
                    run_python(block, namespace, tmp_path)
                else:
                    for command in block.commands:
                        _type(command, tmp_path)
            except Exception as error:
                raise AssertionError(f"{block} does not run") from error


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name.removesuffix(".md"))
def test_every_block_says_what_it_is(page: Path) -> None:
    text = page.read_text("utf-8")
    assert len(re.findall(r"^ *```", text, re.MULTILINE)) == 2 * len(blocks(page))
    for block in blocks(page):
        assert block.language in {*OUTPUT, "python", "sh", "console"}, block
        assert block.language not in ("sh", "console") or block.commands, block


_TYPED = re.compile(r"`((?:python -m )?braze(?: [^`]*)?)`")


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name.removesuffix(".md"))
def test_what_a_page_names_is_there(page: Path) -> None:
    text = page.read_text("utf-8")
    variables = {o.env for o in config.options()}
    assert set(re.findall(r"\bBRAZE_[A-Z_]*[A-Z]\b", text)) <= variables
    names = {o.name for o in config.options()}
    for given in re.findall(r'options=\{"(\w+)"', text) + re.findall(r"braze\.config\.patch\((\w+)=", text):
        assert given in names
    for command in _TYPED.findall(text):
        if "\\n" not in command:  # which is the magic of a file
            _check_command(command)


def _check_command(text: str) -> None:
    """That a command that is named in a sentence is one, and has the options that it is named with."""
    words = [w for w in text.replace("\\|", " ").replace("|", " ").split() if w != "..."]
    found: click.Command = main
    for word in words[words.index("braze") + 1 :]:
        if isinstance(found, click.Group):
            if not word.startswith("-"):
                inner = found.get_command(click.Context(found), word)
                assert inner is not None, text
                found = inner
        elif word.startswith("--"):
            known = {o for p in found.params for o in [*p.opts, *p.secondary_opts]}
            assert word in known, text


def test_a_strategy_that_returns_no_code_is_told_so() -> None:
    class Silent:
        def compile(self, request: CompileRequest) -> OutputCode:
            InProcessFxCompile().compile(request)  # and forgets to return it

    torch.compiler.reset()
    compiled: Callable[..., Any] = torch.compile(lambda x: x + 1, backend=make_backend(Silent()))
    with pytest.raises(Exception, match=r"Silent\.compile returned None, and not an OutputCode") as caught:
        compiled(torch.ones(2))
    assert isinstance(getattr(caught.value, "inner_exception", caught.value), BrazeError)
