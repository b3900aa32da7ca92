"""One backend's words stay in its own rooms: elsewhere, code speaks of backends and devices."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from pathlib import Path

import pytest

from tests.source_tree import PACKAGE, python_files

WORDS = re.compile(
    r"llvm|(?<![a-z])lanes?(?![a-z])|openmp|gomp|(?<![a-z])omp(?![a-z])|(?<![a-z])cpus?(?![a-z])"
)

OWN_ROOMS = ("codegen/llvm/", "codegen/program/", "runtime/", "_torch/")
"""The backend itself, with its programs; its engine, and what runs its code; and where PyTorch's own names
are translated."""

ALLOWED = {
    "config.py": "options are for users, who choose a CPU and a level of LLVM's",
    "cpus.py": "the names of CPUs, for the option",
    "errors.py": "`LLVMError`, and what to do about a worker that LLVM has ended",
    "codegen/backends.py": "the backend that is always there is registered",
    "codegen/prestart.py": "and the pool of its workers, which starts without it",
    "frontend/backend.py": "`mode=` stands for options, by their names",
    "cli/doctor.py": "looks whether llvmlite works",
    "compile/in_process.py": "the option `target_cpu` is set",
    "frontend/aot_compile.py": "`targets=` are values of the option `target_cpu`",
    "frontend/aot_arguments.py": "which are looked at here",
    "inspect/fuzz/jobs.py": "fuzzing sets options",
    "compile/workers.py": "the name of a file of Linux's",
}
"""Files that may say such a word, with the reason; paths in the package."""

OF_PYTORCH = re.compile(
    r"_scaled_dot_product_flash_attention_for_cpu(_backward)?"
    r"|_(weight_int4pack_mm|convert_weight_to_int4pack)_for_cpu|int4mm_packed_weight_cpu"
)
"""Operators whose names hold one."""


def said(source: str) -> list[tuple[int, str]]:
    """Names and strings in code, docstrings and comments apart, that hold such a word: line and token."""
    spoken = {
        node.body[0].value.lineno
        for node in ast.walk(ast.parse(source))
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
        and ast.get_docstring(node) is not None
        and isinstance(node.body[0], ast.Expr)
    }
    found = []
    last = tokenize.NEWLINE
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        documents = token.type == tokenize.STRING and (
            token.start[0] in spoken or last in (tokenize.NEWLINE, tokenize.INDENT, tokenize.NL)
        )
        counts = token.type in (tokenize.NAME, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", -1))
        text = OF_PYTORCH.sub("", token.string).lower().replace("_", " ")
        if counts and not documents and WORDS.search(text):
            found.append((token.start[0], token.string))
        if token.type not in (tokenize.COMMENT, tokenize.NL):
            last = token.type
    return found


def files() -> list[Path]:
    """Those of the package that are nobody's own."""
    every = python_files(PACKAGE)
    return [p for p in every if not p.relative_to(PACKAGE).as_posix().startswith(OWN_ROOMS)]


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_word_of_one_backend_outside_its_rooms(path: Path) -> None:
    if path.relative_to(PACKAGE).as_posix() not in ALLOWED:
        assert said(path.read_text(encoding="utf-8")) == []


def test_what_is_allowed_is_needed() -> None:
    for name in ALLOWED:
        assert said((PACKAGE / name).read_text(encoding="utf-8")), f"{name} needs no exception"


def test_what_counts() -> None:
    assert said(
        '"""LLVM."""\n# CPU\nx = "cpu"  # lanes\ndef f():\n    """CPUs."""\n    return llvm_ir\n'
    ) == [
        (3, '"cpu"'),
        (6, "llvm_ir"),
    ]
    assert said("lanes_of = planes = cpuset = 1") == [(1, "lanes_of")]
