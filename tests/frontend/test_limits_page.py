"""docs/limits.md says what happens: its examples run, each by itself, and assert it."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import pytest
import torch

from braze.inspect import stats

PAGE = Path(__file__).parents[2] / "docs" / "limits.md"
EXAMPLES = re.findall(
    r"\*\*([^*]+)\*\*(?:(?!\*\*).)*?```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL
)


@pytest.mark.parametrize(("title", "code"), EXAMPLES, ids=[title for title, _ in EXAMPLES])
def test_an_example_of_the_page_does_what_it_says(title: str, code: str, tmp_path: Path) -> None:
    torch.compiler.reset()
    torch.manual_seed(0)
    file = tmp_path / "example.py"  # Dynamo leaves code alone that comes from no file
    file.write_text(code, "utf-8")
    before = stats().graphs
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(compile(code, str(file), "exec"), {"torch": torch, "raises": pytest.raises})
    assert stats().graphs > before


def test_every_example_is_found() -> None:
    assert len(EXAMPLES) == PAGE.read_text("utf-8").count("```python")
