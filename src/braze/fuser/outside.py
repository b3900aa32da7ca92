"""What a function reads besides its arguments: plain values in globals and closures, of it and of the
functions it calls. They are part of the code that is made, so a call looks whether they are still the same.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

__all__ = ["Outside", "outside"]

_PLAIN = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device)
_MOST_FUNCTIONS = 64
_FOREIGN = ("torch", "builtins", "math", "numpy", "functools", "itertools", "operator", "typing", "braze")


@dataclass(frozen=True)
class Outside:
    """One such value: where it is, and how to read it."""

    name: str
    home: dict[str, Any] | types.CellType

    def read(self) -> Any:
        """Its present value; None where it is gone."""
        if isinstance(self.home, dict):
            return self.home.get(self.name)
        try:
            return self.home.cell_contents
        except ValueError:
            return None


def outside(function: Callable[..., Any]) -> tuple[Outside, ...]:
    """The plain values (numbers, strings, dtypes, and tuples of such) that a function may read besides its
    arguments. What lies deeper, in objects, lists and dicts, is read when the function is traced."""
    found: dict[tuple[int, str], Outside] = {}
    stack: list[Any] = [function]
    seen: set[int] = set()
    while stack and len(seen) < _MOST_FUNCTIONS:
        one = stack.pop()
        one = getattr(one, "__wrapped__", one)
        if not isinstance(one, types.FunctionType) or id(one) in seen:
            continue
        seen.add(id(one))
        for place in _places(one):
            value = place.read()
            if _is_plain(value) and not place.name.startswith("__"):
                found[id(place.home), place.name] = place
            elif isinstance(value, types.FunctionType) and not _is_foreign(value):
                stack.append(value)
    return tuple(found.values())


def _places(function: types.FunctionType) -> Iterator[Outside]:
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        yield Outside(name, cell)
    for name in _names(function.__code__):
        if name in function.__globals__:
            yield Outside(name, function.__globals__)


def _names(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(map(_is_plain, value))
    return isinstance(value, _PLAIN)


def _is_foreign(function: types.FunctionType) -> bool:
    return (function.__module__ or "").split(".")[0] in _FOREIGN
