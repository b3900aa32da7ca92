"""The pages that the code writes are up to date."""

from __future__ import annotations

import re

from tests.generated_pages import grammar, operators, walk
from tests.source_tree import ROOT

HOW = "`python dev.py pages` brings it up to date"


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def test_the_page_of_grammars() -> None:
    assert grammar.page() == page("grammar.md"), HOW


def test_the_page_of_operators() -> None:
    """Another release of PyTorch has other operators; the page is there all the same."""
    made, written = operators.page(), page("operators.md")
    if f"in PyTorch {operators.RELEASE}." in written:
        assert made == written, HOW
    assert re.findall("^## .*", made, flags=re.M) == re.findall("^## .*", written, flags=re.M)


def test_the_walk() -> None:
    """The assembly is another one with each release of LLVM; its hot loop is vectors, whatever it looks
    like."""
    made = walk.page()
    assert walk.without_assembly(made) == walk.without_assembly(page("walk.md")), HOW
    for listing in re.findall(r"### Assembly[^\n]*\n\n```text\n(.*?)```", made, flags=re.S):
        loop = [line for line in listing.splitlines() if line.startswith("> ")]
        assert sum("zmm" in line for line in loop) > 15 and not any("call" in line for line in loop)
