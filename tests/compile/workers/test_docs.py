"""The programs in docs/workers.md run as they stand there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.compile.workers.support import ROOT, run_script

PROGRAMS = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "workers.md").read_text("utf-8"), re.DOTALL)


@pytest.mark.serial
@pytest.mark.parametrize("program", PROGRAMS, ids=["our own", "Dask", "the standard library"])
def test_it_runs(program: str, tmp_path: Path) -> None:
    assert run_script(tmp_path, program) == ["b'hello'"]


def test_every_file_is_named() -> None:
    text = (ROOT / "docs" / "workers.md").read_text("utf-8")
    for path in (ROOT / "src" / "braze" / "compile" / "workers").glob("*.py"):
        assert path.name == "__init__.py" or f"`{path.name}`" in text
