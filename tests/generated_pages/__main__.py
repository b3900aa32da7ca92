"""Write the pages that the code makes into ``docs/``."""

from __future__ import annotations

from collections.abc import Callable

from tests.generated_pages import grammar, operators, walk
from tests.source_tree import ROOT

PAGES: dict[str, Callable[[], str]] = {
    "grammar.md": grammar.page,
    "operators.md": operators.page,
    "walk.md": walk.page,
}


def main() -> None:
    """Each page, and whether it changed."""
    for name, make in PAGES.items():
        path, text = ROOT / "docs" / name, make()
        changed = not path.exists() or path.read_text(encoding="utf-8") != text
        path.write_text(text, encoding="utf-8")
        print(f"docs/{name}: {'changed' if changed else 'as it was'}")


if __name__ == "__main__":
    main()
