"""Graphs are compiled by workers in the processes that people really have: a DataLoader's, and torchrun's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.serial

COMPILED = '''
import os, torch, braze
from braze import inspect


def answer():
    """Whether a worker compiled it, and it is right."""
    options = {"fx_compile_mode": "out-of-process", "cache": False, "strict": True}
    messages = []
    import logging
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    logging.getLogger("braze").addHandler(handler)
    logging.getLogger("braze").setLevel(logging.INFO)
    f = lambda x: torch.softmax(x * 2, -1)
    x = torch.randn(5, 9)
    right = torch.allclose(torch.compile(f, backend="braze", options=options)(x), f(x), atol=1e-6)
    here = [m for m in messages if "compiled in this process" in m]
    assert not here, here
    return right
'''

LOADER = (
    COMPILED
    + """

class Data(torch.utils.data.Dataset):
    def __len__(self):
        return 1

    def __getitem__(self, index):
        return answer()


if __name__ == "__main__":
    loader = torch.utils.data.DataLoader(Data(), num_workers=1, multiprocessing_context="METHOD")
    print("right", [bool(one) for one in loader])
"""
)

RANK = (
    COMPILED
    + """
print("right", os.environ["RANK"], answer())
"""
)


def _run(tmp_path: Path, text: str, *launcher: str) -> str:
    script = tmp_path / "script.py"
    script.write_text(text)
    done = subprocess.run(
        [sys.executable, *launcher, str(script)], capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_in_a_worker_of_a_data_loader(method: str, tmp_path: Path) -> None:
    assert "right [True]" in _run(tmp_path, LOADER.replace("METHOD", method))


def test_in_the_ranks_of_torchrun(tmp_path: Path) -> None:
    said = _run(tmp_path, RANK, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone")
    assert "right 0 True" in said and "right 1 True" in said
