"""The programs in docs/workers.md run as they stand there."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.compile.workers.support import ROOT, run_script
from tests.pages import Block, blocks

PAGE = ROOT / "docs" / "workers.md"
PROGRAMS = [block for block in blocks(PAGE) if block.language == "python"]


@pytest.mark.serial
@pytest.mark.parametrize("program", PROGRAMS, ids=["our own", "Dask", "the standard library"])
def test_it_runs(program: Block, tmp_path: Path) -> None:
    assert run_script(tmp_path, program.code) == ["b'hello'"]


def test_every_file_is_named() -> None:
    text = PAGE.read_text("utf-8")
    for path in (ROOT / "src" / "braze" / "runtime" / "workers").glob("*.py"):
        assert path.name == "__init__.py" or f"`{path.name}`" in text
