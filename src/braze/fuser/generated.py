"""Python functions written as source: made of parts that are the same for many, and of constants."""

from __future__ import annotations

import functools
import itertools
import linecache
from collections.abc import Callable, Sequence
from types import CodeType
from typing import Any

__all__ = ["Generated"]


class Generated:
    """A function that is being written: ``line`` by line, with the ``names`` that it uses as globals. Equal
    sources are compiled once."""

    def __init__(self, name: str, parameters: Sequence[str]) -> None:
        self.name = name
        self.parameters = tuple(parameters)
        self.names: dict[str, Any] = {}
        self._lines: list[str] = []

    def line(self, text: str) -> None:
        """Add a statement."""
        self._lines.append(text)

    def constant(self, name: str, value: object) -> str:
        """Make ``value`` known by ``name``."""
        self.names[name] = value
        return name

    @property
    def source(self) -> str:
        """The function as text."""
        body = "\n".join(f"    {line}" for line in self._lines)
        return f"def {self.name}({', '.join(self.parameters)}):\n{body}\n"

    def function(self) -> Callable[..., Any]:
        """The function itself."""
        code = _compiled(self.source, self.name)
        space = dict(self.names)
        exec(code, space)
        function: Callable[..., Any] = space[self.name]
        return function


_numbers = itertools.count()


@functools.lru_cache(maxsize=1024)
def _compiled(source: str, name: str) -> CodeType:
    filename = f"<braze fuser {name} {next(_numbers)}>"
    linecache.cache[filename] = (len(source), None, source.splitlines(True), filename)
    return compile(source, filename, "exec")
