"""Folders and log lines of compiled graphs: what is in them, and who gets them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from braze.codegen.backends import Code
from braze.compile import pipeline
from braze.errors import CodegenError


def function(x: torch.Tensor) -> torch.Tensor:
    return torch.softmax(torch.sin(x), -1)


def compile_into(folder: Path) -> None:
    torch.compile(function, backend="braze", options={"debug_dir": str(folder)})(torch.randn(4, 37))


def test_a_folder_holds_every_stage(tmp_path: Path) -> None:
    compile_into(tmp_path / "not" / "there yet")
    (folder,) = (tmp_path / "not" / "there yet").iterdir()
    assert re.fullmatch(r"graph\d+_inference", folder.name)
    files = {str(p.relative_to(folder)): p.read_text() for p in folder.rglob("*") if p.is_file()}
    (kernel,) = [Path(name).stem for name in files if name.endswith(".ll") and name.startswith("kernels")]
    assert set(files) == {
        *("fx_graph.py", "ir.txt", "schedule.txt", "refusals.txt", "fallbacks.txt", "plan.txt", "call.py"),
        *("summary.txt", "driver.ll"),
        *(f"kernels/{kernel}.{ending}" for ending in ("txt", "plan", "program", "ll", "s")),
    }
    assert "torch.ops.aten" in files["fx_graph.py"]
    assert files["ir.txt"].startswith("graph(") and files["schedule.txt"].startswith("segment:")
    assert files["plan.txt"].startswith(f"plan {folder.name}(")
    assert f"def {folder.name}(_args_)" in files["call.py"]
    assert files["fallbacks.txt"] == "nothing runs as eager PyTorch\n"
    assert "1 kernel, 0 externs" in files["summary.txt"]
    assert files[f"kernels/{kernel}.txt"].startswith(f"# {__file__}:")
    assert f"kernel {kernel}(" in files[f"kernels/{kernel}.txt"]
    assert files[f"kernels/{kernel}.plan"].startswith("plan for")
    assert files[f"kernels/{kernel}.program"].startswith(f"program {kernel}(")
    symbol = re.search(r"define void @(\w+)\(", files[f"kernels/{kernel}.ll"])
    assert symbol and f"{symbol[1]}:" in files[f"kernels/{kernel}.s"]


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    compile_into(tmp_path)
    (folder,) = tmp_path.iterdir()
    before = (folder / "ir.txt").stat().st_mtime_ns
    request_name = folder.name
    from braze.compile.debug import DebugFolder

    again = DebugFolder(request_name, str(tmp_path))
    again.write("ir.txt", "other")
    assert again.path == tmp_path / f"{request_name}.2"
    assert (folder / "ir.txt").stat().st_mtime_ns == before


def test_a_failed_compilation_leaves_what_it_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> Code:
        raise CodegenError("no code today", node="fused_sin")

    monkeypatch.setattr(pipeline, "generate", broken)
    with pytest.warns(UserWarning, match="no code today"):
        compile_into(tmp_path)
    (folder,) = tmp_path.iterdir()
    assert {p.name for p in folder.iterdir()} == {"fx_graph.py", "ir.txt", "schedule.txt", "error.txt"}
    assert "CodegenError: no code today" in (folder / "error.txt").read_text()


def test_nobody_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    torch.compile(function, backend="braze")(torch.randn(3, 41))
    assert not list(tmp_path.iterdir())


PROGRAM = """
    import torch
    print(torch.compile(lambda x: torch.sin(x) + 1, backend="braze")(torch.zeros(5)).tolist())
"""


def run(tmp_path: Path, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PROGRAM)],
        capture_output=True, text=True, cwd=tmp_path, check=False,
        env={**os.environ, "TMPDIR": str(tmp_path), **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[1.0, 1.0, 1.0, 1.0, 1.0]\n"
    return done.stderr


def test_torch_logs_gives_a_line_for_each_graph(tmp_path: Path) -> None:
    said = run(tmp_path, TORCH_LOGS="braze")
    assert "graph0_inference: 1 kernel, 0 externs, 0 fallbacks" in said
    assert not list(tmp_path.glob("braze-debug-*"))


def test_torch_logs_with_a_plus_writes_folders_too(tmp_path: Path) -> None:
    said = run(tmp_path, TORCH_LOGS="+braze")
    (folder,) = tmp_path.glob("braze-debug-*/graph0_inference")
    assert f"written to {folder}" in said
    assert (folder / "call.py").exists()


def test_the_variable_names_the_folder(tmp_path: Path) -> None:
    said = run(tmp_path, BRAZE_DEBUG=str(tmp_path / "out"))
    assert (tmp_path / "out" / "graph0_inference" / "plan.txt").exists()
    assert "graph0" not in said
