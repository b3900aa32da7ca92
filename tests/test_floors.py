"""The house stands: a room imports only from rooms on lower floors, and no deferred import dodges that."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.source_tree import PACKAGE, imports, module_name, python_files

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
SEAMS = {PIPELINE: "compile", "braze.frontend.miss": "frontend", "braze.fuser.preparing": "fuser"}

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


def test_the_rule_itself() -> None:
    assert allowed("codegen", "ops") and not allowed("ops", "codegen")
    assert allowed("ops", "symbolic") and not allowed("symbolic", "ops")
    assert not allowed("inspect", "cli") and not allowed("runtime", "artifact")
    assert allowed("cli", FACE) and not allowed("ir", FACE)
