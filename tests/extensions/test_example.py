"""The example of a library of one's own: a package that stands by itself, and whose test passes."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.source_tree import ROOT

EXAMPLE = ROOT / "examples" / "braze_extension"


def test_its_own_test_passes() -> None:
    path = os.pathsep.join([str(EXAMPLE), str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", "pyproject.toml", "tests"],
        cwd=EXAMPLE,
        env={**os.environ, "PYTHONPATH": path, "BRAZE_CACHE": "0", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
