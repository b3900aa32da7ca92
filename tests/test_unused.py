"""Nothing is there for tests alone: what no code of the package's names is deleted, or put to work.

Names are compared as words, wherever they stand in code, so that a common name is never found; what is found
is dead, or is called by somebody else.
"""

from __future__ import annotations

import ast
import functools
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tests.source_tree import PACKAGE, python_files

ALLOWED = {
    # called by others
    "_call_function": "by the kind of a graph's node",
    "_get_attr": "by the kind of a graph's node",
    "_placeholder": "by the kind of a graph's node",
    "extra_repr": "PyTorch prints modules with it",
    "is_node_supported": "PyTorch's partitioner asks",
    "populate_cache": "PyTorch's cache artefacts call it",
    # for people
    "assert_agrees": "the numerical rule, for tests of everybody's",
    "in_float64": "the reference that goes with it",
    "sections_of": "what somebody sent along with a request",
    "unbound": "what a package still needs",
    "unusable_reason": "why there are no workers",
    # to find faults with
    "scratch_bytes": "what a kernel needs, to run it alone",
}
"""Functions and classes that the package does not name itself, and what they are for."""

MAKERS = re.compile(r"property|dataclass|static|classmethod|cache|contextmanager|overload|abstract|busy")
"""Decorators that hand nothing to a registry."""


def defined(tree: ast.Module) -> Iterator[str]:
    """Functions, methods and classes, less those that a decorator hands to a registry."""
    for node in ast.walk(tree):
        kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
        if isinstance(node, kinds) and all(MAKERS.search(ast.unparse(d)) for d in node.decorator_list):
            yield node.name


def named(tree: ast.Module) -> Iterator[str]:
    """Every word of code but definitions, imports and ``__all__``; those of short strings as well, by which
    things are found at run time."""
    public = {
        id(part)
        for node in tree.body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__"
        for part in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in public:
            continue
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.keyword) and node.arg:
            yield node.arg
        elif isinstance(node, ast.alias) and node.asname:
            yield node.name
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and len(node.value) < 60:
            yield from re.findall(r"\w+", node.value)


def fields(tree: ast.Module) -> Iterator[str]:
    """What objects keep: declared, or assigned to ``self``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            for part in node.body:
                if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name):
                    yield part.target.id
        own = isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "self"
        if own and isinstance(node.ctx, ast.Store):
            yield node.attr


def read(tree: ast.Module) -> Iterator[str]:
    """What is asked of objects."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
            yield node.attr
        elif isinstance(node, ast.MatchClass):
            yield from node.kwd_attrs
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and len(node.value) < 60:
            yield from re.findall(r"\w+", node.value)


@functools.lru_cache(maxsize=1)
def trees() -> list[tuple[Path, ast.Module]]:
    return [(path, ast.parse(path.read_text(encoding="utf-8"))) for path in python_files(PACKAGE)]


def test_what_nobody_names() -> None:
    parsed = trees()
    words = Counter(word for _, tree in parsed for word in named(tree))
    found = {
        name: path.relative_to(PACKAGE).as_posix()
        for path, tree in parsed
        for name in defined(tree)
        if not words[name] and not name.startswith("__")
    }
    assert {name: place for name, place in found.items() if name not in ALLOWED} == {}
    assert sorted(ALLOWED.keys() - found.keys()) == [], "these need no exception"


def test_fields_that_nobody_reads() -> None:
    parsed = trees()
    words = Counter(word for _, tree in parsed for word in read(tree))
    found = {(path.name, name) for path, tree in parsed for name in fields(tree) if not words[name]}
    assert found == set()
