"""Python functions written as source: made of parts that are the same for many, and of constants."""

from __future__ import annotations

import functools
import itertools
import linecache
from collections.abc import Callable, Sequence
from types import CodeType
from typing import Any

import torch

from braze._torch import native
from braze.fuser.accounts import counts
from braze.fuser.kernel import Prepared

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

    def results(
        self, prepared: Prepared, dtypes: Sequence[torch.dtype], inputs: Sequence[str], indent: str = ""
    ) -> list[str]:
        """Statements that make the outputs of a prepared launch and launch it; the variables they are in.
        ``inputs``: expressions for the graph's inputs."""
        outputs = [f"_out{k}" for k in range(len(prepared.layouts))]
        self.constant("_empty", native.empty_strided_cpu)
        for k, ((sizes, strides), dtype) in enumerate(zip(prepared.layouts, dtypes, strict=True)):
            self.constant(f"_shape{k}", sizes)
            self.constant(f"_strides{k}", strides)
            self.constant(f"_dtype{k}", dtype)
            self.line(f"{indent}_out{k} = _empty(_shape{k}, _strides{k}, _dtype{k})")
        self.launch(prepared, inputs, outputs, indent)
        return outputs

    def launch(
        self, prepared: Prepared, inputs: Sequence[str], outputs: Sequence[str], indent: str = ""
    ) -> None:
        """Statements that launch a prepared kernel on tensors that are there."""
        kernel, binding = prepared.kernel, prepared.binding
        if kernel is None or binding is None:
            self.constant("_count", counts.add)
            self.line(f"{indent}_count('empty')")
            return
        source = kernel.launch(inputs, outputs, binding.how)
        self.names.update(source.names)
        self.names.update(zip(source.sizes, binding.sizes, strict=True))
        self.names.update(zip(source.workspaces, binding.workspaces, strict=True))
        for line in source.lines:
            self.line(indent + line)

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
