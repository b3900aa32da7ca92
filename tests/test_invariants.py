"""What always holds, checked on the sources and in running processes."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from tests.source_tree import PACKAGE, ROOT, dotted, imports, python_files, tree

SOURCES = python_files(PACKAGE)
EVERYTHING = [*python_files(PACKAGE, ROOT / "tests", ROOT / "benchmarks"), ROOT / "dev.py"]
WORKERS = PACKAGE / "runtime" / "workers"

FORBIDDEN = re.compile(r"^torch\._inductor(\.|$)")
# Operators may be named with an underscore (`torch.ops.aten._softmax`): those names are ATen's schema.
PRIVATE = re.compile(r"^torch\.(?!ops\.)(?:[^.]+\.)*_(?!_)|^torch\.fx\.experimental(\.|$)")


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


# -- in the sources ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("path", EVERYTHING, ids=name)
def test_no_file_reaches_for_torchinductor(path: Path) -> None:
    for found in imports(path):
        assert not FORBIDDEN.match(found.name), f"{path}:{found.line} imports {found.name}"
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Attribute):
            chain = dotted(node)
            assert not (chain and FORBIDDEN.match(chain)), f"{path}:{node.lineno} uses {chain}"
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and path.is_relative_to(PACKAGE):
            assert not FORBIDDEN.match(node.value), f"{path}:{node.lineno} names {node.value}"


OUTSIDE = [path for path in SOURCES if not path.is_relative_to(PACKAGE / "_torch")]


@pytest.mark.parametrize("path", OUTSIDE, ids=name)
def test_private_torch_is_touched_in_one_room(path: Path) -> None:
    for found in imports(path):
        assert not PRIVATE.match(found.name), f"{path}:{found.line} imports {found.name}"
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Attribute):
            chain = dotted(node)
            assert not (chain and PRIVATE.match(chain)), f"{path}:{node.lineno} uses {chain}"


def names_of_its_own(path: Path) -> set[str]:
    """Every name that a file defines: functions, classes, what is assigned, declared or listed as a slot."""
    own: set[str] = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            own.add(node.name)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            own.add(node.attr)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            own.add(node.id)
    return own


# What the standard library documents in spite of its underscore.
DOCUMENTED = {
    "_replace",
    "_asdict",
    "_fields",
    "_make",
    "_exit",
    "_getframe",
    "_current_frames",
    "_MISSING_TYPE",
}


@pytest.mark.parametrize("path", OUTSIDE, ids=name)
def test_nobody_reads_the_private_attributes_of_others(path: Path) -> None:
    # `node.target._schema` has no `torch` in it and is as private as the rest.
    own = names_of_its_own(path) | DOCUMENTED
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
            chain = dotted(node) or ""
            operator = ".ops." in chain or chain.startswith(("aten.", "prims.", "ops."))
            inherited = chain.partition(".")[0] in ("self", "cls")
            assert operator or inherited or node.attr in own, f"{path}:{node.lineno} reads .{node.attr}"


def test_the_patterns_themselves() -> None:
    for private in ("torch._C", "torch._dynamo.utils", "torch.fx._pytree", "torch.utils._pytree.tree_map"):
        assert PRIVATE.match(private)
    assert PRIVATE.match("torch.fx.experimental.symbolic_shapes")
    for public in ("torch.fx.Node", "torch.__version__.split", "torch.ops.aten._softmax", "torchvision._C"):
        assert not PRIVATE.match(public)
    assert FORBIDDEN.match("torch._inductor.ir") and not FORBIDDEN.match("torch._inductory")


# -- in running processes ---------------------------------------------------------------------------------
def answer_of(program: str, **environment: str) -> Any:
    """Run a program in a fresh interpreter; the JSON on its last line of output."""
    env = {**os.environ, **environment}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, env=env, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


COMPILE_A_FUNCTION = """
    import json, sys
    started = []

    def hook(event, args):
        if event == "subprocess.Popen":
            started.append([event, *map(str, args[1])])
        elif event in ("os.fork", "os.forkpty", "os.system", "os.exec", "os.posix_spawn", "os.spawn"):
            started.append([event, *map(str, args)])

    sys.addaudithook(hook)
    import torch

    def function(x, y):
        return torch.softmax(torch.tanh(x) * y + 1, -1)

    inputs = torch.randn(33, 70), torch.randn(70)
    result = torch.compile(function, backend="braze", options={"strict": True})(*inputs)
    torch.testing.assert_close(result, function(*inputs))
    print(json.dumps({"started": started, "modules": sorted(sys.modules)}))
"""


def test_a_compile_loads_no_torchinductor_and_starts_only_our_workers() -> None:
    # A PATH on which nothing is found: a compiler, linker or probe that was looked for would be missed.
    answer = answer_of(
        COMPILE_A_FUNCTION, PATH=os.path.dirname(sys.executable), CC="/nowhere", CXX="/nowhere"
    )
    loaded = set(answer["modules"])
    assert "braze.codegen" in loaded
    assert not {"torch._inductor.compile_fx", "torch._inductor.lowering"} & loaded
    strangers = [command for command in answer["started"] if str(WORKERS) not in command]
    assert not strangers
    assert answer["started"], "the hook saw no worker start, so it would see nobody else either"


def test_importing_braze_is_light() -> None:
    answer = answer_of(
        """
        import json, sys
        before = set(sys.modules)
        import braze
        braze.config, braze.errors
        print(json.dumps(sorted(set(sys.modules) - before - {"json"})))
        """
    )
    heavy = {"torch", "sympy", "llvmlite", "numpy", "rich", "click"}
    assert not heavy & {module.split(".")[0] for module in answer}
    assert len(answer) < 50


def test_every_exported_name_exists() -> None:
    import braze

    for exported in braze.__all__:
        assert getattr(braze, exported) is not None
    with pytest.raises(AttributeError, match="no attribute 'absent'"):
        _ = braze.absent


def test_the_llvm_worker_imports_only_llvmlite() -> None:
    for path in (WORKERS / "worker.py", WORKERS / "llvm_jobs.py"):
        for found in imports(path):
            top = found.name.split(".")[0]
            assert top in sys.stdlib_module_names or top == "llvmlite", f"{path}:{found.line}: {found.name}"


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads a process's memory from /proc")
def test_the_llvm_worker_stays_small() -> None:
    from braze.codegen.llvm.pool import Pool

    text = "define float @twice(float %x) {\n  %y = fadd float %x, %x\n  ret float %y\n}\n"
    pool = Pool(1)
    try:
        assert pool.compile(text, cpu="generic").result(timeout=60).object
        (pid,) = pool.worker_pids()
        status = Path(f"/proc/{pid}/status").read_text()
        libraries = Path(f"/proc/{pid}/maps").read_text()
    finally:
        pool.close()
    peak = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert peak is not None and int(peak[1]) < 120 * 1024
    assert "llvmlite" in libraries and "libtorch" not in libraries


def test_the_sources_speak_of_the_project_alone() -> None:
    home = re.compile(r"/(work|root)/|/home/\w")
    for path in [*SOURCES, *ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "dev.py"]:
        assert not home.search(path.read_text(encoding="utf-8")), path
