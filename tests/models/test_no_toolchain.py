"""Models compile and run where there is nothing but the Python environment."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests import support
from tests.models import zoo

ROOT = Path(__file__).parents[2]
TOOLS = (
    "cc",
    "c++",
    "gcc",
    "g++",
    "clang",
    "clang++",
    "cl",
    "ld",
    "lld",
    "as",
    "nvcc",
    "cmake",
    "ninja",
    "make",
)

PROGRAM = """
import json, shutil, sys
found = [tool for tool in json.loads(sys.argv[1]) if shutil.which(tool)]
assert not found, f"the PATH is not as bare as this test means it to be: {found}"
from tests.models import zoo
from tests.models.compare import outcome
for name in json.loads(sys.argv[2]):
    found = outcome(zoo.find(name))
    found.check()
    assert found.stats.graphs >= 1
    assert found.stats.eager_graphs == 0, [str(f) for f in found.stats.fallbacks]
    print("compiled", name, flush=True)
"""


def test_only_the_environment_is_needed(tmp_path: Path) -> None:
    # A folder with the interpreter and nothing else: an environment's own folder may hold tools that pip
    # installed.
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    (bin_folder / Path(sys.executable).name).symlink_to(sys.executable)
    environment = {
        "PATH": str(bin_folder),
        "HOME": str(tmp_path),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
        "BRAZE_TEST_BACKEND": support.BACKEND,
    }
    command = [sys.executable, "-c", PROGRAM, json.dumps(TOOLS), json.dumps(zoo.QUICK)]
    done = subprocess.run(
        command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.split() == [word for name in zoo.QUICK for word in ("compiled", name)]
