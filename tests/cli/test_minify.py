"""`braze minify`: scripts that go wrong, that do not, and that are none."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result

from braze.cli.main import main
from braze.inspect.minify.minifying import minify

RIGHT = """
import sys
import torch

class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear, self.drop = torch.nn.Linear(6, 4), torch.nn.Dropout(0.5)

    def forward(self, x):
        return self.drop(torch.relu(self.linear(x))).sum(0)

print("not for the report")
assert sys.argv[1:] == ["--steps", "2"]
compiled = torch.compile(Model(), backend="braze")
compiled(torch.randn(3, 6)).sum().backward()
"""
FALLS = """
import torch
import torch.nn.functional as F

@torch.compile(backend="braze")
def step(x, y):
    h = torch.relu(x * 2 + y)
    h = F.interpolate(h, scale_factor=0.5, mode="bilinear", antialias=True)
    return torch.softmax(h.flatten(1), -1)

step(torch.randn(2, 3, 8, 8), torch.randn(8))
"""


def invoke(*arguments: object) -> Result:
    return CliRunner(env={"COLUMNS": "160"}).invoke(main, ["minify", *map(str, arguments)])


def test_a_script_with_which_nothing_is_wrong(tmp_path: Path) -> None:
    script = tmp_path / "right.py"
    script.write_text(RIGHT)
    result = invoke(script, "--steps", "2")
    assert result.exit_code == 1, result.output
    assert "nothing wrong  in 1 graph of right.py, 1 call" in result.output
    assert "not for the report" not in result.output


def test_what_falls_back_is_found_where_that_is_asked_for(tmp_path: Path) -> None:
    script, small = tmp_path / "falls.py", tmp_path / "small.py"
    script.write_text(FALLS)
    result = invoke("--fallback", "--out", small, "--seconds", "300", script)
    assert result.exit_code == 0, result.output
    assert "fallback  an operator runs as eager PyTorch" in result.output
    assert re.search(r"nodes +\d+ → 1\s", result.output)
    assert "falls.py:8: h = F.interpolate" in result.output
    text = small.read_text()
    assert text.rstrip() in result.output
    for part in (
        "# braze minify falls.py",
        "#   Braze ",
        "#   PyTorch ",
        "#   line       ",
        '"strict": True',
    ):
        assert part in text
    assert text.count("torch.ops.aten.") == 1
    again = subprocess.run([sys.executable, str(small)], capture_output=True, text=True, check=False)
    assert again.returncode == 1 and "FallbackError" in again.stderr


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("none.py", None, "there is no file"),
        (
            "raises.py",
            "import torch\ntorch.ones(2) @ torch.ones(3)\n",
            "raises in eager PyTorch itself: RuntimeError",
        ),
        ("broken.py", "def (:\n", "raises in eager PyTorch itself: SyntaxError"),
        ("plain.py", "print(1)\n", "compiles nothing with Braze"),
        ("ends.py", "import os\nos._exit(7)\n", "ends its process in eager PyTorch itself: status 7"),
        ("request.txt", "no request\n", "is no request"),
        ("folder", None, "there is no request.txt in"),
    ],
)
def test_nothing_to_look_at(name: str, text: str | None, said: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if text is not None:
        path.write_text(text)
    elif not name.endswith(".py"):
        path.mkdir()
    result = invoke(path)
    assert result.exit_code == 2 and "braze: " in result.output and said in result.output, result.output
    assert "Traceback" not in result.output


def test_a_value_that_is_no_number(tmp_path: Path) -> None:
    assert invoke("--seconds", "-1", tmp_path).exit_code == 2


def test_a_folder_of_requests(tmp_path: Path) -> None:
    def function(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        h = x.view(-1, 2).cos() * 2
        return (torch.erf(h) + y).sum(-1)

    torch.compiler.reset()
    options: dict[str, Any] = {"fx_compile_mode": "debug-file", "debug_dir": str(tmp_path), "cache": False}
    compiled = torch.compile(function, backend="braze", options=options, dynamic=True)
    compiled(torch.randn(6, 4), torch.randn(2))
    found = minify(tmp_path, seconds=300.0, table="tests.inspect.minify.faulty_jobs")
    assert found.fault is not None and found.fault.kind == "value" and found.program is not None
    assert [s.operator for s in found.program.statements] == ["aten.erf.default"]
    assert "torch.erf(h)" in found.sources[0]
