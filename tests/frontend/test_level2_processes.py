"""What one process left in the cache's second level serves the next, which neither traces nor compiles."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.source_tree import ROOT


def _child(folder: Path) -> dict[str, Any]:
    environment = {**os.environ, "BRAZE_CACHE": "1", "BRAZE_CACHE_DIR": str(folder)}
    done = subprocess.run(
        [sys.executable, "-m", "tests.frontend.level2_child"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    seen: dict[str, Any] = json.loads(done.stdout)
    return seen


def test_the_second_process_neither_traces_nor_compiles(tmp_path: Path) -> None:
    first, second = _child(tmp_path), _child(tmp_path)
    assert (first.pop("traced"), first.pop("compiler")) == (2, True)
    assert (second.pop("traced"), second.pop("compiler")) == (0, False)
    assert second == first
