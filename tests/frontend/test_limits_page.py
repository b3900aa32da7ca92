"""docs/limits.md says what happens: its examples run, each by itself, and assert it."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch

from braze.inspect import stats
from tests.pages import Block, blocks, run_python
from tests.source_tree import ROOT

EXAMPLES = blocks(ROOT / "docs" / "limits.md")


@pytest.mark.parametrize("example", EXAMPLES, ids=[example.title for example in EXAMPLES])
def test_an_example_of_the_page_does_what_it_says(example: Block, tmp_path: Path) -> None:
    assert example.language == "python" and example.title
    torch.compiler.reset()
    torch.manual_seed(0)
    before = stats().graphs
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run_python(example, {"torch": torch, "raises": pytest.raises}, tmp_path)
    assert stats().graphs > before
