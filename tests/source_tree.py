"""Reading our own sources: which file imports what, wherever in the file it does so, and how long it is."""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "braze"


@dataclass(frozen=True)
class Import:
    """One imported dotted name. `deferred`: the import is inside a function, or by a string. `typing`: it is
    there for the type checker alone."""

    name: str
    line: int
    deferred: bool
    typing: bool


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def python_files(*folders: Path) -> list[Path]:
    return sorted(path for folder in folders for path in folder.rglob("*.py"))


def module_name(path: Path, package: Path = PACKAGE) -> str:
    """`src/braze/ops/dag.py` is ``braze.ops.dag``."""
    parts = path.relative_to(package.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _absolute(path: Path, node: ast.ImportFrom, package: Path) -> str:
    if node.level == 0:
        return node.module or ""
    here = module_name(path, package).split(".")
    base = here if path.name == "__init__.py" else here[:-1]
    base = base[: len(base) - (node.level - 1)]
    return ".".join([*base, node.module] if node.module else base)


_IMPORTERS = {"import_module", "__import__", "find_spec", "run_module"}


def _called_name(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _is_for_typing(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and _called_name(node.test) == "TYPE_CHECKING"


def _walk(path: Path, node: ast.AST, package: Path, deferred: bool, typing: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield Import(alias.name, child.lineno, deferred, typing)
        elif isinstance(child, ast.ImportFrom):
            module = _absolute(path, child, package)
            for alias in child.names:
                yield Import(f"{module}.{alias.name}", child.lineno, deferred, typing)
        elif isinstance(child, ast.Call) and _called_name(child.func) in _IMPORTERS:
            for argument in child.args[:1]:
                if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                    yield Import(argument.value, child.lineno, True, typing)
        inside = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        yield from _walk(path, child, package, deferred or inside, typing or _is_for_typing(child))


def imports(path: Path, package: Path = PACKAGE) -> list[Import]:
    """Every import of a file, those inside functions, under TYPE_CHECKING and by `import_module` included.

    ``from a.b import c`` counts as ``a.b.c``, whether ``c`` is a module or a name in one.
    """
    return list(_walk(path, tree(path), package, deferred=False, typing=False))


def modules(package: Path = PACKAGE) -> dict[str, Path]:
    """The modules of a package, by dotted name; a package's own is its ``__init__.py``."""
    return {module_name(path, package): path for path in python_files(package)}


def imported_modules(path: Path, package: Path, known: Mapping[str, Path]) -> dict[str, Import]:
    """Those of the ``known`` modules that a file imports, with the first import that does so; one for the
    type checker alone only where there is no other. A string that is a module's name counts as a deferred
    import: it is in a table of what is loaded later."""
    found: dict[str, Import] = {}
    named = [
        Import(node.value, node.lineno, deferred=True, typing=False)
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    for one in [*imports(path, package), *named]:
        name = one.name if one.name in known else one.name.rpartition(".")[0]
        if name in known and (name not in found or found[name].typing):
            found[name] = one
    return found


def lines_of_code(path: Path) -> int:
    """Lines that hold code: no blank ones, no comments, no strings that stand alone, which are docstrings."""
    silent = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}
    text = path.read_text(encoding="utf-8")
    said = {
        line
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    held = {
        line
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type not in silent and token.type != tokenize.ENDMARKER
        for line in range(token.start[0], token.end[0] + 1)
    }
    return len(held - said)


def dotted(node: ast.expr) -> str | None:
    """``a.b.c`` for a chain of attributes that starts from a name; None for anything else."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if isinstance(node, ast.Name) else None
