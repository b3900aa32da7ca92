"""Reading our own sources: which file imports what, wherever in the file it does so."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "braze"


@dataclass(frozen=True)
class Import:
    """One imported dotted name. `deferred`: the import is inside a function, or by a string."""

    name: str
    line: int
    deferred: bool


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def python_files(*folders: Path) -> list[Path]:
    return sorted(path for folder in folders for path in folder.rglob("*.py"))


def module_name(path: Path) -> str:
    """`src/braze/ops/dag.py` is ``braze.ops.dag``."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _absolute(path: Path, node: ast.ImportFrom) -> str:
    if node.level == 0:
        return node.module or ""
    here = module_name(path).split(".")
    base = here if path.name == "__init__.py" else here[:-1]
    base = base[: len(base) - (node.level - 1)]
    return ".".join([*base, node.module] if node.module else base)


_IMPORTERS = {"import_module", "__import__", "find_spec", "run_module"}


def _called_name(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _walk(path: Path, node: ast.AST, deferred: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield Import(alias.name, child.lineno, deferred)
        elif isinstance(child, ast.ImportFrom):
            module = _absolute(path, child)
            for alias in child.names:
                yield Import(f"{module}.{alias.name}", child.lineno, deferred)
        elif isinstance(child, ast.Call) and _called_name(child.func) in _IMPORTERS:
            for argument in child.args[:1]:
                if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                    yield Import(argument.value, child.lineno, True)
        inside = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        yield from _walk(path, child, deferred or inside)


def imports(path: Path) -> list[Import]:
    """Every import of a file, those inside functions, under TYPE_CHECKING and by `import_module` included.

    ``from a.b import c`` counts as ``a.b.c``, whether ``c`` is a module or a name in one.
    """
    return list(_walk(path, tree(path), deferred=False))


def dotted(node: ast.expr) -> str | None:
    """``a.b.c`` for a chain of attributes that starts from a name; None for anything else."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if isinstance(node, ast.Name) else None
