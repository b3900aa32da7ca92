"""How large the house is, room by room, beside what it was: ``python dev.py sizes [REV]``.

Lines of code are those without docstrings, comments and blank lines. A file that one other file imports is a
section of that file, unless it has a subject of its own.
"""

from __future__ import annotations

import argparse
import io
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tests.source_tree import PACKAGE, ROOT, imported_modules, lines_of_code, modules

ENTRANCES = ("__init__.py", "__main__.py")
"""Files that nobody imports by name."""

LONG = 600
"""Lines of a file, all of them counted, beyond which it is worth a look: a hint."""


@dataclass(frozen=True)
class Size:
    """Of some files: how many, their lines of code, and how many of them have exactly one importer."""

    files: int = 0
    lines: int = 0
    one_importer: int = 0

    def __add__(self, other: Size) -> Size:
        return Size(
            self.files + other.files, self.lines + other.lines, self.one_importer + other.one_importer
        )


def importers(package: Path = PACKAGE) -> dict[str, set[str]]:
    """The modules that import a module, by its name; entrances are imported by nobody."""
    known = modules(package)
    found: dict[str, set[str]] = {n: set() for n, p in known.items() if p.name not in ENTRANCES}
    for name, path in known.items():
        for other in imported_modules(path, package, known):
            if other in found and other != name:
                found[other].add(name)
    return found


def rooms(package: Path = PACKAGE) -> dict[str, Size]:
    """The size of each room: a folder of the package; those beside the rooms are one more."""
    known, seen_by = modules(package), importers(package)
    sizes: dict[str, Size] = {}
    for name, path in known.items():
        inside = path.relative_to(package).parts
        room = inside[0] if len(inside) > 1 else "(beside the rooms)"
        one = Size(1, lines_of_code(path), int(len(seen_by.get(name, ())) == 1))
        sizes[room] = sizes.get(room, Size()) + one
    return sizes


def at_revision(revision: str) -> dict[str, Size]:
    """`rooms` of a git revision. Raises `SystemExit` where git does not know it."""
    place = PACKAGE.relative_to(ROOT)
    archived = subprocess.run(
        ["git", "archive", revision, str(place)], cwd=ROOT, capture_output=True, check=False
    )
    if archived.returncode != 0:
        raise SystemExit(f"git has no {place} of {revision!r}: {archived.stderr.decode().strip()}")
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(fileobj=io.BytesIO(archived.stdout)) as archive:
            for member in archive.getmembers():
                if member.isfile() and member.name.endswith(".py"):
                    path = Path(folder, member.name)
                    path.parent.mkdir(parents=True, exist_ok=True)
                    data = archive.extractfile(member)
                    path.write_bytes(b"" if data is None else data.read())
        return rooms(Path(folder) / place)


def last_release() -> str | None:
    """The newest tag that the checkout comes after; None where there is none."""
    asked = ["git", "describe", "--tags", "--abbrev=0"]
    answer = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=False)
    return answer.stdout.strip() if answer.returncode == 0 else None


def _figures(now: Size, before: Size | None) -> list[Text]:
    cells = []
    for field in ("files", "lines", "one_importer"):
        here = getattr(now, field)
        cells.append(Text(f"{here:,}"))
        if before is not None:
            change = here - getattr(before, field)
            cells.append(Text(f"{change:+,}" if change else "", "red" if change > 0 else "green"))
    return cells


def table(now: Mapping[str, Size], before: Mapping[str, Size] | None, revision: str | None) -> Table:
    """The rooms, the largest first, with what changed since ``revision``, and the totals."""
    shown = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False, show_footer=True)
    total = sum(now.values(), Size())
    past = None if before is None else sum(before.values(), Size())
    footers = iter(_figures(total, past))
    shown.add_column("room", footer=Text("in all", "bold"))
    for header in ("files", "lines of code", "one importer"):
        shown.add_column(header, justify="right", footer=next(footers))
        if before is not None:
            shown.add_column(f"since {revision}", justify="right", footer=next(footers), header_style="dim")
    names = {*now, *(before or {})}
    for room in sorted(names, key=lambda name: (-now.get(name, Size()).lines, name)):
        old = None if before is None else before.get(room, Size())
        shown.add_row(Text(room), *_figures(now.get(room, Size()), old))
    return shown


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="dev.py sizes", description=__doc__)
    parser.add_argument(
        "revision", nargs="?", help="what to compare with: a tag, branch or commit [last tag]"
    )
    revision = parser.parse_args(arguments).revision or last_release()
    console = Console()
    before = None if revision is None else at_revision(revision)
    console.print(table(rooms(), before, revision))
    lengths = Counter(
        {path: len(path.read_text(encoding="utf-8").splitlines()) for path in modules().values()}
    )
    long = [f"{path.relative_to(PACKAGE)} {lines}" for path, lines in lengths.most_common() if lines > LONG]
    if long:
        console.print(Text(f"more than {LONG} lines: {', '.join(long)}", "yellow"))
    if revision is None:
        console.print(Text("no release is tagged yet: name a revision to compare with", "dim"))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
