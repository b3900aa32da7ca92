"""`torch.compiler.save_cache_artifacts` in one process, `load_cache_artifacts` in another."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from braze.cache.keyring import KeyRing
from tests.source_tree import ROOT

COMPILE = """
    import json, sys

    def function(x, w):
        return torch.softmax(torch.tanh(x) * w + 1, -1).sum()

    def step():
        x, w = torch.ones(33, 70, requires_grad=True), torch.ones(70)
        compiled = torch.compile(function, backend="braze", options={"strict": True})(x, w)
        compiled.backward()
        torch.testing.assert_close(compiled, function(x, w))
        totals = braze.inspect.stats()
        return {"graphs": totals.graphs, "loaded": totals.loaded}
"""
SAVE = """
    answer = step()
    data, info = torch.compiler.save_cache_artifacts()
    with open(sys.argv[1], "wb") as file:
        file.write(data)
    print(json.dumps({**answer, "carried": info.braze_artifacts}))
"""
LOAD = """
    info = torch.compiler.load_cache_artifacts(open(sys.argv[1], "rb").read())
    carried = info.braze_artifacts
    print(json.dumps({**step(), "carried": carried}))
"""


@dataclass(frozen=True)
class Place:
    """A user's folders on some machine, and the file that goes from machine to machine."""

    folder: Path
    file: Path

    @property
    def ring(self) -> KeyRing:
        return KeyRing(self.folder / "ring")

    def run(self, imports: str, program: str) -> tuple[Any, str]:
        """What a process of this user prints, as JSON, and its log."""
        environment = {
            **os.environ,
            "BRAZE_CACHE": "1",
            "BRAZE_CACHE_DIR": str(self.folder / "cache"),
            "BRAZE_KEYRING_DIR": str(self.folder / "ring"),
        }
        text = "\n".join(line.removeprefix("    ") for line in (imports + COMPILE + program).splitlines())
        command = [sys.executable, "-c", text, str(self.file)]
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1]), done.stderr


@pytest.mark.serial
def test_what_one_process_saved_another_does_not_compile(tmp_path: Path) -> None:
    """Braze has to be imported before the load; whether before or after torch makes no difference."""
    ada, bob, eve = (Place(tmp_path / name, tmp_path / "artifacts") for name in ("ada", "bob", "eve"))
    bob.ring.trust(ada.ring.generate("ada").text)
    saved, log = ada.run("import torch, braze", SAVE)
    assert saved["graphs"] == 2 and saved["loaded"] == 0 and len(saved["carried"]) == 3, log

    loaded, log = bob.run("import braze, torch", LOAD)
    assert loaded == {"graphs": 2, "loaded": 2, "carried": saved["carried"]}, log

    refused, log = eve.run("import torch, braze", LOAD)
    assert refused["graphs"] == 2 and refused["loaded"] == 0
    assert "refused" in log and "not trusted" in log
