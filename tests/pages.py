"""The pages of the documentation as programs: their blocks, and how one is run."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.source_tree import ROOT

__all__ = ["OUTPUT", "PAGES", "Block", "blocks", "run_python"]

PAGES = tuple(sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]))
OUTPUT = frozenset({"text", "json", "c"})
"""Languages of what is shown and not run."""


@dataclass(frozen=True)
class Block:
    """A fenced block; ``line`` is that of its first line of code, ``title`` the last bold text in front of
    it since the block before."""

    page: Path
    line: int
    language: str
    code: str
    title: str

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"

    @property
    def commands(self) -> list[str]:
        """What is typed, of a block of shell commands; ``console`` shows what comes of it, too."""
        lines = self.code.splitlines()
        if self.language == "console":
            lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
        return [line.split(" #")[0].strip() for line in lines if line.split(" #")[0].strip()]


def blocks(page: Path) -> list[Block]:
    """Every fenced block of a page, in order."""
    text = page.read_text("utf-8")
    found, end = [], 0
    for match in re.finditer(r"^```(.*)\n((?:.*\n)*?)```$", text, re.MULTILINE):
        titles = re.findall(r"\*\*([^*]+)\*\*", text[end : match.start()])
        line = text.count("\n", 0, match.start(2)) + 1
        found.append(Block(page, line, match[1].strip(), match[2], titles[-1] if titles else ""))
        end = match.end()
    return found


def run_python(block: Block, namespace: dict[str, Any], folder: Path) -> None:
    """Run a block of Python; what it defines is in ``namespace`` afterwards."""
    file = folder / f"{block.page.stem}_{block.line}.py"  # Dynamo leaves code alone that comes from no file
    file.write_text(block.code, "utf-8")
    exec(compile(block.code, str(file), "exec"), namespace)
