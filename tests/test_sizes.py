"""`python dev.py sizes`: what it counts, and that it can look at another revision."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import sizes
from tests.source_tree import lines_of_code, modules

FILE = '''"""A docstring
of two lines."""

# a comment
import os  # and one behind code


def call():
    """Another docstring."""
    return os.path.join(
        "a",  # in the middle
        # of a call
        """text that
        is code""",
    )
'''


@pytest.fixture
def package(tmp_path: Path) -> Path:
    found = tmp_path / "house"
    files = {
        "__init__.py": "from house.low import a",
        "low/__init__.py": "",
        "low/a.py": FILE,
        "low/b.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from house.high.c import C",
        "high/__init__.py": "",
        "high/c.py": "from house.low.a import call\nimport house.low.b\nclass C: ...",
    }
    for name, text in files.items():
        (found / name).parent.mkdir(parents=True, exist_ok=True)
        (found / name).write_text(text)
    return found


def test_lines_of_code(package: Path) -> None:
    assert lines_of_code(package / "low" / "a.py") == 7


def test_importers(package: Path) -> None:
    assert sizes.importers(package) == {
        "house.low.a": {"house", "house.high.c"},
        "house.low.b": {"house.high.c"},
        "house.high.c": {"house.low.b"},
    }


def test_rooms(package: Path) -> None:
    found = sizes.rooms(package)
    assert found["low"] == sizes.Size(files=3, lines=10, one_importer=1)
    assert found["high"] == sizes.Size(files=2, lines=3, one_importer=1)
    total = sum(sizes.rooms().values(), sizes.Size())
    assert total.files == len(modules()) and total.lines == sum(map(lines_of_code, modules().values()))


def test_it_prints_what_changed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    now = sizes.rooms()
    before = {**now, "ir": now["ir"] + sizes.Size(files=1, lines=7), "gone": sizes.Size(files=2, lines=3)}
    monkeypatch.setattr(sizes, "at_revision", lambda _: before)
    assert sizes.main(["v1"]) == 0
    shown = capsys.readouterr().out
    (ir,) = (line.split() for line in shown.splitlines() if line.split()[:1] == ["ir"])
    assert ir == ["ir", str(now["ir"].files), "-1", str(now["ir"].lines), "-7", str(now["ir"].one_importer)]
    assert "gone" in shown and "in all" in shown


def test_an_unknown_revision_is_named() -> None:
    with pytest.raises(SystemExit, match="'no such revision'"):
        sizes.at_revision("no such revision")
