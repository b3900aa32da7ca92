"""A Python function as text, so that another process can tell whether it has the same one.

The text is the function's bytecode with its constants, its defaults, and what it reads besides its arguments:
closures, globals, and the functions that it calls, these in the same way. Comments, names of files and the
numbers of lines are no part of it. What has no faithful text is `Refused`: nothing that depends on such a
function is cached or sent.
"""

from __future__ import annotations

import builtins
import dis
import inspect
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

import torch

from braze._torch.operators import is_operator_or_packet
from braze.errors import Refused

__all__ = ["instructions", "place_of_function", "text_of"]

_PLAIN = (bool, int, float, complex, str, bytes, type(None), type(Ellipsis))
_OF_TORCH = (torch.dtype, torch.device, torch.layout, torch.memory_format)
_KNOWN = frozenset({"torch", "braze", *sys.stdlib_module_names})
"""Packages whose versions are in every key, Python's being that of the bytecode."""


def instructions(code: types.CodeType) -> Iterator[dis.Instruction]:
    """Those of functions inside included. A code's own list of names does not tell ``float(x)``, which looks
    at a number, from ``x.float()``."""
    yield from dis.get_instructions(code)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from instructions(constant)


def place_of_function(function: Callable[..., Any]) -> str:
    """``name (file:line)``, for messages."""
    inner = inspect.unwrap(function)
    name = getattr(function, "__qualname__", None) or type(function).__name__
    code = getattr(inner, "__code__", None)
    return f"{name} ({code.co_filename}:{code.co_firstlineno})" if code is not None else str(name)


def text_of(function: Callable[..., Any]) -> str:
    """The text of ``function`` as it is now. Raises `Refused`."""
    return _Text().all_of(function)


class _Text:
    """One function and what it reads, each function once."""

    def __init__(self) -> None:
        self._numbers: dict[int, int] = {}
        self._waiting: list[types.FunctionType] = []

    def all_of(self, function: Callable[..., Any]) -> str:
        lines = [f"python {'.'.join(map(str, sys.version_info[:3]))}", self._value(function, "it")]
        while self._waiting:
            one = self._waiting.pop(0)
            lines.append(f"function {self._numbers[id(one)]}")
            lines.extend(self._function(one))
        return "\n".join(lines)

    def _function(self, function: types.FunctionType) -> Iterator[str]:
        code = function.__code__
        yield self._code(code)
        yield f"defaults {self._value(function.__defaults__, 'a default')}"
        yield f"keywords {self._value(function.__kwdefaults__, 'a default')}"
        for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
            try:
                value = cell.cell_contents
            except ValueError:
                raise Refused(f"{function.__qualname__} reads {name}, which is not set yet") from None
            yield f"{name} = {self._value(value, name)}"
        space = function.__globals__
        found = list(instructions(code))
        read = {str(i.argval) for i in found if i.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
        attributes = {str(i.argval) for i in found if i.opname in ("LOAD_ATTR", "LOAD_METHOD")}
        if any(i.opname.startswith("IMPORT_") for i in found):
            raise Refused(f"{function.__qualname__} imports modules when it is called")
        for name in sorted(read):
            if name in space:
                yield f"{name} = {self._global(space[name], name, attributes)}"
            elif not hasattr(builtins, name):
                raise Refused(f"{function.__qualname__} reads {name}, which is not there")

    def _global(self, value: Any, name: str, attributes: set[str]) -> str:
        """What a global holds; of a module that has no version, what may be taken from it."""
        if not isinstance(value, types.ModuleType) or _module(value) is not None:
            return self._value(value, name)
        taken = sorted(attribute for attribute in attributes if hasattr(value, attribute))
        parts = [f"{a}={self._value(getattr(value, a), f'{name}.{a}')}" for a in taken]
        return f"module {value.__name__} with {', '.join(parts)}"

    def _code(self, code: types.CodeType) -> str:
        """Bytecode, less what says where it stands."""
        shape = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
        names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
        table = getattr(code, "co_exceptiontable", b"")
        constants = [
            self._code(c) if isinstance(c, types.CodeType) else self._value(c, "a constant")
            for c in code.co_consts
        ]
        return f"code{shape}{names} {code.co_code.hex()} {table.hex()} [{', '.join(constants)}]"

    def _value(self, value: Any, name: str) -> str:
        kind = type(value)
        if kind in _PLAIN:
            return f"{kind.__name__} {value!r}"
        if isinstance(value, _OF_TORCH):
            return repr(value)
        if kind in (tuple, list):
            return f"{kind.__name__}({', '.join([self._value(v, name) for v in value])})"
        if kind in (set, frozenset):
            return f"{kind.__name__}({', '.join(sorted([self._value(v, name) for v in value]))})"
        if kind is dict:
            items = [f"{self._value(k, name)}: {self._value(v, name)}" for k, v in value.items()]
            return f"dict({', '.join(items)})"
        if isinstance(value, types.ModuleType):
            found = _module(value)
            if found is not None:
                return found
        if is_operator_or_packet(value):
            return f"torch.ops.{value}"
        if callable(value) and _package(value) in _KNOWN and hasattr(value, "__qualname__"):
            return f"{value.__module__}.{value.__qualname__}"
        if isinstance(value, types.FunctionType):
            if id(value) not in self._numbers:
                self._numbers[id(value)] = len(self._numbers)
                self._waiting.append(value)
            return f"function {self._numbers[id(value)]}"
        raise Refused(f"{name} is a {kind.__name__}, of which there is no text")


def _package(value: Any) -> str:
    return (getattr(value, "__module__", None) or "").split(".")[0]


def _module(module: types.ModuleType) -> str | None:
    """A module by its name and the version of its package; None where there is none."""
    package = module.__name__.split(".")[0]
    if package in _KNOWN:
        return f"module {module.__name__}"
    version = getattr(sys.modules.get(package), "__version__", None)
    return f"module {module.__name__} of version {version}" if isinstance(version, str) else None
