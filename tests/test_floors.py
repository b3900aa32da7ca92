"""The house stands: a room imports only from rooms on lower floors, and no deferred import dodges that."""

from __future__ import annotations

import ast
from collections.abc import Collection, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.sizes import importers
from tests.source_tree import (
    PACKAGE,
    imported_modules,
    imports,
    lines_of_code,
    module_name,
    modules,
    python_files,
    tree,
)

SMALL = 60
"""Lines of code below which a file that one other imports has to say why it stands alone."""

# From the top. Rooms on one floor do not import each other, but for the pairs in NEIGHBOURS.
FLOORS: tuple[frozenset[str], ...] = tuple(
    map(
        frozenset,
        (
            {"cli", "inspect"},
            {"fuser"},
            {"frontend"},
            {"compile"},
            {"tuning"},
            {"codegen"},
            {"schedule"},
            {"lowering"},
            {"templates"},
            {"ir"},
            {"ops", "symbolic"},
            {"artifact", "cache"},
            {"runtime"},
            {"extensions"},
            {"_torch"},
            {"config", "notices"},
            {"cpus", "dtypes"},
            {"errors", "version", "words"},
        ),
    )
)
NEIGHBOURS = frozenset({("cli", "inspect"), ("ops", "symbolic"), ("artifact", "cache")})

# The package's own face lies above all rooms; only the command line looks at it, as its users do. It loads at
# once only what loads nothing else.
FACE = "braze"
SEEN_BY_THE_FACE = frozenset({"version", "_torch"})
SEES_THE_FACE = frozenset({"cli"})

# The lazy seams: tracing is loaded for the first graph that the cache's second level does not know, and for
# the first call of a fused function; the compiler when a graph has to be compiled; none of it before. Each
# with the room that may cross it.
PIPELINE = "braze.compile.pipeline"
SEAMS = {PIPELINE: "compile", "braze.frontend.miss": "frontend", "braze.fuser.specialize": "fuser"}

HEIGHT = {room: len(FLOORS) - level for level, rooms in enumerate(FLOORS) for room in rooms}
FILES = python_files(PACKAGE)
IDS = [str(path.relative_to(PACKAGE)) for path in FILES]


def room_of(module: str) -> str:
    """``braze.ops.dag`` is in ``ops``; what is not in a room belongs to the face, but for the command."""
    parts = module.split(".")
    if parts[1:] == ["__main__"]:
        return "cli"
    return parts[1] if len(parts) > 1 and parts[1] in HEIGHT else FACE


def allowed(importer: str, imported: str) -> bool:
    if importer == imported:
        return True
    if importer == FACE and imported in SEEN_BY_THE_FACE:
        return True
    if FACE in (importer, imported):
        return imported == FACE and importer in SEES_THE_FACE
    return HEIGHT[imported] < HEIGHT[importer] or (importer, imported) in NEIGHBOURS


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_a_room_imports_only_from_below(path: Path) -> None:
    room = room_of(module_name(path))
    wrong = [
        f"{path}:{found.line} imports {found.name}"
        for found in imports(path)
        if found.name.split(".")[0] == "braze" and not allowed(room, room_of(found.name))
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_seams_are_the_only_lazy_imports(path: Path) -> None:
    module = module_name(path)
    for found in imports(path):
        ours = found.name.split(".")[0] == "braze"
        seam = next((s for s in SEAMS if found.name == s or found.name.startswith(s + ".")), None)
        if ours and found.deferred:
            assert SEAMS.get(seam or "") == room_of(module), f"{path}:{found.line} defers {found.name}"
        elif seam is not None:
            assert module.startswith(seam), f"{path}:{found.line} loads {seam} at import"


def test_every_folder_is_a_room_of_the_plan() -> None:
    for folder in sorted(PACKAGE.iterdir()):
        if folder.is_dir() and folder.name != "__pycache__":
            assert folder.name in HEIGHT, f"{folder} is no room that the floors know"
    for folder in {path.parent for path in FILES}:
        assert (folder / "__init__.py").exists(), f"{folder} has no __init__.py, so it would not be installed"


def circle(importing: Mapping[str, Collection[str]]) -> list[str]:
    """Modules that import each other, each the next, up to the first again; empty where there are none."""
    try:
        TopologicalSorter(importing).prepare()
    except CycleError as error:
        return list(reversed(error.args[1]))
    return []


def test_no_imports_go_in_circles() -> None:
    """Imports for the type checker load nothing; those in functions are the seams, and no other."""
    known = modules()
    importing = {
        name: {
            other
            for other, found in imported_modules(path, PACKAGE, known).items()
            if other != name and not found.typing and not found.deferred
        }
        for name, path in known.items()
    }
    assert not circle(importing), " -> ".join(circle(importing))


def test_a_small_file_for_one_other_says_why_it_stands_alone() -> None:
    """Or it is a section of its importer's. The reason is in its docstring: "A file of its own: ..."."""
    known = modules()
    for name, others in importers().items():
        if len(others) == 1 and lines_of_code(known[name]) < SMALL:
            said = ast.get_docstring(tree(known[name])) or ""
            assert "file of its own" in said, f"merge {name} into {min(others)}, or say why not"


def test_the_rule_itself() -> None:
    assert allowed("codegen", "ops") and not allowed("ops", "codegen")
    assert allowed("ops", "symbolic") and not allowed("symbolic", "ops")
    assert not allowed("inspect", "cli") and not allowed("runtime", "artifact")
    assert circle({"a": {"b"}, "b": {"c", "d"}, "c": {"b"}, "d": set()}) in (["b", "c", "b"], ["c", "b", "c"])
    assert not circle({"a": {"b", "c"}, "b": {"c"}, "c": set()})
    assert allowed("cli", FACE) and not allowed("ir", FACE)
