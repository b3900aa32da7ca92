"""The recorded graphs are compiled to what is expected of them."""

from __future__ import annotations

import pytest

from tests.replay.printing import EXPECTED, names, printed


@pytest.mark.parametrize("name", names())
def test_as_expected(name: str) -> None:
    """Where a difference is meant: `python dev.py replay --update`, and the commit says why."""
    assert printed(name) == (EXPECTED / f"{name}.txt").read_text(encoding="utf-8")


def test_everything_expected_has_a_graph() -> None:
    assert sorted(path.stem for path in EXPECTED.glob("*.txt")) == names()
